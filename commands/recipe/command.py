"""The command `recipe`: a chain of commands from raw text to an aligned model, of which only unfinished stages run.

Every stage is a process of its own, `python main.py ...` as a user would type it, so that a crash, a leak or a changed
setting of one cannot reach the next; the price is some seconds of imports per stage. Complete stages are recorded in
`recipe.json`, beside one log per stage and one page for all; progress within a stage is the stage's own.
"""

import ctypes
import fcntl
import functools
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import IO, NoReturn

from jsonargparse import ActionConfigFile

from callbacks.reports.recipe_report import StageSummary, write_recipe_report
from commands.config_files import config_files, read_config_file
from commands.functions import FunctionParser
from commands.recipe.plan import PlannedStage, RecipeStage, Record, Resolve, plan_again, plan_recipe
from commands.recipe.records import read_records, write_records
from commands.registry import example_of
from common.content_checksums import checksum_cache
from common.errors import InputError

PROGRAM = [sys.executable, str(Path(__file__).parents[2] / "main.py")]
LOGS, LOCK = "logs", ".lock"
POLL_SECONDS = 0.5
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PR_SET_PDEATHSIG = 1


def recipe(arguments: list[str], resolve: Resolve) -> None:
    """`main.py recipe`: parse the arguments and run the stages.

    Args:
        arguments: behind the command's name.
        resolve: makes the whole configuration of a stage from its arguments.
    """
    parser = FunctionParser(prog="llm recipe")
    parser.example = example_of("recipe")
    parser.add_argument("-c", "--config", action=ActionConfigFile, help="YAML file of the recipe")
    parser.add_function_arguments(run_recipe, skip={"resolve", "only", "first", "dry_run"})
    parser.add_argument(
        "--only", type=str | None, help="name of the only stage to run; the stages it needs stay as they are"
    )
    parser.add_argument("--from", type=str | None, help="name of the first stage to run; earlier ones stay as they are")
    parser.add_argument(
        "--dry-run", "--dry_run", action="store_true", help="print what would run and why, and run nothing"
    )
    with_stages = [str(path) for path in config_files(arguments) if "stages" in read_config_file(path)]
    if len(with_stages) > 1:
        raise InputError(
            f"--config {' --config '.join(with_stages)}: each has stages of its own, run one after the other"
        )
    given = parser.parse_args(arguments)
    stages = [RecipeStage(**stage.as_dict()) for stage in given.stages]
    run_recipe(given.folder, stages, resolve, given.follow_sources, given.only, given["from"], given.dry_run)


def run_recipe(
    folder: str,
    stages: list[RecipeStage],
    resolve: Resolve,
    follow_sources: bool = True,
    only: str | None = None,
    first: str | None = None,
    dry_run: bool = False,
) -> None:
    """Run every stage that is not complete with its present dependencies.

    Args:
        folder: folder of records, logs and the page.
        stages: in the order in which they run.
        resolve: see `plan_recipe`, as the last three.
        follow_sources: whether a stage runs again when source code that it uses was edited; false where that would
            cost weeks.
        only: name of the only stage to run.
        first: name of the first stage to run.
        dry_run: whether to print the plan and run nothing.
    """
    root = Path(folder)
    if dry_run:
        with checksum_cache(root) if root.is_dir() else nullcontext():
            steps = plan_recipe(stages, read_records(root), resolve, only, first, follow_sources)
        for step in steps:
            print(f"{step.action:<9}{step.stage.name:<18}{step.reason}")
            print(f"{'':<9}{'':<18}{command_line(step.stage)}")
        return
    (root / LOGS).mkdir(parents=True, exist_ok=True)
    with locked_folder(root) as lock, checksum_cache(root):
        records = read_records(root)
        steps = plan_recipe(stages, records, resolve, only, first, follow_sources)
        for step in steps:
            if step.action == "run" and step.stage.name in records:
                # A kill between two stages must not make the second look done with the first's old result.
                records[step.stage.name].state = "stale"
        write_records(root, records)
        began = time.monotonic()
        for number, planned in enumerate(steps, start=1):
            record = records.get(planned.stage.name)
            step = plan_again(planned, steps[: number - 1], record, resolve, follow_sources)
            steps[number - 1] = step
            try:
                run_step(root, step, records, f"[{number}/{len(steps)}] {step.stage.name:<16}", lock)
            finally:
                if number == len(steps) or step.action in ("run", "continue"):
                    page = write_recipe_report(root, [summary(root, step, records) for step in steps])
        ran = sum(step.action in ("run", "continue") for step in steps)
        print(
            f"{root.name}: {ran} of {len(steps)} stages run, {format_clock(time.monotonic() - began)}; report: {page}"
        )


def run_step(root: Path, step: PlannedStage, records: dict[str, Record], label: str, lock: int) -> None:
    """Run a stage to its end, or print why it does not run."""
    if step.action in ("skip", "keep"):
        print(f"{label} {'skipped' if step.action == 'skip' else 'left alone'}: {step.reason}", flush=True)
        return
    name = step.stage.name
    if step.action == "run":
        if step.output is not None and step.output.is_dir() and any(step.output.iterdir()):
            aside = step.output.with_name(f"{step.output.name}.abandoned-{time.strftime('%Y%m%d-%H%M%S')}")
            step.output.rename(aside)
            print(f"{label} {step.output} has other dependencies: it is now {aside}", flush=True)
        records[name] = Record(step.dependencies)
        write_records(root, records)
    print(f"{label} {step.reason}: {command_line(step.stage)}", flush=True)
    log = log_of(root, step.stage)
    began = time.monotonic()
    with log.open("ab") as file:
        file.write(f"\n$ {command_line(step.stage)}  # {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
        file.flush()
        look = functools.partial(show, label, began, log)
        command = [*shlex.split(step.stage.launcher), *PROGRAM, *step.stage.arguments]
        status = run_process(command, file, lock, look)
    seconds = time.monotonic() - began
    records[name].seconds += seconds
    if status == 0 and step.is_whole:
        records[name].state = "complete"
    write_records(root, records)
    if status or not step.is_whole:
        fail(step, status, log)
    print(f"{label} complete, {format_clock(seconds)}", flush=True)


def fail(step: PlannedStage, status: int, log: Path) -> NoReturn:
    """Exit with one line: the stage that failed, how, and its log."""
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    if status == 0:
        how = f"ended with status 0 before {step.output} was whole, start again to continue"
    said = last_line(log)
    said = f" ({said})" if said.startswith("error: ") else ""
    print(f"error: stage {step.stage.name}: `{command_line(step.stage)}` {how}{said}, see {log}", file=sys.stderr)
    sys.exit(1)


# Processes


@contextmanager
def locked_folder(root: Path) -> Iterator[int]:
    """Lock of the recipe's folder; a stage inherits it, so that a stage that outlives its recipe is waited for."""
    descriptor = os.open(root / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{root} is locked by another start of this recipe: waiting for that to end", flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def run_process(command: list[str], log: IO[bytes], lock: int, look: Callable[[], None]) -> int:
    """Run a command with its output in a log; returns its status, minus the signal's number where one ended it.

    A signal to stop becomes SIGTERM for the stage, which makes training save and end; a second one kills it. The recipe
    then ends too, with 128 plus the signal's number.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        # A terminal's Ctrl-C reaches the recipe alone, which passes it on once.
        start_new_session=True,
        pass_fds=[lock],
        preexec_fn=_end_with_parent,
    )
    received: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if process.poll() is None:
            if len(received) > 1:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.terminate()

    previous = {number: signal.signal(number, pass_on) for number in PASSED_ON}
    try:
        while (status := ended(process)) is None:
            look()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if received:
        name = signal.Signals(received[0]).name
        print(f"\nstopped by {name}, run the same command again to continue", flush=True)
        sys.exit(128 + received[0])
    return status


def ended(process: subprocess.Popen[bytes]) -> int | None:
    """Exit status of a process, None where it still runs after `POLL_SECONDS`."""
    try:
        return process.wait(POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return None


_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _end_with_parent() -> None:
    """Have Linux end the stage when its recipe is killed; elsewhere the stage continues and is waited for."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


# Messages


def summary(root: Path, step: PlannedStage, records: dict[str, Record]) -> StageSummary:
    """Summary of a stage for the page."""
    record = records.get(step.stage.name)
    log = log_of(root, step.stage)
    # Prepared data is shared, but its page belongs to this stage.
    prepared = step.dependencies.configuration.get("data.init_args.folder") if step.stage.command == "prepare" else None
    return StageSummary(
        step.stage.name,
        command_line(step.stage),
        "not begun" if record is None else record.state,
        record.seconds if record is not None else 0.0,
        Path(str(prepared)) if prepared else step.output,
        log if log.exists() else None,
    )


def command_line(stage: RecipeStage) -> str:
    """Command of a stage as a user would type it."""
    return shlex.join([*shlex.split(stage.launcher), "python", "main.py", *stage.arguments])


def log_of(root: Path, stage: RecipeStage) -> Path:
    """Log of a stage, of all its starts."""
    return root / LOGS / f"{stage.name}.log"


def show(label: str, began: float, log: Path) -> None:
    """Print the stage's duration and last log line on a terminal."""
    if sys.stdout.isatty():
        width = os.get_terminal_size(sys.stdout.fileno()).columns
        line = f"{label} {format_clock(time.monotonic() - began)}  {last_line(log)}"
        print(f"\r{line[: width - 1]:<{width - 1}}\r", end="", flush=True)


def last_line(log: Path) -> str:
    """Last line of a log; a progress bar overwrites its line."""
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - 4096, 0))
        lines = file.read().decode("utf-8", "replace").replace("\r", "\n").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def format_clock(seconds: float) -> str:
    """Duration as hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))

"""A recipe: the commands that make an aligned model from raw text, run one after another, each only where it must be.

Every stage is a process of its own, `python main.py ...` as a user would type it, so that a crash, a leak or a changed
setting of one cannot reach the next; the price is some seconds of imports a stage. What is done is remembered in
`recipe.json`, beside one log a stage and one page for all; how far a stage got is the stage's own business.
"""

import ctypes
import fcntl
import functools
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import IO, NoReturn

from jsonargparse import ActionConfigFile

from callbacks.reports.recipe_report import StageSummary, write_recipe_report
from commands.functions import FunctionParser
from commands.recipe.plan import Record, Resolve, Stage, Step, make_plan
from commands.registry import example_of
from common.errors import InputError
from common.files import write_text_atomically

PROGRAM = [sys.executable, str(Path(__file__).parents[2] / "main.py")]
RECORDS, LOGS, LOCK = "recipe.json", "logs", ".lock"
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
        "--only", type=str | None, help="name of the single stage to run, what it needs taken as it stands"
    )
    parser.add_argument(
        "--from", type=str | None, help="name of the first stage to run, those before taken as they stand"
    )
    parser.add_argument("--dry_run", action="store_true", help="say what would be run and why, and run nothing")
    given = parser.parse_args(arguments)
    stages = [Stage(**stage.as_dict()) for stage in given.stages]
    run_recipe(given.folder, stages, resolve, given.follow_sources, given.only, given["from"], given.dry_run)


def run_recipe(
    folder: str,
    stages: list[Stage],
    resolve: Resolve,
    follow_sources: bool = True,
    only: str | None = None,
    first: str | None = None,
    dry_run: bool = False,
) -> None:
    """Run every stage that is not complete with the ingredients it has now.

    Args:
        folder: of records, logs and the page.
        stages: in the order in which they run.
        resolve: see `make_plan`, as the last three.
        follow_sources: whether a stage is made anew when source that it uses was edited; false where that would cost
            weeks.
        only: a single stage.
        first: the first stage.
        dry_run: only say it.
    """
    root = Path(folder)
    if dry_run:
        for step in make_plan(stages, read_records(root), resolve, only, first, follow_sources):
            print(f"{step.action:<9}{step.stage.name:<18}{step.reason}")
            print(f"{'':<9}{'':<18}{command_line(step.stage)}")
        return
    (root / LOGS).mkdir(parents=True, exist_ok=True)
    with alone(root) as lock:
        records = read_records(root)
        steps = make_plan(stages, records, resolve, only, first, follow_sources)
        for step in steps:
            if step.action == "run" and step.stage.name in records:
                # A kill between two stages must not make the second look done with the first's old result.
                records[step.stage.name].state = "stale"
        write_records(root, records)
        began = time.monotonic()
        for number, step in enumerate(steps, start=1):
            try:
                run_step(root, step, records, f"[{number}/{len(steps)}] {step.stage.name:<16}", lock)
            finally:
                if number == len(steps) or step.action in ("run", "continue"):
                    page = write_recipe_report(root, [summary(root, step, records) for step in steps])
        ran = sum(step.action in ("run", "continue") for step in steps)
        print(f"{root.name}: {ran} of {len(steps)} stages run, {clock(time.monotonic() - began)}; report: {page}")


def run_step(root: Path, step: Step, records: dict[str, Record], label: str, lock: int) -> None:
    """Run a stage to its end, or say why not."""
    if step.action in ("skip", "keep"):
        print(f"{label} {'skipped' if step.action == 'skip' else 'left alone'}: {step.reason}", flush=True)
        return
    name = step.stage.name
    if step.action == "run":
        if step.output is not None and step.output.is_dir() and any(step.output.iterdir()):
            aside = step.output.with_name(f"{step.output.name}.abandoned-{time.strftime('%Y%m%d-%H%M%S')}")
            step.output.rename(aside)
            print(f"{label} {step.output} is of other ingredients: it is now {aside}", flush=True)
        records[name] = Record(step.made_of)
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
    print(f"{label} complete, {clock(seconds)}", flush=True)


def fail(step: Step, status: int, log: Path) -> NoReturn:
    """End with one line that says what failed, how, and where it is written."""
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    if status == 0:
        how = f"ended with status 0 before {step.output} was whole, start again to continue"
    said = last_line(log)
    said = f" ({said})" if said.startswith("error: ") else ""
    print(f"error: stage {step.stage.name}: `{command_line(step.stage)}` {how}{said}, see {log}", file=sys.stderr)
    sys.exit(1)


# Processes


@contextmanager
def alone(root: Path) -> Iterator[int]:
    """Hold the recipe's folder; a stage inherits the lock, so that one that outlives its recipe is waited for."""
    descriptor = os.open(root / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{root} is at work for another start of this recipe: waiting for that to end", flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def run_process(command: list[str], log: IO[bytes], lock: int, look: Callable[[], None]) -> int:
    """Run a command with its output in a log and return its status, minus the signal's number where one ended it.

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
    """Its status, or None where it still runs after a moment."""
    try:
        return process.wait(POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return None


_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _end_with_parent() -> None:
    """In the stage's process: Linux tells it when the recipe was killed; elsewhere it works on, and is waited for."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


# Records, and what is shown


def read_records(root: Path) -> dict[str, Record]:
    """By stage.

    Raises:
        InputError: when the file is damaged.
    """
    path = root / RECORDS
    if not path.exists():
        return {}
    try:
        return {name: Record.of(stored) for name, stored in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error!r}): move it and the stages' folders away") from error


def write_records(root: Path, records: dict[str, Record]) -> None:
    """Replace the file in one step."""
    stored = {name: asdict(record) for name, record in records.items()}
    write_text_atomically(root / RECORDS, json.dumps(stored, indent=1))


def summary(root: Path, step: Step, records: dict[str, Record]) -> StageSummary:
    """What the page says of a stage."""
    record = records.get(step.stage.name)
    log = log_of(root, step.stage)
    # Prepared data is nobody's own, but its page is this stage's.
    prepared = step.made_of.configuration.get("data.init_args.folder") if step.stage.command == "prepare" else None
    return StageSummary(
        step.stage.name,
        command_line(step.stage),
        "not begun" if record is None else record.state,
        record.seconds if record is not None else 0.0,
        Path(str(prepared)) if prepared else step.output,
        log if log.exists() else None,
    )


def command_line(stage: Stage) -> str:
    """As a user would type it."""
    return shlex.join([*shlex.split(stage.launcher), "python", "main.py", *stage.arguments])


def log_of(root: Path, stage: Stage) -> Path:
    """Where a stage's output is kept, of all its starts."""
    return root / LOGS / f"{stage.name}.log"


def show(label: str, began: float, log: Path) -> None:
    """On a terminal, one line that tells how long a stage runs and what it said last."""
    if sys.stdout.isatty():
        width = os.get_terminal_size(sys.stdout.fileno()).columns
        line = f"{label} {clock(time.monotonic() - began)}  {last_line(log)}"
        print(f"\r{line[: width - 1]:<{width - 1}}\r", end="", flush=True)


def last_line(log: Path) -> str:
    """What a log says last; a progress bar writes over its line."""
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - 4096, 0))
        lines = file.read().decode("utf-8", "replace").replace("\r", "\n").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))

"""CPU threads on shared cores: tokens per second by OpenMP wait policy, alone and beside other processes.

    python -m benchmarks.shared_cores --repeats 5

The quickstart's model on random tokens, its micro-batches, loss, clipping and optimizer, in a fresh process a setting:
alone, beside one process that only counts, and beside a second one like itself. Settings take turns; medians. Before
each measurement the script waits until other processes leave the cores alone, and what they disturb it measures again;
where its patience ends first, the record has fewer measurements and no disturbed ones.

Fair beside one busy thread is three quarters of two cores, beside an equal process one half; shares are of that part of
what the default of GNU OpenMP reaches alone. Result: shared_cores.json.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from common.compute.cpu_threads import OURS, SPINS, available_cores

ROOT = Path(__file__).parent.parent
RESULT = Path(__file__).with_suffix(".json")
VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS", "OMP_PROC_BIND", "GOMP_CPU_AFFINITY", OURS)
SETTINGS: dict[str, dict[str, str]] = {
    "GNU OpenMP's default": {},
    "PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
    **{f"{spins} rounds": {"GOMP_SPINCOUNT": spins} for spins in ("1000", "10000", "30000", "100000")},
    "bound threads": {"OMP_PROC_BIND": "true"},
    "watched": {"GOMP_SPINCOUNT": SPINS, "WATCH": "1"},
}
BASE = next(iter(SETTINGS))
FAIR = {"alone": 1.0, "busy": 0.75, "equal": 0.5}
QUIET = 0.05
"""Cores that others may use while one measures."""


def learn(precision: str) -> None:
    """Train for as many seconds as each line of the input says, and print tokens per second."""
    import torch
    import yaml

    from common.compute.cpu_threads import watch_spin
    from datamodules import RandomTokens
    from models import AdamW, LanguageModel, WarmupStableDecay
    from models.decoder import DecoderConfig
    from models.optimizers.adamw import scale_gradients

    configuration = yaml.safe_load((ROOT / "configs/quickstart.yaml").read_text(encoding="utf-8"))
    data = configuration["data"]["init_args"]
    vocabulary, length, rows = data["tokenizer"]["vocabulary_size"], data["sequence_length"], data["batch_size"]
    shape = DecoderConfig(vocabulary_size=vocabulary, **configuration["model"]["init_args"]["decoder"])
    model = LanguageModel(AdamW(), WarmupStableDecay(), shape)
    model.configure_model()
    (optimizer,) = model.build_optimizers()
    batches = iter(RandomTokens(vocabulary, length, rows).train_dataloader())
    accumulated = configuration["trainer"]["accumulate_grad_batches"]

    def step() -> None:
        for _ in range(accumulated):
            batch = next(batches)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
                loss = model({"label_count": (batch["labels"] >= 0).sum()} | batch, model.loss)
            (loss / accumulated).backward()
        scale_gradients(model.parameters(), (1 / (model.gradient_norm() + 1e-6)).clamp(max=1.0))
        optimizer.step()
        optimizer.zero_grad()

    if "WATCH" in os.environ:
        assert watch_spin(torch.get_num_threads()) is not None
    for _ in range(3):
        step()
    print("ready", flush=True)
    for line in sys.stdin:
        begin, steps = time.perf_counter(), 0
        while (now := time.perf_counter()) - begin < float(line):
            step()
            steps += 1
        print(steps * accumulated * rows * length / (now - begin), flush=True)


class Learner:
    """A process that runs `learn`.

    Args:
        environment: variables of its setting.
        precision: as the Trainer calls it.
    """

    def __init__(self, environment: dict[str, str], precision: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        command = [sys.executable, "-m", "benchmarks.shared_cores", "--learn", precision]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=inherited | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def read(self) -> str:
        """Its next line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, f"the learner ended with status {self.process.wait()}"
        return line

    def begin(self, seconds: float) -> None:
        """Let it train."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """Close its input, and wait."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@contextlib.contextmanager
def busy_process() -> Iterator[int]:
    """Id of a process that keeps one core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def core_seconds() -> float:
    """What all processes have used, also those of other machines on these cores."""
    user, nice, system, _, _, interrupts, soft, steal, *_ = (
        int(ticks) for ticks in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + interrupts + soft + steal) / os.sysconf("SC_CLK_TCK")


def used(pids: list[int]) -> float:
    """Core seconds of some processes."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def watched(function: Callable[[], Any], pids: list[int]) -> tuple[Any, float]:
    """What a function returns, and how many cores others used meanwhile."""
    pids = [os.getpid(), *pids]
    all_before, ours_before, begin = core_seconds(), used(pids), time.perf_counter()
    result = function()
    ours = used(pids) - ours_before
    return result, max(0.0, core_seconds() - all_before - ours) / (time.perf_counter() - begin)


def quiet_rate(function: Callable[[], float], pids: list[int], until: float) -> float:
    """A rate, again and again until it is undisturbed.

    Args:
        function: measures it.
        pids: processes that belong to it.
        until: `time.monotonic()` at which patience ends.

    Raises:
        TimeoutError: when others leave no quiet moment until then.
    """
    while time.monotonic() < until:
        # Long enough for the watch to see that it is calm.
        if watched(lambda: time.sleep(1.5), pids)[1] <= QUIET:
            rate, others = watched(function, pids)
            if others <= QUIET:
                return rate
    raise TimeoutError


def measure(environment: dict[str, str], precision: str, seconds: float, until: float) -> dict[str, float]:
    """Tokens per second in the three situations."""
    with contextlib.ExitStack() as stack:
        pair = [Learner(environment, precision) for _ in range(2)]
        for learner in pair:
            stack.callback(learner.end)
        for learner in pair:
            assert learner.read() == "ready"
        pids = [learner.process.pid for learner in pair]

        def rate(learners: list[Learner]) -> float:
            for learner in learners:
                learner.begin(seconds)
            return statistics.mean(float(learner.read()) for learner in learners)

        found = {"alone": quiet_rate(lambda: rate(pair[:1]), pids, until)}
        with busy_process() as pid:
            found["busy"] = quiet_rate(lambda: rate(pair[:1]), [*pids, pid], until)
        return found | {"equal": quiet_rate(lambda: rate(pair), pids, until)}


def table(rates: dict[str, dict[str, list[float]]]) -> list[dict[str, Any]]:
    """Medians, beside what is fair."""
    medians = {name: {place: statistics.median(v) for place, v in each.items()} for name, each in rates.items()}
    base = medians.get(BASE, next(iter(medians.values())))["alone"]
    return [
        {
            "setting": name,
            "tokens_per_second": {place: round(rate) for place, rate in each.items()},
            "share_of_fair": {place: round(rate / FAIR[place] / base, 3) for place, rate in each.items()},
            "rates": {place: [round(rate) for rate in v] for place, v in rates[name].items()},
        }
        for name, each in medians.items()
    ]


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--learn", help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--patience", type=float, default=3600, help="seconds after which nothing more is measured")
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--only", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--extend", action="store_true", help="add to the measurements of the record")
    given = parser.parse_args()
    if given.learn:
        learn(given.learn)
        return
    until = time.monotonic() + given.patience
    rates: dict[str, dict[str, list[float]]] = {}
    if given.extend:
        rows = json.loads(RESULT.read_text(encoding="utf-8"))["rows"]
        rates = {row["setting"]: row["rates"] for row in rows}
    for name in [name for _ in range(given.repeats) for name in given.only]:
        try:
            found = measure(SETTINGS[name], given.precision, given.seconds, until)
        except TimeoutError:
            print("no quiet moment any more: the rest is not measured", file=sys.stderr)
            break
        print(name, {place: round(rate) for place, rate in found.items()}, flush=True)
        for place, rate in found.items():
            rates.setdefault(name, {}).setdefault(place, []).append(rate)
        record = {
            "rows": table(rates),
            "precision": given.precision,
            "seconds": given.seconds,
            "cores": available_cores(),
            "kernel": platform.release(),
        }
        RESULT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print("| setting | alone | beside a busy process | beside an equal one |\n|---|---|---|---|")
    for row in table(rates) if rates else []:
        cells = (f"{row['tokens_per_second'][place]:,} ({row['share_of_fair'][place]:.0%})" for place in FAIR)
        print(f"| {row['setting']} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

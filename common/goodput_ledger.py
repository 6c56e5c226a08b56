"""Goodput ledger: the lines of `goodput.jsonl`, their totals and the purposes that wall-clock time is booked under.

Each line books the seconds since the line before, with the optimizer steps completed by then. Because steps that a kill
or a rollback undid are known by their number, the ledger is never rewritten: their seconds become lost work when the
lines are added up.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.run_folder import read_goodput

START, INPUT, COMPUTE, COMMUNICATION, BUBBLE = "start-up", "input", "compute", "communication", "bubble"
CHECKPOINT, EVALUATION, OTHER, LOST = "checkpoint", "evaluation", "other", "lost"
PURPOSES = (COMPUTE, COMMUNICATION, BUBBLE, INPUT, CHECKPOINT, EVALUATION, OTHER, START, LOST)
TRAINING = (COMPUTE, COMMUNICATION, BUBBLE, INPUT)
"""Purposes of a training step."""
LABELS = {
    COMPUTE: "compute",
    COMMUNICATION: "communication (exposed)",
    BUBBLE: "pipeline bubble",
    INPUT: "input wait",
    CHECKPOINT: "checkpoints",
    EVALUATION: "evaluation",
    OTHER: "callbacks and logging",
    START: "start-up",
    LOST: "lost work",
}
"""Purpose to its label in the report."""


@dataclass
class LedgerTotals:
    """Totals of a ledger.

    Attributes:
        kept: (step, seconds by purpose, FLOPs) of every line that still counts.
        seconds: by purpose; those of steps that were done again, and of the time between a kill and the next start, are
            lost.
        flops: of kept steps.
        lost_flops: of the others.
        last: time of the last line; None before the first one, and after a run that was complete.
        peak: FLOP/s of all devices together.
        restarts: starts after the first one.
        rewinds: steps back within a run.
    """

    kept: list[tuple[int, dict[str, float], float]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PURPOSES, 0.0))
    flops: float = 0.0
    lost_flops: float = 0.0
    last: float | None = None
    peak: float | None = None
    restarts: int = -1
    rewinds: int = 0

    def add(self, line: dict[str, Any]) -> None:
        """Take one more line into account."""
        if "start" in line:
            self._rewind(line["step"])
            if self.last is not None:
                self.seconds[LOST] += max(line["start"] - self.last, 0.0)
            self.peak, self.last, self.restarts = line["peak"], line["start"], self.restarts + 1
        elif "rewind" in line:
            self._rewind(line["rewind"])
            self.rewinds += 1
        else:
            self.kept.append((line["step"], line["seconds"], line["flops"]))
            for purpose, seconds in line["seconds"].items():
                self.seconds[purpose] += seconds
            self.flops += line["flops"]
            self.last = None if line.get("complete") else line["time"]

    def _rewind(self, step: int) -> None:
        for _, booked, flops in (entry for entry in self.kept if entry[0] > step):
            for purpose, seconds in booked.items():
                self.seconds[purpose] -= seconds
                self.seconds[LOST] += seconds
            self.flops, self.lost_flops = self.flops - flops, self.lost_flops + flops
        self.kept = [entry for entry in self.kept if entry[0] <= step]

    @property
    def total(self) -> float:
        """Seconds of the wall clock."""
        return sum(self.seconds.values())

    def utilization(self) -> tuple[float, float] | None:
        """Model FLOP/s utilization over the training steps that are kept, and over the wall clock; None if unknown."""
        training = sum(self.seconds[purpose] for purpose in TRAINING)
        if not self.peak or training <= 0 or not self.flops:
            return None
        return self.flops / training / self.peak, self.flops / self.total / self.peak

    def numbers(self) -> dict[str, float]:
        """The share of each heading and both utilizations, for loggers."""
        total = self.total or 1.0
        found = {purpose: seconds / total for purpose, seconds in self.seconds.items()}
        if (both := self.utilization()) is not None:
            found["mfu_steady"], found["mfu_end_to_end"] = both
        return found


def read_ledger(run: Path) -> LedgerTotals:
    """Totals of a run's ledger; the time of a line torn by a kill is lost work."""
    totals = LedgerTotals()
    for line in read_goodput(run):
        totals.add(line)
    return totals

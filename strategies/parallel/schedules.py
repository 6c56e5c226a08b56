"""Pipeline schedules: GPipe, 1F1B, interleaved 1F1B, interleaved zero bubble and ZB-V.

One record per schedule holds all that the strategy, the planner and the command line have to know about it, so that a
new schedule is one entry here. The order of actions stays torch's own; what is written down here are the rules that
torch checks late or not at all.
"""

from dataclasses import dataclass
from typing import Any, Literal

from torch.distributed.pipelining import (
    Schedule1F1B,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
    ScheduleZBVZeroBubble,
)

from common.errors import InputError

ScheduleName = Literal["gpipe", "1f1b", "interleaved_1f1b", "interleaved_zero_bubble", "zbv"]
"""Keys of `SCHEDULES`, as a type that the command line checks."""


@dataclass(frozen=True)
class PipelineSchedule:
    """Rules of one pipeline schedule.

    Attributes:
        name: its name in YAML.
        torch_class: class in `torch.distributed.pipelining`.
        min_stages_per_rank: smallest number of stages per rank, and the default.
        max_stages_per_rank: largest number of stages per rank; None for no limit.
        splits_backward: the backward pass to the inputs and that to the weights are separate actions (zero bubble).
        is_v_shaped: stages run down the ranks and up again, so that the first rank holds the first and the last stage.
        runs_in_rounds: micro-batches run in equal rounds of about one per rank.
        forward_first: every forward pass comes before the first backward pass.
        fills: micro-batches that a step needs at least: 1, one per rank or one per stage.
        searched_stages_per_rank: numbers of stages per rank that the layout search tries; empty leaves the schedule
            out.
    """

    name: ScheduleName
    torch_class: Any
    min_stages_per_rank: int = 1
    max_stages_per_rank: int | None = 1
    splits_backward: bool = False
    is_v_shaped: bool = False
    runs_in_rounds: bool = False
    forward_first: bool = False
    fills: Literal["one", "ranks", "stages"] = "stages"
    searched_stages_per_rank: tuple[int, ...] = ()

    @property
    def has_one_stage(self) -> bool:
        """Each rank holds one stage (torch's single-stage schedules)."""
        return self.max_stages_per_rank == 1

    def stages_per_rank(self, configured: int | None) -> int:
        """Stages per rank: the configured number, or the default of the schedule."""
        return configured or self.min_stages_per_rank

    def owner(self, stage: int, ranks: int) -> int:
        """Rank along `pp` that holds a stage: round-robin, or down and up again for a V."""
        if self.is_v_shaped and stage >= ranks:
            return 2 * ranks - 1 - stage
        return stage % ranks

    def min_microbatches(self, ranks: int, stages: int) -> int:
        """Smallest number of micro-batches per step.

        Args:
            ranks: pipeline ranks.
            stages: stages of the whole pipeline.
        """
        return {"one": 1, "ranks": ranks, "stages": stages}[self.fills]

    def warmup_microbatches(self, rank: int, ranks: int, microbatches: int) -> int:
        """Forward passes before the first backward pass of a rank, for schedules with one stage per rank."""
        return microbatches if self.forward_first else min(microbatches, ranks - rank)

    def check_stages_per_rank(self, stages_per_rank: int) -> None:
        """Refuse a number of stages per rank that the schedule cannot run.

        Raises:
            InputError: names the number and the rule.
        """
        low, high = self.min_stages_per_rank, self.max_stages_per_rank
        if stages_per_rank < low or (high is not None and stages_per_rank > high):
            need = f"at least {low}" if high is None else f"exactly {low}"
            raise InputError(
                f"stages_per_rank={stages_per_rank}: schedule {self.name} needs {need}, change one of them"
            )

    def check_backward(self, compile_backend: str | None, float8: bool, activation_checkpointing: str) -> None:
        """Refuse settings that need the backward pass in one piece, where the schedule splits it.

        Args:
            compile_backend: backend of `torch.compile`, or None.
            float8: matrix products in 8 bits.
            activation_checkpointing: none, selective or full.

        Raises:
            InputError: names the setting and the schedules that go with it.
        """
        if not self.splits_backward:
            return
        if compile_backend is not None:
            raise InputError(
                f"compile_backend={compile_backend}: schedule {self.name} cuts the backward pass in two, which "
                "compiled blocks cannot; set it to null or take 1f1b or interleaved_1f1b"
            )
        if float8:
            raise InputError(
                f"float8=true: schedule {self.name} cuts the backward pass in two, which 8-bit products make in one "
                "piece; set it to false or take 1f1b or interleaved_1f1b"
            )
        if activation_checkpointing != "none":
            # torch's `stage_backward_weight` enters the graph once for each group of parameters, and checkpointing
            # computes a block again in each: ten times per block instead of once. Selective would raise at the second.
            raise InputError(
                f"activation_checkpointing={activation_checkpointing}: schedule {self.name} goes through a block's "
                "backward graph once for each of its matrices, and recomputes the block each time; take none, or 1f1b "
                "or interleaved_1f1b"
            )

    def check_microbatches(self, microbatches: int, accumulate: int, ranks: int, stages: int) -> None:
        """Refuse a number of micro-batches that the schedule cannot run.

        Args:
            microbatches: micro-batches per batch.
            accumulate: batches per optimizer step (`accumulate_grad_batches`).
            ranks: pipeline ranks.
            stages: stages of the whole pipeline.

        Raises:
            InputError: names the number and the rule.
        """
        count, fewest = microbatches * accumulate, self.min_microbatches(ranks, stages)
        if count < fewest:
            raise InputError(
                f"microbatches={microbatches} x accumulate_grad_batches={accumulate}: "
                f"schedule {self.name} over {stages} stages needs at least {fewest}, raise one of them"
            )
        if self.runs_in_rounds and count % max(1, count // ranks):
            raise InputError(
                f"{count} micro-batches per step: schedule {self.name} needs a multiple of {count // ranks} "
                f"(rounds of {ranks}), change microbatches"
            )


SCHEDULES: dict[str, PipelineSchedule] = {
    schedule.name: schedule
    for schedule in (
        # Not searched: 1F1B takes as long and holds fewer activations.
        PipelineSchedule("gpipe", ScheduleGPipe, forward_first=True, fills="one"),
        PipelineSchedule("1f1b", Schedule1F1B, searched_stages_per_rank=(1,)),
        PipelineSchedule(
            "interleaved_1f1b",
            ScheduleInterleaved1F1B,
            min_stages_per_rank=2,
            max_stages_per_rank=None,
            runs_in_rounds=True,
            fills="ranks",
            searched_stages_per_rank=(2, 4),
        ),
        PipelineSchedule(
            "interleaved_zero_bubble",
            ScheduleInterleavedZeroBubble,
            min_stages_per_rank=2,
            max_stages_per_rank=None,
            splits_backward=True,
            runs_in_rounds=True,
            fills="ranks",
            searched_stages_per_rank=(2,),
        ),
        PipelineSchedule(
            "zbv",
            ScheduleZBVZeroBubble,
            min_stages_per_rank=2,
            max_stages_per_rank=2,
            splits_backward=True,
            is_v_shaped=True,
            searched_stages_per_rank=(2,),
        ),
    )
}
"""All schedules by name."""


def find_schedule(name: str) -> PipelineSchedule:
    """Schedule of a name.

    Raises:
        InputError: for an unknown name.
    """
    if name not in SCHEDULES:
        raise InputError(f"schedule={name}: choose one of {', '.join(SCHEDULES)}")
    return SCHEDULES[name]

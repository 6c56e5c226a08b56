"""Pipeline bubble by schedule: python -m benchmarks.pipeline_bubble

The idle share of a pipeline of two processes, by schedule: measured from a trace of when each action of the schedule
began and ended, beside the published formula and beside what the same order of actions gives when every action takes
its median time and nothing is lost between them. One thread per process, a decoder of 8 layers and width 256, 8
micro-batches of 2 x 256 tokens; the median of 8 steps. Result: pipeline_bubble.json and the table in README.md.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.helpers.distributed import run_ranks

STEPS, WARMUP, MICROBATCHES, ROWS, LENGTH = 8, 2, 8, 2, 256
SCHEDULES = ("gpipe", "1f1b", "interleaved_1f1b", "interleaved_zero_bubble", "zbv")
RESULT = Path(__file__).with_suffix(".json")
Action = tuple[str, int, int, float, float]
"""Kind (F forward, B backward, I of inputs, W of weights), stage, micro-batch, begin and end in seconds."""


def trace(schedule: str) -> list[list[Action]]:
    """Actions of this rank, step by step, under the Trainer."""
    import lightning

    from datamodules import RandomTokens
    from models import AdamW, Cosine, LanguageModel
    from models.decoder import DecoderConfig
    from strategies import PipelineParallelStrategy

    actions: list[Action] = []
    steps: list[list[Action]] = []

    def timed(stage: Any, method: str, kind: Callable[..., str]) -> None:
        original = getattr(stage, method)

        def run(number: int, *arguments: Any, **keywords: Any) -> Any:
            begin = time.monotonic()
            result = original(number, *arguments, **keywords)
            actions.append((kind(**keywords), stage.stage_index, number, begin, time.monotonic()))
            return result

        setattr(stage, method, run)

    class Traced(PipelineParallelStrategy):
        def _schedule(self, *arguments: Any) -> Any:
            known = len(self._schedules)
            made = super()._schedule(*arguments)
            if len(self._schedules) > known:
                for stage in [made._stage] if hasattr(made, "_stage") else made._stages:
                    timed(stage, "forward_one_chunk", lambda **_: "F")
                    timed(stage, "backward_one_chunk", lambda full_backward=True, **_: "B" if full_backward else "I")
                    timed(stage, "backward_weight_one_chunk", lambda **_: "W")
            return made

    class Step(lightning.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            steps.append(list(actions))
            actions.clear()

    config = DecoderConfig(
        vocabulary_size=1024,
        width=256,
        layers=8,
        heads=4,
        key_value_heads=2,
        feed_forward_width=704,
        tied_embeddings=False,
    )
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=Traced(pipeline_parallel_size=2, schedule=schedule, microbatches=MICROBATCHES),
        max_steps=STEPS + WARMUP,
        callbacks=[Step()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        limit_val_batches=0,
    )
    trainer.fit(LanguageModel(AdamW(), Cosine(2), config), datamodule=RandomTokens(1024, LENGTH, MICROBATCHES * ROWS))
    return steps[WARMUP:]


def formula(schedule: str, ranks: int, microbatches: int) -> float | None:
    """Published idle share: GPipe, 1F1B, and interleaved with 2 stages per rank (Narayanan et al. 2021, section 2.2).

    The zero-bubble papers give theirs relative to the times of F, I and W; it is 0 for ZBV when these are equal.
    """
    if schedule in ("gpipe", "1f1b"):
        return (ranks - 1) / (microbatches + ranks - 1)
    if schedule == "interleaved_1f1b":
        return (ranks - 1) / (2 * microbatches + ranks - 1)
    return 0.0 if schedule == "zbv" else None


def idle_share(ranks: list[list[Action]]) -> float:
    """1 - time in actions / (ranks x time from the first action's begin to the last one's end)."""
    begin = min(action[3] for actions in ranks for action in actions)
    end = max(action[4] for actions in ranks for action in actions)
    busy = sum(action[4] - action[3] for actions in ranks for action in actions)
    return 1 - busy / (len(ranks) * (end - begin))


def replay(ranks: list[list[Action]], seconds: dict[tuple[str, int], float], stages: int) -> float:
    """Idle share when each rank does its actions in the same order, each as soon as what it needs is there."""
    done: dict[tuple[str, int, int], float] = {}
    clock, position = [0.0] * len(ranks), [0] * len(ranks)
    while any(position[rank] < len(ranks[rank]) for rank in range(len(ranks))):
        for rank, actions in enumerate(ranks):
            while position[rank] < len(actions):
                kind, stage, number, _, _ = actions[position[rank]]
                needs = []
                if kind == "F" and stage > 0:
                    needs = [("F", stage - 1, number)]
                elif kind in "BI":
                    needs = [("F", stage, number)] + ([("G", stage + 1, number)] if stage < stages - 1 else [])
                if any(need not in done for need in needs):
                    break
                clock[rank] = max([clock[rank], *(done[need] for need in needs)]) + seconds[kind, stage]
                done[("G" if kind in "BI" else kind, stage, number)] = clock[rank]
                position[rank] += 1
    busy = sum(seconds[action[0], action[1]] for actions in ranks for action in actions)
    return 1 - busy / (len(ranks) * max(clock))


def main() -> None:
    rows = []
    for schedule in SCHEDULES:
        ranks = run_ranks(2, trace, schedule, timeout=300)
        durations: dict[tuple[str, int], list[float]] = {}
        for rank in ranks:
            for actions in rank:
                for kind, stage, _, begin, end in actions:
                    durations.setdefault((kind, stage), []).append(end - begin)
        seconds = {key: statistics.median(values) for key, values in durations.items()}
        stages = 1 + max(stage for _, stage in seconds)
        measured = [idle_share([rank[step] for rank in ranks]) for step in range(STEPS)]
        # Stage 0 has no gradient of its input to make: its whole backward pass is an I that does nothing and a W.
        rows.append(
            {
                "schedule": schedule,
                "formula": formula(schedule, 2, MICROBATCHES),
                "replayed": round(replay([rank[0] for rank in ranks], seconds, stages), 3),
                "measured": round(statistics.median(measured), 3),
                "measured_range": [round(min(measured), 3), round(max(measured), 3)],
                "milliseconds": {f"{kind}{stage}": round(1000 * t, 1) for (kind, stage), t in sorted(seconds.items())},
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    record = {"rows": rows, "torch": torch.__version__, "microbatches": MICROBATCHES}
    RESULT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

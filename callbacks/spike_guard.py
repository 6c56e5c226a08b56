"""Loss-spike guard: returns the run to an earlier checkpoint and leaves out the samples around the spike.

As PaLM's authors did it by hand, some twenty times: begin again from a checkpoint before the spike and leave out the
200 to 500 batches around it, after which the loss did not spike (Chowdhery et al. 2022, section 5.1); OPT's went back
and lowered the learning rate (Zhang et al. 2022, section 2.5). Going back costs the steps since the checkpoint.
`models.optimizers.skip_step` is the cheaper remedy and comes first: with it a step of outsized gradient is left out and
weights stay what they were, so the guard only goes back where that does not help, when the loss keeps spiking. Both
judge with the same settings, the one gradient norms, the other losses.
"""

import contextlib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch

from callbacks.async_scalars import AsyncScalars
from callbacks.checkpoints import Checkpoints, align_batch_counts, set_later_checkpoints_aside
from callbacks.metrics_table import MetricsTable
from common.contracts import CheckpointingStrategy, ResumableData, SpikeSkippingModule, attached_data
from common.errors import InputError
from common.files import write_text_atomically
from common.run_folder import CHECKPOINTS, SPIKES, checkpoint_step, checkpoints, read_spikes
from models.optimizers.skip_step import NormHistory, SpikeSkip

ROLLED_BACK, LEFT_OUT, WATCHED = "rolled back", "left out", "watched"
LOSS = "train/loss"


class SpikeGuard(lightning.Callback):
    """Watches `train/loss`; writes every spike with its samples, documents and sources to `spikes.jsonl`.

    What was left out is known by sample number: a killed run leaves out the same. All ranks decide alike, because the
    reduced loss is the same bits on each.

    Args:
        detection: when a loss is a spike: no number, or far above the last ones.
        patience: steps in a row that must spike before the run goes back, for a finite loss and for steps that
            `spike_skip` leaves out; a loss that is no number and was learned from is not waited for.
        steps_before, steps_after: optimizer steps left out before the one that spiked, as far as they lie behind the
            checkpoint, and after it; together PaLM's 200 at least. Each further spike in the same place doubles both
            and goes back to an earlier checkpoint where there is one.
        rollbacks: how often the run goes back for one place before it stops.

    Raises:
        InputError: for a value out of its range; where there is no checkpoint to go back to, or data or module are of a
            kind that cannot.
    """

    def __init__(
        self,
        detection: SpikeSkip = SpikeSkip(),
        patience: int = 3,
        steps_before: int = 100,
        steps_after: int = 100,
        rollbacks: int = 3,
    ) -> None:
        if min(patience, rollbacks) < 1 or min(steps_before, steps_after) < 0:
            raise InputError(
                f"spike guard: patience={patience}, rollbacks={rollbacks}, steps_before={steps_before}, "
                f"steps_after={steps_after}: the first two must be at least 1, the others at least 0"
            )
        self.patience, self.rollbacks = patience, rollbacks
        self.steps_before, self.steps_after = steps_before, steps_after
        self.history = NormHistory(detection)
        self.waiting: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
        self._pending: list[AsyncScalars] = []
        self._row = self._first = 0
        self._left_out = 0.0
        self._numbers: dict[str, float] = {}

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage != "fit":
            return
        data = attached_data(trainer)
        if not isinstance(data, ResumableData) or not pl_module.automatic_optimization:
            raise InputError(
                f"callbacks.SpikeGuard with {type(data).__name__} and {type(pl_module).__name__}: it needs numbered "
                "samples and a module that Lightning steps, leave it out"
            )
        if not any(isinstance(callback, Checkpoints) for callback in trainer.callbacks):
            raise InputError("callbacks.SpikeGuard without callbacks.Checkpoints: it has nothing to go back to, add it")
        events = read_spikes(Path(trainer.default_root_dir)) if trainer.is_global_zero else []
        for first, stop in trainer.strategy.broadcast(rolled_back(events, data.order())):
            data.skipped.add(first, stop)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        step, data = trainer.global_step, trainer.datamodule
        history = pl_module.norm_history if isinstance(pl_module, SpikeSkippingModule) else None
        loss = trainer.callback_metrics[LOSS]
        reading = AsyncScalars(step, loss, loss.new_zeros(()) if history is None else history.skipped)
        self._pending.append(reading)
        saver = next(callback for callback in trainer.callbacks if isinstance(callback, Checkpoints))
        validates = trainer.enable_validation and (batch_idx + 1) % trainer.val_check_batch == 0
        saves = step % saver.every_steps == 0 or step in (1, trainer.max_steps)
        # Reading a loss at once would make a GPU wait in every step; what is saved must have been judged.
        self._judge(trainer, pl_module, 0 if validates or saves or reading.arrived else 1)
        if step == trainer.global_step == 1:
            saver.save(trainer)  # the run's own interval may be long
        if self._numbers:
            numbers = self._numbers | {"spikes/skipped_samples": float(_count(data))}
            # Tensors of the CPU stay there; numbers would be copied to the device, and the host would wait.
            pl_module.log_dict({name: torch.tensor(value, dtype=torch.float32) for name, value in numbers.items()})

    def settle(self, trainer: Any, pl_module: Any) -> None:
        """Judge every step there was, before one is saved out of turn."""
        self._judge(trainer, pl_module, 0)

    def state_dict(self) -> dict[str, Any]:
        """The last losses, and spikes in a row up to now."""
        return {"losses": self.history.state_dict(), "row": self._row, "first": self._first, "left_out": self._left_out}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue, or go back to, the losses of a checkpoint."""
        self.history.load_state_dict(state_dict["losses"])
        self._row, self._first, self._left_out = (state_dict[name] for name in ("row", "first", "left_out"))
        self._pending.clear()

    def _judge(self, trainer: Any, pl_module: Any, unread: int) -> None:
        while len(self._pending) > unread:
            reading = self._pending.pop(0)
            with self.waiting():
                loss, left_out = reading.values()
            was_left_out, self._left_out = left_out > self._left_out, left_out
            spike = bool(self.history.is_spike(torch.tensor(loss)))
            if not spike and not was_left_out:
                self._row = 0
                continue
            self._first = reading.step if self._row == 0 else self._first
            self._row += 1
            broken = not math.isfinite(loss) and not was_left_out
            if broken or (spike and self._row >= self.patience):
                self._go_back(trainer, pl_module, reading.step, loss)
                return
            if trainer.is_global_zero:
                record_spike(trainer, LEFT_OUT if was_left_out else WATCHED, reading.step, loss, {})

    def _go_back(self, trainer: Any, pl_module: Any, step: int, loss: float) -> None:
        strategy = trainer.strategy
        if isinstance(strategy, CheckpointingStrategy):
            strategy.saver.wait()
        decision = self._decide(trainer, step) if trainer.is_global_zero else None
        if trainer.is_global_zero and decision is not None and "stop" not in decision:
            record_spike(trainer, ROLLED_BACK, self._first, loss, decision)
        decision = strategy.broadcast(decision)
        if "stop" in decision:
            raise InputError(decision["stop"])
        trainer.datamodule.skipped.add(*decision["skipped"])
        if trainer.is_global_zero:
            first, stop = decision["skipped"]
            print(
                f"loss {loss:.4g} at step {self._first}: back to {decision['checkpoint']}, leaving out samples "
                f"{first} to {stop - 1}, see {SPIKES}",
                flush=True,
            )
        self._numbers = {"spikes/rollbacks": float(decision["rollbacks"])}
        return_to(trainer, pl_module, Path(trainer.default_root_dir) / CHECKPOINTS / decision["checkpoint"])

    def _decide(self, trainer: Any, step: int) -> dict[str, Any]:
        """Where to go back to and what to leave out, on the first process."""
        data, folder = trainer.datamodule, Path(trainer.default_root_dir)
        samples = data.samples_of_step(self._first)
        earlier = [e for e in read_spikes(folder) if e["action"] == ROLLED_BACK and e["order"] == data.order()]
        attempt, reach = 0, 0
        if earlier:
            reach, stop = earlier[-1]["skipped"]
            if reach <= samples[0] < 2 * stop - reach:
                attempt = earlier[-1]["attempt"] + 1
        if attempt >= self.rollbacks:
            return {
                "stop": f"loss spiked again at step {self._first} after going back {attempt} times for this place "
                f"(samples {samples[0]} to {samples[-1]}, {folder / SPIKES}): lower the learning rate, or leave the "
                "documents named there out"
            }
        found = [path for path in checkpoints(folder) if checkpoint_step(path) < self._first]
        if not found:
            return {
                "stop": f"loss spiked at step {self._first} and there is no earlier checkpoint to go back to: lower "
                "the learning rate, or let callbacks.Checkpoints save more often"
            }
        far = [path for path in found if checkpoint_step(path) < self._first - attempt * self.steps_before]
        chosen, factor = far[-1] if far else found[0], 2**attempt
        begin = max(self._first - 1 - factor * self.steps_before, checkpoint_step(chosen))
        first, learned = data.position_at(begin), data.position_at(checkpoint_step(chosen))
        if attempt and data.skipped.within(reach, learned) == max(learned - reach, 0):
            # One stretch with what was left out before, unless the checkpoint has learned from samples between.
            first = min(reach, first)
        return {
            "checkpoint": chosen.name,
            "skipped": [
                first,
                data.position_at(max(self._first + factor * self.steps_after, step)),
            ],
            "attempt": attempt,
            "rollbacks": len(earlier) + 1,
            "order": data.order(),
        }


def return_to(trainer: Any, pl_module: Any, checkpoint: Path) -> None:
    """Make the run what it was after a checkpoint of it, at the end of a batch: as if nothing had come after.

    Weights, optimizer, schedule, counters, callbacks and the position in the data are the checkpoint's; a step draws no
    random numbers. Call on all ranks, within `on_train_batch_end`, which is where Lightning goes on from.
    """
    step = checkpoint_step(checkpoint)
    connector, loop = trainer._checkpoint_connector, trainer.fit_loop
    connector._restore_modules_and_callbacks(checkpoint, True)
    connector.restore_training_state()
    connector.resume_end()
    for each in (loop, loop.epoch_loop, loop.epoch_loop.val_loop):
        each.on_iteration_done()
    progress = loop.epoch_loop.batch_progress
    if progress.current.completed == progress.current.processed:
        # It was saved after the validation that followed the batch.
        progress.current.completed -= 1
        progress.total.completed -= 1
        loop.epoch_loop._skip_next_val = True
    align_batch_counts(trainer)
    pl_module.on_train_start()
    loop.epoch_loop._results.clear()
    loop._data_fetcher.reset()
    iter(loop._data_fetcher)
    if trainer.is_global_zero:
        set_later_checkpoints_aside(Path(trainer.default_root_dir), step)
        for logger in trainer.loggers:
            if isinstance(logger, MetricsTable):
                logger.rewind(step)


def record_spike(trainer: Any, action: str, step: int, loss: float, decision: dict[str, Any]) -> None:
    """Append a spike, with what its batch was made of, to the run's `spikes.jsonl`, on disk before anything follows."""
    run, data = Path(trainer.default_root_dir), trainer.datamodule
    row = {"time": time.time(), "step": step, "loss": repr(loss), "action": action, **decision}
    row["samples"] = data.origins(data.samples_of_step(step))
    # Written whole: there are few of them, and a last line torn by a kill goes.
    write_text_atomically(run / SPIKES, (json.dumps(event) + "\n" for event in [*read_spikes(run), row]))


def rolled_back(events: list[dict[str, Any]], order: dict[str, Any]) -> list[tuple[int, int]]:
    """The stretches of samples left out, of the events that are about this order of samples."""
    return [tuple(event["skipped"]) for event in events if event["action"] == ROLLED_BACK and event["order"] == order]


def _count(data: ResumableData) -> int:
    """Samples left out so far."""
    return data.skipped.within(0, data.position())

"""Base LightningDataModule: deterministic sample order, data-parallel sharding and exact resumption.

The state is the position in the order of samples, counted in optimizer steps because a prefetching loader is ahead of
training; the batch size of each earlier step; and the ranges of samples that are skipped. Nothing is saved per worker
or rank, so a run may continue on another number of them.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import lightning
from torch.utils.data import DataLoader, Dataset

from common.errors import InputError
from datamodules.loader_workers import continue_after_signals
from datamodules.mixing.batch_size_warmup import BatchSizeWarmup
from datamodules.mixing.samplers import BatchDataset, DistributedBatchSampler, StepBatch, StepBatchSampler
from datamodules.mixing.skipped_samples import SkippedSamples
from datamodules.mixing.windows import PADDING

DATA_STATE = "data"
"""Key of a data module's state in a checkpoint."""


class DataStateKey(lightning.Callback):
    """Moves a data module's state to `DATA_STATE` in the checkpoint.

    Lightning names it after the class, so that a renamed class would silently begin again at the first sample.
    """

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[DATA_STATE] = checkpoint.pop(type(trainer.datamodule).__qualname__)  # type: ignore[attr-defined]

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if DATA_STATE not in checkpoint:
            raise InputError(
                f"the checkpoint of step {checkpoint['global_step']} holds no position in the data: name one of a "
                "training run, or begin from its weights"
            )
        trainer.datamodule.load_state_dict(checkpoint[DATA_STATE])  # type: ignore[attr-defined]


class BatchSizeSegment(NamedTuple):
    """Optimizer steps in a row with one batch size; `sample` is the first sample number after `step` steps."""

    step: int
    sample: int
    samples_per_step: int


class ResumableDataModule(lightning.LightningDataModule):
    """Data module of numbered samples: each rank's share of them, and the position in their order.

    Args:
        batch_size: windows in a micro-batch of one rank.
        workers: processes that read ahead; 0 reads in the training process.
        batch_size_warmup: batch-size warm-up; null for none.
    """

    def __init__(self, batch_size: int, workers: int, batch_size_warmup: BatchSizeWarmup | None = None) -> None:
        super().__init__()
        if batch_size_warmup is not None and batch_size_warmup.initial > batch_size:
            raise InputError(
                f"batch_size_warmup.initial={batch_size_warmup.initial}: larger than batch_size={batch_size}, which "
                "it grows to"
            )
        if batch_size < 1 or workers < 0:
            raise InputError(
                f"batch_size={batch_size}, workers={workers}: need at least 1 window and no negative number"
            )
        self.batch_size, self.workers, self.batch_size_warmup = batch_size, workers, batch_size_warmup
        self.consumed_samples = self.counted_steps = 0
        self.source_names: list[str] = []
        self.skipped = SkippedSamples()
        self.segments: list[BatchSizeSegment] = []

    @property
    def trainer(self) -> lightning.Trainer | None:
        """The trainer, as Lightning sets it when a run begins."""
        return self._trainer

    @trainer.setter
    def trainer(self, trainer: lightning.Trainer | None) -> None:
        self._trainer = trainer
        if isinstance(trainer, lightning.Trainer):
            callbacks: list[lightning.Callback] = trainer.callbacks  # type: ignore[attr-defined]
            if not any(isinstance(callback, DataStateKey) for callback in callbacks):
                # First: other callbacks may look at the position when they load their own state.
                callbacks.insert(0, DataStateKey())

    def ranks(self) -> tuple[int, int]:
        """This process's data-parallel rank and their number, as the strategy counts them."""
        shares = self.trainer.distributed_sampler_kwargs if self.trainer else None
        return (shares["rank"], shares["num_replicas"]) if shares else (0, 1)

    def order(self) -> dict[str, Any]:
        """Settings that the order of samples depends on; a checkpoint continues with the same ones only."""
        return {}

    def position(self) -> int:
        """First sample number not yet consumed by a completed optimizer step."""
        return self.consumed_samples if self.trainer is None else self.position_at(self.trainer.global_step)

    def samples_of_run(self) -> int | None:
        """Samples learned from when trainer.max_steps is reached, None where it is not set.

        Skipped samples do not count: a run that went back over a spike is as long as one that never saw it, and what
        follows from its length, as the caps of a mixture, stays the same.
        """
        if self.trainer is None or self.trainer.max_steps < 1:
            return None
        end = self.position_at(self.trainer.max_steps)
        return end - self.skipped.within(0, end)

    def position_at(self, step: int) -> int:
        """First sample number not consumed after `step` optimizer steps, in this start of the run or an earlier one.

        Args:
            step: optimizer step, at least 0.

        Raises:
            InputError: for a step before the checkpoint that this run continues, where the checkpoint does not hold the
                batch sizes before it.
        """
        if step < self.counted_steps:
            segment = self._segment_of(step)
            return self.skipped.after(segment.sample, (step - segment.step) * segment.samples_per_step)
        samples = sum(map(self._samples_in, range(self.counted_steps, step)))
        return self.skipped.after(self.consumed_samples, samples)

    def samples_of_step(self, step: int) -> list[int]:
        """Samples of optimizer step number `step`, counted from 1, over all ranks."""
        earlier = step <= self.counted_steps
        samples = self._segment_of(step - 1).samples_per_step if earlier else self._samples_in(step - 1)
        return self.skipped.take(self.position_at(step - 1), samples)

    def _samples_in(self, step: int) -> int:
        assert self.trainer is not None
        return self.batch_size_of(step) * self.ranks()[1] * self.trainer.accumulate_grad_batches

    def _segment_of(self, step: int) -> BatchSizeSegment:
        found = [segment for segment in self.segments if segment.step <= step]
        if not found:
            raise InputError(
                f"samples of step {step + 1}: the checkpoint of step {self.counted_steps} that this run continues was "
                "written before checkpoints knew what came before them, set it aside to continue an earlier one"
            )
        return found[-1]

    def _segments_up_to(self, step: int) -> list[BatchSizeSegment]:
        """Segments of earlier starts of the run and of this one."""
        found, first, sample = list(self.segments), self.counted_steps, self.consumed_samples
        for samples, steps in itertools.groupby(map(self._samples_in, range(first, step))):
            found.append(BatchSizeSegment(first, sample, samples))
            number = sum(1 for _ in steps)
            first, sample = first + number, self.skipped.after(sample, number * samples)
        return found

    def origins(self, samples: Sequence[int]) -> list[dict[str, Any]]:
        """Origin of each sample, for people: at least its number."""
        return [{"sample": sample} for sample in samples]

    def batch_size_of(self, step: int) -> int:
        """Windows in each micro-batch of an optimizer step."""
        warmup = self.batch_size_warmup
        return self.batch_size if warmup is None else warmup.size(step, self.batch_size)

    def batch_sizes(self) -> list[int]:
        """Micro-batch sizes that occur in training."""
        warmup = self.batch_size_warmup
        return [self.batch_size] if warmup is None else warmup.sizes(self.batch_size)

    def _coming_batch_sizes(self) -> Iterator[int]:
        first, accumulated = (
            (self.trainer.global_step, self.trainer.accumulate_grad_batches) if self.trainer else (0, 1)
        )
        for step in itertools.count(first):
            yield from itertools.repeat(self.batch_size_of(step), accumulated)

    def training_batches(self) -> DistributedBatchSampler:
        """Endless batches of sample numbers from the first one not yet consumed."""
        return DistributedBatchSampler(self.position, self._coming_batch_sizes, *self.ranks(), self.skipped)

    def evaluation_batches(self, groups: list[list[int]]) -> list[list[int]]:
        """Batches over each group of samples once, all of one size and equally many a rank, filled up with padding.

        Ranks that share parameters or layers run every forward pass together, with tensors of one shape.
        """
        rank, ranks = self.ranks()
        batches = [group[i : i + self.batch_size] for group in groups for i in range(0, len(group), self.batch_size)]
        batches += [[]] * (-len(batches) % ranks)
        return [batch + [PADDING] * (self.batch_size - len(batch)) for batch in batches[rank::ranks]]

    def training_keys(self) -> StepBatchSampler:
        """Training batches, each with the samples of its step."""
        accumulated = self.trainer.accumulate_grad_batches if self.trainer else 1
        return StepBatchSampler(self.training_batches(), self.batch_size * self.ranks()[1] * accumulated)

    def evaluation_keys(self, samples: int) -> list[StepBatch]:
        """Batches over samples 0 .. `samples` - 1 once."""
        return [StepBatch(batch, range(0)) for batch in self.evaluation_batches([list(range(samples))])]

    def loader(self, windows: Dataset[dict[str, Any]], batches: Any) -> DataLoader[dict[str, Any]]:
        """A loader of whole batches, each named by its list of sample numbers."""
        return self.batch_loader(BatchDataset(windows), batches)

    def batch_loader(self, dataset: Dataset[dict[str, Any]], batches: Any) -> DataLoader[dict[str, Any]]:
        """A loader over a data set whose items are whole batches."""
        return DataLoader(
            dataset,
            sampler=batches,
            batch_size=None,
            num_workers=self.workers,
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            persistent_workers=False,
            worker_init_fn=continue_after_signals,
        )

    def state_dict(self) -> dict[str, Any]:
        """Samples consumed by completed optimizer steps; earlier steps may have had another batch size."""
        assert self.trainer is not None
        return {
            "consumed_samples": self.position(),
            "counted_steps": self.trainer.global_step,
            "segments": [list(segment) for segment in self._segments_up_to(self.trainer.global_step)],
            "skipped": [list(pair) for pair in self.skipped.ranges],
            "order": self.order(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where the checkpoint stopped.

        Raises:
            InputError: when the data is not that of the checkpoint, or its skipped samples are no ranges.
        """
        saved, mine = state_dict.get("order", {}), self.order()
        differing = [f"{key} {saved.get(key)} -> {mine[key]}" for key in mine if saved.get(key) != mine[key]]
        if differing:
            raise InputError(
                f"the checkpoint was trained on other data ({'; '.join(differing)}): restore the inputs and settings, "
                "or train from the beginning with another trainer.default_root_dir"
            )
        # Samples skipped since the checkpoint was written stay skipped.
        for first, stop in SkippedSamples(state_dict.get("skipped", ())).ranges:
            self.skipped.add(first, stop)
        self.consumed_samples = state_dict["consumed_samples"]
        self.counted_steps = state_dict["counted_steps"]
        self.segments = [BatchSizeSegment(*numbers) for numbers in state_dict.get("segments", ())]

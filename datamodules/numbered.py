"""What DataModules of numbered samples share: which of them this rank sees, and how many were learned from.

The only state is how many samples were consumed, counted in optimizer steps, because a prefetching loader is always
ahead of what was learned from.
"""

from typing import Any

import lightning
from torch.utils.data import DataLoader, Dataset

from datamodules.mixture import PADDING, Batches, GlobalBatches


class NumberedSamples(lightning.LightningDataModule):
    """Deals sample numbers out to data-parallel ranks and remembers the position in their order.

    Args:
        batch_size: windows in a micro-batch of one rank.
        workers: processes that read ahead; 0 reads in the training process.
    """

    def __init__(self, batch_size: int, workers: int) -> None:
        super().__init__()
        self.batch_size, self.workers = batch_size, workers
        self.consumed_samples = self.counted_steps = 0

    def ranks(self) -> tuple[int, int]:
        """This process's data-parallel rank and their number, as the strategy counts them."""
        shares = self.trainer.distributed_sampler_kwargs if self.trainer else None
        return (shares["rank"], shares["num_replicas"]) if shares else (0, 1)

    def training_batches(self) -> GlobalBatches:
        """Endless batches of sample numbers from the first one not yet consumed."""
        return GlobalBatches(self.consumed_samples, self.batch_size, *self.ranks())

    def evaluation_batches(self, groups: list[list[int]]) -> list[list[int]]:
        """Batches over each group of samples once, all of one size and equally many a rank, filled up with padding.

        Ranks that share parameters or layers run every forward pass together, with tensors of one shape.
        """
        rank, ranks = self.ranks()
        batches = [group[i : i + self.batch_size] for group in groups for i in range(0, len(group), self.batch_size)]
        batches += [[]] * (-len(batches) % ranks)
        return [batch + [PADDING] * (self.batch_size - len(batch)) for batch in batches[rank::ranks]]

    def loader(self, windows: Dataset[dict[str, Any]], batches: Any) -> DataLoader[dict[str, Any]]:
        """A loader of whole batches, each named by its list of sample numbers."""
        return DataLoader(
            Batches(windows),
            sampler=batches,
            batch_size=None,
            num_workers=self.workers,
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            persistent_workers=False,
        )

    def state_dict(self) -> dict[str, Any]:
        """Samples consumed by completed optimizer steps; earlier steps may have had another batch size."""
        assert self.trainer is not None
        samples_a_step = self.batch_size * self.ranks()[1] * self.trainer.accumulate_grad_batches
        new_steps = self.trainer.global_step - self.counted_steps
        return {
            "consumed_samples": self.consumed_samples + new_steps * samples_a_step,
            "counted_steps": self.trainer.global_step,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where the checkpoint stopped."""
        self.consumed_samples = state_dict["consumed_samples"]
        self.counted_steps = state_dict["counted_steps"]

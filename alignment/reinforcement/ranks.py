"""Data-parallel ranks as policy optimization sees them: reductions, and the exchange of gradients.

Everything that depends on the number of ranks goes through this one object, so that the losses and estimators stay pure
functions of tensors and of two reductions.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

from torch import Tensor

from common.contracts import GatheringStrategy, GradientSyncStrategy


class DataParallelRanks:
    """Reductions over the data-parallel ranks of a Trainer.

    Args:
        trainer: attached, its strategy set up.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    @property
    def count(self) -> int:
        """Number of data-parallel ranks."""
        return int((self._trainer.distributed_sampler_kwargs or {"num_replicas": 1})["num_replicas"])

    def sum(self, sums: Tensor) -> Tensor:
        """Sums over all ranks, same shape."""
        return cast(Tensor, self._trainer.strategy.reduce(sums.clone(), reduce_op="sum"))

    def max(self, counts: Tensor) -> Tensor:
        """Maxima over all ranks, same shape."""
        return cast(Tensor, self._trainer.strategy.reduce(counts.clone(), reduce_op="max"))

    def no_gradient_sync(self) -> AbstractContextManager[None]:
        """Context without exchange of gradients, for all micro-batches but the last."""
        strategy = self._trainer.strategy
        return strategy.block_backward_sync() if isinstance(strategy, GradientSyncStrategy) else nullcontext()

    def release_gathered_weights(self) -> None:
        """Release weights that forward passes without a backward pass gathered: updates would leave them behind."""
        if isinstance(self._trainer.strategy, GatheringStrategy):
            self._trainer.strategy.release_gathered_weights()

"""Named means of metrics: over a validation epoch, and over the micro-batches of an optimizer step.

Names appear as values are added, so that a loss or a reward brings its own metrics. The price is that all ranks must
add the same names, or a reduction waits for ever.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric


class NamedMeans(nn.ModuleDict):
    """Means by name over a validation or test epoch, reduced over ranks by torchmetrics; nothing of them is saved."""

    def add(self, name: str, values: Tensor, weights: Tensor | float = 1.0) -> None:
        """Add values of any shape.

        Args:
            name: name of the metric, without its stage.
            values: on the device where the mean is kept.
            weights: weight of each value, or of all.
        """
        if name not in self:
            self[name] = MeanMetric().to(values.device)
        cast(MeanMetric, self[name]).update(values, weights)

    def log_to(self, module: Any, stage: str) -> None:
        """Log every mean as `STAGE/NAME`.

        Args:
            module: LightningModule that logs.
            stage: `validation` or `test`.
        """
        for name, metric in self.items():
            module.log(f"{stage}/{name}", cast(MeanMetric, metric))


class StepMeans:
    """Means by name over the micro-batches of an optimizer step, each with its share."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, name: str, values: Tensor, share: float) -> None:
        """Add the mean of a micro-batch's values.

        Args:
            name: name of the metric, without its stage.
            values: any shape, with or without gradient.
            share: share of the micro-batch in the step.
        """
        mean = values.detach().float().mean() * share
        self._sums[name] = self._sums.get(name, torch.zeros_like(mean)) + mean

    def log_to(self, module: Any) -> None:
        """Log every mean as `train/NAME`, averaged over ranks, and begin the next step at zero."""
        module.log_dict({f"train/{name}": value for name, value in self._sums.items()}, sync_dist=True)
        self._sums = {}

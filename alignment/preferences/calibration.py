"""Calibration of a reward model: expected calibration error of its confidence, and the reliability curve."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class Calibration(Metric):
    """Expected calibration error of binary preferences (Guo et al. 2017, eq. 5), over bins of equal width.

    A pair's confidence is sigmoid(|score difference|), from 1/2 to 1; it is right when chosen scores higher, and by as
    much as its soft label says, where it has one.

    Args:
        bins: between 1/2 and 1.
    """

    full_state_update = False
    counts: Tensor
    confidence: Tensor
    right: Tensor

    def __init__(self, bins: int = 10, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bins = bins
        for name in ("counts", "confidence", "right"):
            self.add_state(name, torch.zeros(bins, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, difference_P: Tensor, probability_P: Tensor | None = None) -> None:
        """Add pairs by the score of chosen minus that of rejected, and the probability that chosen is better."""
        confidence = difference_P.double().abs().sigmoid()
        bins = ((confidence - 0.5) * 2 * self.bins).long().clamp(max=self.bins - 1)
        right = (difference_P > 0).double() + (difference_P == 0).double() / 2
        if probability_P is not None:
            probability = probability_P.double()
            right = right * probability + (1 - right) * (1 - probability)
        for state, values in (
            (self.counts, torch.ones_like(right)),
            (self.confidence, confidence),
            (self.right, right),
        ):
            state.index_add_(0, bins, values)

    def compute(self) -> Tensor:
        """Mean over pairs of |share that is right - confidence| of their bin; NaN before any."""
        return ((self.right - self.confidence).abs().sum() / self.counts.sum()).float()

    def curve(self) -> list[tuple[float, float, int]]:
        """(mean confidence, share that is right, pairs) of every bin that holds any, for a picture."""
        states = zip(self.confidence.tolist(), self.right.tolist(), self.counts.tolist(), strict=True)
        return [(confidence / count, right / count, int(count)) for confidence, right, count in states if count]

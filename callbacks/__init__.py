from typing import TYPE_CHECKING

from common.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from callbacks.checkpoints import Checkpoints
    from callbacks.finite_loss import FiniteLoss
    from callbacks.goodput import Goodput
    from callbacks.metrics_table import MetricsTable
    from callbacks.predictions import Predictions
    from callbacks.progress import StepProgress
    from callbacks.repeat_first_batch import RepeatFirstBatch
    from callbacks.report import Report
    from callbacks.rollout_samples import RolloutSamples
    from callbacks.samples import Samples
    from callbacks.spike_guard import SpikeGuard
    from callbacks.throughput import Throughput

__all__ = [
    "Checkpoints",
    "FiniteLoss",
    "Goodput",
    "MetricsTable",
    "Predictions",
    "RepeatFirstBatch",
    "Report",
    "RolloutSamples",
    "Samples",
    "SpikeGuard",
    "StepProgress",
    "Throughput",
]

__getattr__ = lazy_exports(__name__, __file__)

"""Progress bar over optimizer steps, instead of Lightning's bar over batches of an endless epoch."""

import sys
from typing import Any

import lightning
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

POSTFIX = {
    "train/loss": ("loss", "{:.3f}", 1),
    "train/reward": ("reward", "{:.3f}", 1),
    "train/responses_per_second": ("responses/s", "{:,.0f}", 1),
    "throughput/tokens_per_second": ("tokens/s", "{:,.0f}", 1),
    "throughput/model_flops_per_second": ("GFLOP/s", "{:,.1f}", 1e-9),
    "throughput/share_of_peak": ("of peak", "{:.0%}", 1),
    "validation/bits_per_byte/all": ("validation bits/byte", "{:.3f}", 1),
}
"""Metric to its label on the bar, its format, and the factor to its unit."""


class StepProgress(ProgressBar):
    """Shows loss, tokens/s, model FLOP/s, its share of the measured peak and validation bits per byte."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: tqdm[Any] | None = None
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self._bar = tqdm(
            desc="training",
            total=trainer.max_steps,
            initial=trainer.global_step,
            unit="step",
            disable=not self._enabled or not trainer.is_global_zero,
            # A log file gets a line now and then rather than thousands.
            mininterval=0.5 if sys.stderr.isatty() else 20,
            dynamic_ncols=True,
        )

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self._bar is None or trainer.global_step == self._bar.n:
            return
        if trainer.global_step % trainer.log_every_n_steps == 0:
            metrics = trainer.callback_metrics
            shown = {
                label: form.format(float(metrics[key]) * scale)
                for key, (label, form, scale) in POSTFIX.items()
                if key in metrics
            }
            self._bar.set_postfix(shown, refresh=False)
        self._bar.update(trainer.global_step - self._bar.n)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if self._bar is not None:
            self._bar.close()

    def on_exception(self, trainer: lightning.Trainer, pl_module: Any, exception: BaseException) -> None:
        self.on_train_end(trainer, pl_module)

    def print(self, *args: Any, sep: str = " ", **kwargs: Any) -> None:
        tqdm.write(sep.join(str(arg) for arg in args))

"""Evaluation of reward scores on validation pairs, the same for one reward model and for an ensemble."""

import json
from pathlib import Path
from typing import Any, cast

import lightning
from torch import Tensor, nn
from torchmetrics import MeanMetric, PearsonCorrCoef

from alignment.preferences.calibration import Calibration
from common.run_folder import RELIABILITY

Batch = dict[str, Any]

DESCRIBED = ("scores/chosen", "scores/rejected", "scores/margin", "accuracy")


def describe(chosen: Tensor, rejected: Tensor) -> dict[str, Tensor]:
    """Metrics of each pair, [P]; a tie is half a hit."""
    hit = (chosen > rejected).float() + (chosen == rejected).float() / 2
    return dict(zip(DESCRIBED, (chosen, rejected, chosen - rejected, hit), strict=True))


class PairEvaluation(lightning.LightningModule):
    """Validation, test and prediction of a module that has `pair_scores` and `pair_losses`."""

    def pair_scores(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scores of the chosen and of the rejected responses, [P] each."""
        raise NotImplementedError

    def pair_losses(self, chosen: Tensor, rejected: Tensor, batch: Batch) -> Tensor:
        """Loss of each pair, [P]."""
        raise NotImplementedError

    def make_metrics(self) -> None:
        """Over validation pairs."""
        self.calibration, self.length_bias = Calibration(), PearsonCorrCoef()
        self.means = nn.ModuleDict({name: MeanMetric() for name in ("loss", *DESCRIBED)})

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        real = batch["example"] >= 0
        chosen, rejected = self.pair_scores(batch)
        described = {"loss": self.pair_losses(chosen, rejected, batch)} | describe(chosen, rejected)
        for name, values in described.items():
            cast(MeanMetric, self.means[name]).update(values[real])
        lengths = batch["lengths"].view(len(real), -1)
        probability = batch.get("probabilities")
        self.calibration.update((chosen - rejected)[real], None if probability is None else probability[real])
        if real.any():  # torchmetrics' correlation takes no empty batch
            self.length_bias.update((chosen - rejected)[real], (lengths[:, 0] - lengths[:, 1])[real].float())

    def test_step(self, batch: Batch, batch_index: int) -> None:
        self.validation_step(batch, batch_index)

    def on_validation_epoch_end(self) -> None:
        self._log_metrics("validation")

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test")

    def _log_metrics(self, stage: str) -> None:
        for name, metric in self.means.items():
            self.log(f"{stage}/{name}", cast(MeanMetric, metric))
        error, bias = self.calibration.compute(), self.length_bias.compute()
        self.log_dict({f"{stage}/calibration_error": error, f"{stage}/length_bias": bias})
        with self.calibration.sync_context():
            curve = self.calibration.curve()
        if self.trainer.is_global_zero and not self.trainer.sanity_checking:
            folder = Path(self.trainer.default_root_dir)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / RELIABILITY).write_text(json.dumps({"step": self.trainer.global_step, "bins": curve}))
        self.calibration.reset()
        self.length_bias.reset()

    def predict_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        """Scores of every pair, by column."""
        real = batch["example"] >= 0
        chosen, rejected = self.pair_scores(batch)
        return {
            "sample": batch["sample"][real].tolist(),
            "chosen": chosen[real].tolist(),
            "rejected": rejected[real].tolist(),
        }

"""The base language model as a LightningModule: which loss, which optimizer, which metric, and nothing below that.

Layers, loss mathematics, sampling and data live elsewhere; swapping one of them is a YAML line, not an edit here.
"""

from dataclasses import asdict
from typing import Any, cast

import lightning
import torch
from torch import Tensor, nn

from errors import InputError
from models.decoder import Decoder, DecoderConfig, initialise
from models.losses import linear_cross_entropy, token_negative_log_likelihood
from models.metrics import BitsPerByte
from models.optim import OptimizerFactory, Schedule

Batch = dict[str, Any]
"""`tokens`, `labels`, `document_ids`, `label_bytes` [B, T]; `sample` [B], its number in the order; `source`, a name."""


class LanguageModel(lightning.LightningModule):
    """A decoder trained on next-token prediction.

    Args:
        decoder: shape of the model.
        optimizer: factory of the optimizer.
        schedule: learning-rate factor by step.
        z_loss: weight of the squared log-normaliser, see `models.losses`.
        initial_seed: seed of the initial weights.
    """

    def __init__(
        self,
        decoder: DecoderConfig,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        z_loss: float = 0.0,
        initial_seed: int = 0,
    ) -> None:
        super().__init__()
        self.config, self.optimizer_factory, self.schedule = decoder, optimizer, schedule
        self.z_loss, self.initial_seed = z_loss, initial_seed
        self.decoder: Decoder | None = None
        self.bits_per_byte = nn.ModuleDict()

    def configure_model(self) -> None:
        """Build on the meta device, allocate once where the model will live, then draw the weights."""
        if self.decoder is None:
            with torch.device("meta"):
                decoder = Decoder(self.config)
            self.decoder = decoder.to_empty(device=self.device)
            initialise(self.decoder, self.initial_seed)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        assert self.decoder is not None
        hidden = self.decoder(batch["tokens"], batch["document_ids"])
        loss = linear_cross_entropy(
            hidden.flatten(0, 1), self.decoder.output.weight, batch["labels"].flatten(), self.z_loss
        )
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        assert self.decoder is not None
        total_steps = self.trainer.max_steps
        optimizer = self.optimizer_factory.build(self.decoder.named_parameters())
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.schedule.factor(step, total_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip to `trainer.gradient_clip_val` by the global norm, and log that norm, which Lightning throws away.

        Lightning's own clipping refuses fused optimizers under any mixed precision, for the sake of float16's loss
        scaling, which this module does not use.
        """
        if gradient_clip_algorithm not in (None, "norm"):
            raise InputError(f"trainer.gradient_clip_algorithm={gradient_clip_algorithm}: only norm is supported")
        parameters = [parameter for parameter in self.parameters() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(parameter.grad for parameter in parameters if parameter.grad is not None)
        self.log("train/gradient_norm", norm)
        if gradient_clip_val:
            torch.nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, norm)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.log("train/learning_rate", optimizer.param_groups[0]["lr"])

    def setup(self, stage: str) -> None:
        """Refuse what cannot train before a weight exists; one metric for each source of the data, and one for all."""
        if stage == "fit" and self.trainer.max_steps < 1:
            raise InputError(
                f"trainer.max_steps={self.trainer.max_steps}: the schedule needs an end, give a number of steps"
            )
        if self.trainer.precision == "16-mixed":
            raise InputError("trainer.precision=16-mixed: float16 needs loss scaling, take bf16-mixed or 32-true")
        sources = getattr(getattr(self.trainer, "datamodule", None), "source_names", [])
        self.bits_per_byte.update({name: BitsPerByte() for name in ["all", *sources]})

    def token_losses(self, batch: Batch) -> Tensor:
        """Negative log-likelihood in nats of every label, [B, T]."""
        assert self.decoder is not None
        hidden = self.decoder(batch["tokens"], batch["document_ids"])
        nats = token_negative_log_likelihood(
            hidden.flatten(0, 1), self.decoder.output.weight, batch["labels"].flatten()
        )
        return nats.view_as(batch["labels"])

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        nats = self.token_losses(batch)
        for name in ("all", batch["source"]):
            cast(BitsPerByte, self.bits_per_byte[name]).update(nats, batch["label_bytes"])

    def on_validation_epoch_end(self) -> None:
        self._log_bits_per_byte("validation")

    def test_step(self, batch: Batch, batch_index: int) -> None:
        self.validation_step(batch, batch_index)

    def on_test_epoch_end(self) -> None:
        self._log_bits_per_byte("test")

    def predict_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        """Nats and bytes of every window, for whoever writes them down."""
        nats, in_bytes = self.token_losses(batch), batch["label_bytes"]
        return {
            "sample": batch["sample"].tolist(),
            "source": batch["source"],
            "nats": (nats * (in_bytes > 0)).sum(1).tolist(),
            "bytes": in_bytes.sum(1).tolist(),
        }

    def _log_bits_per_byte(self, stage: str) -> None:
        for name, metric in self.bits_per_byte.items():
            self.log(f"{stage}/bits_per_byte/{name}", cast(BitsPerByte, metric))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["decoder_config"] = asdict(self.config)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another shape before its tensors are copied."""
        saved, mine = checkpoint["decoder_config"], asdict(self.config)
        differing = [f"{key} {saved.get(key)} -> {mine[key]}" for key in mine if saved.get(key) != mine[key]]
        if differing:
            raise InputError(
                f"the checkpoint holds another model ({', '.join(differing)}): "
                "give this one a trainer.default_root_dir of its own, or restore the configuration"
            )

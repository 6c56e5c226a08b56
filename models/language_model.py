"""LightningModule of next-token prediction: loss, optimizer and metrics of pretraining and fine-tuning.

Layers, loss mathematics, sampling and data are elsewhere; swapping one of them is a YAML line, not an edit here. The
price is a `forward` that takes a function of the hidden states, so that a pipeline can run it on its last stage.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from typing import Any, cast

import lightning
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from common.constants import IGNORE
from common.contracts import NamedSources, attached_data
from common.errors import InputError
from models.decoder import Decoder, DecoderConfig, auxiliary_loss
from models.initialization import WeightLookup, materialize
from models.lora import LoRA
from models.losses.bits_per_byte import BitsPerByte
from models.optimizers.adamw import OptimizerFactory, scale_gradients
from models.optimizers.schedules import Schedule
from models.optimizers.skip_step import NormHistory, SpikeSkip

Batch = dict[str, Any]
"""Batch of packed rows, see `common.contracts.PackedBatch`; with `label_bytes` [B, T], `sample` [B] and `source`."""

HeadFunction = Callable[[Tensor, Batch], Tensor]
"""Function of the hidden states [B, T, C] and their batch: a loss, or values per row."""


class LanguageModel(lightning.LightningModule):
    """Language model trained on next-token prediction.

    Args:
        optimizer: factory of the optimizer.
        schedule: learning-rate factor by step.
        decoder: shape of the model; null takes that of `init_from`.
        z_loss: weight of the squared log-normalizer (Chowdhery et al. 2022, section 5); 0 is none.
        initial_seed: seed of the initial weights.
        init_from: initial weights: a run's folder, a checkpoint, a file that `convert` wrote or a Hugging Face folder.
        lora: low-rank adapters to train instead of the whole model.
        spike_skip: rule of steps to skip for their gradient norm; null skips none.
    """

    has_scalar_output = False
    """Whether the decoder has one output per position instead of logits over the vocabulary."""

    def __init__(
        self,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        decoder: DecoderConfig | None = None,
        z_loss: float = 0.0,
        initial_seed: int = 0,
        init_from: str | None = None,
        lora: LoRA | None = None,
        spike_skip: SpikeSkip | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= z_loss < float("inf"):
            raise InputError(f"z_loss={z_loss}: must be a number not below 0")
        if decoder is None:
            raise InputError("model.init_args.decoder: give the model's shape, or initial weights in init_from")
        if decoder.scalar_output != self.has_scalar_output:
            raise InputError(
                f"init_from={init_from} is a reward model, whose output is one number: {type(self).__name__} needs "
                "logits over the vocabulary, start from a language model"
            )
        self.config = replace(decoder, lora=lora) if lora is not None else decoder
        self.optimizer_factory, self.schedule = optimizer, schedule
        self.z_loss, self.initial_seed, self.init_from = z_loss, initial_seed, init_from
        self.norm_history = None if spike_skip is None else NormHistory(spike_skip)
        self.stored: WeightLookup | None = None
        self.decoder: Decoder | None = None
        self.step_loss = torch.zeros(())
        self.step_parts: dict[str, Tensor] = {}
        self.bits_per_byte = nn.ModuleDict()

    def configure_model(self) -> None:
        """Build on the meta device; allocate on the target device, unless the strategy shards first."""
        if self.decoder is None:
            with torch.device("meta"):
                self.decoder = Decoder(self.config)
            if torch.get_default_device().type != "meta":
                self.materialize(self.decoder, self.device)

    def materialize(self, part: nn.Module, device: torch.device) -> None:
        """Allocate a sub-module of the decoder, or all of it, with its initial weights, the same in every layout."""
        assert self.decoder is not None
        materialize(self.decoder, device, self.initial_seed, part, self.initial_weight)

    def initial_weight(self, name: str) -> Tensor | None:
        """Stored initial value of a parameter of the decoder, whole; None where it is drawn.

        Raises:
            InputError: when the initial weights lack it; only adapters may be new.
        """
        if self.stored is None:
            return None
        value = self.stored(name)
        if value is None and not name.endswith(("lora_a", "lora_b")):
            raise InputError(f"init_from={self.init_from} lacks {name}: it is not a whole model of this shape")
        return value

    def forward(self, batch: Batch, head_fn: HeadFunction) -> Tensor:
        """`head_fn(hidden states, batch)`: the one call that a pipeline takes over, where few ranks have hidden states.

        Args:
            batch: see `Batch`.
            head_fn: gives one value per row of the batch, or a scalar that is the sum of the rows' shares, so that a
                pipeline can compute it by micro-batch.
        """
        assert self.decoder is not None
        hidden = self.decoder(batch["tokens"], batch["document_ids"], branch_ids_BT=batch.get("branch_ids"))
        return head_fn(hidden, batch)

    def loss(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of the labels, summed and divided by `label_count`."""
        assert self.decoder is not None
        hidden, labels = hidden.flatten(0, 1), batch["labels"].flatten()
        if batch.get("few_labels"):
            # Most positions have no label, and their logits would be most of the work.
            hidden, labels = hidden[labels != IGNORE], labels[labels != IGNORE]
        loss, z_part = self.decoder.output.cross_entropy_and_z_loss(hidden, labels, self.z_loss, batch["label_count"])
        if self.z_loss:
            self.add_part("z_loss", z_part)
        return self.with_auxiliary_loss(loss)

    def with_auxiliary_loss(self, loss: Tensor) -> Tensor:
        """A loss plus that of the experts, which is logged apart."""
        assert self.decoder is not None
        auxiliary = auxiliary_loss(self.decoder)
        if auxiliary is None:
            return loss
        self.add_part("experts_loss", auxiliary)
        return loss + auxiliary

    def add_part(self, name: str, value: Tensor) -> None:
        """Add a micro-batch's share to a part of the step's loss that `train/loss` leaves out."""
        share = value.detach() / self.trainer.accumulate_grad_batches
        self.step_parts[name] = self.step_parts[name] + share if name in self.step_parts else share

    def part_names(self) -> list[str]:
        """Names of those parts, the same on every rank."""
        return ["z_loss"] * (self.z_loss > 0) + ["experts_loss"] * (self.config.experts is not None)

    @torch.no_grad()
    def token_losses(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Negative log-likelihood in nats of each label, [B, T]."""
        assert self.decoder is not None
        labels = batch["labels"]
        return -self.decoder.output.log_probabilities(hidden.flatten(0, 1), labels.flatten()).view_as(labels)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor | None:
        """Mean loss over the labels of the step.

        Where batches have different numbers of labels, `label_count` is the step's count over its number of batches and
        ranks, so that the mean over those is the mean over all labels of the step.
        """
        loss: Tensor = self({"label_count": (batch["labels"] != IGNORE).sum()} | batch, self.loss)
        self.step_loss = self.step_loss + loss.detach() / self.trainer.accumulate_grad_batches
        return loss

    def build_optimizers(self) -> list[torch.optim.Optimizer]:
        """One optimizer over all trained parameters; a module with several steps them itself."""
        assert self.decoder is not None
        return [self.optimizer_factory.build(self.decoder.named_parameters())]

    def configure_optimizers(self) -> Any:
        total_steps = self.trainer.max_steps
        optimizers = self.build_optimizers()
        self._settings = [
            [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
            for optimizer in optimizers
        ]
        schedulers = [
            torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.schedule.factor(step, total_steps))
            for optimizer in optimizers
        ]
        return optimizers, [{"scheduler": scheduler, "interval": "step"} for scheduler in schedulers]

    def on_train_start(self) -> None:
        """Set optimizer and schedule to the configuration, also where a checkpoint has other settings."""
        factor = self.schedule.factor(self.trainer.global_step, self.trainer.max_steps)
        each = zip(self.trainer.optimizers, self.trainer.lr_scheduler_configs, self._settings, strict=True)
        for optimizer, config, of_groups in each:
            scheduler: Any = config.scheduler
            scheduler.base_lrs = [settings["lr"] for settings in of_groups]
            for group, settings in zip(optimizer.param_groups, of_groups, strict=True):
                group.update(settings | {"initial_lr": settings["lr"], "lr": settings["lr"] * factor})
            scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip to `trainer.gradient_clip_val` by the global norm, and log that norm, which Lightning discards.

        Lightning's own clipping refuses fused optimizers under any mixed precision because of float16's loss scaling,
        which this module does not use.
        """
        norm = self.gradient_norm()
        self.log("train/gradient_norm", norm)
        if self.norm_history is not None:
            cast(Any, optimizer).found_inf = self.norm_history.is_spike(norm).float()
            self.log("train/skipped_steps", self.norm_history.skipped)
        if gradient_clip_val:
            scale_gradients(self.parameters(), (gradient_clip_val / (norm + 1e-6)).clamp(max=1.0))

    def gradient_norm(self, parameters: Iterable[nn.Parameter] | None = None) -> Tensor:
        """Global 2-norm of the gradients of all or some parameters; a strategy that shards them replaces this."""
        chosen = self.parameters() if parameters is None else parameters
        return torch.nn.utils.get_total_norm(p.grad for p in chosen if p.grad is not None)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # Mean over accumulated batches and ranks; ranks that share a batch share its loss.
        names = self.part_names()
        if not names:
            self.log("train/loss", self.step_loss, sync_dist=True)
        else:
            # Of a pipeline's ranks only those with its last stage know the parts.
            mine = [self.step_parts.get(name, torch.zeros_like(self.step_loss)) for name in names]
            known = torch.full_like(self.step_loss, float(bool(self.step_parts)))
            total, known, *parts = self.trainer.strategy.reduce(
                torch.stack([x.to(self.step_loss) for x in (self.step_loss, known, *mine)])
            ).unbind()
            parts = [part / known.where(known > 0, 1) for part in parts]
            self.log("train/loss", total - torch.stack(parts).sum())
            for name, part in zip(names, parts, strict=True):
                self.log(f"train/{name}", part)
        self.step_loss, self.step_parts = torch.zeros((), device=self.device), {}
        # A number would be copied to the device in each step, and the host would wait for the copy.
        self.log(
            "train/learning_rate", torch.tensor(optimizer.param_groups[0]["lr"], dtype=torch.float32, device="cpu")
        )

    def setup(self, stage: str) -> None:
        """Refuse settings that cannot train before a weight exists."""
        self.preflight(self.trainer)
        self.make_metrics()

    def make_metrics(self) -> None:
        """Bits per byte of each source of the data, and of all."""
        data = attached_data(self.trainer)
        sources = data.source_names if isinstance(data, NamedSources) else []
        # A source may be called like a method of ModuleDict: "keys", "train".
        self.bits_per_byte.update({f"of {name}": BitsPerByte() for name in ["all", *sources]})

    def preflight(self, trainer: Any) -> None:
        """Refuse settings that cannot train, before a strategy starts processes.

        Raises:
            InputError: for settings of trainer, schedule or optimizer that do not go together.
        """
        if trainer.precision in ("16-mixed", "16-true"):
            raise InputError(
                f"trainer.precision={trainer.precision}: float16 needs loss scaling, take bf16-mixed or 32-true"
            )
        if trainer.state.fn != TrainerFn.FITTING:
            return
        if trainer.precision == "bf16-true":
            raise InputError(
                "trainer.precision=bf16-true: weights in bfloat16 without a float32 copy round most small updates "
                "away, take bf16-mixed"
            )
        warmup = self.schedule.warmup_steps
        if self.norm_history is not None and not self.optimizer_factory.fused:
            raise InputError("spike_skip with an optimizer of fused=false: only the fused one can skip a step")
        if trainer.gradient_clip_algorithm not in (None, "norm"):
            raise InputError(
                f"trainer.gradient_clip_algorithm={trainer.gradient_clip_algorithm.value}: only norm is supported"
            )
        if trainer.max_steps < 1:
            raise InputError(
                f"trainer.max_steps={trainer.max_steps}: the schedule needs an end, set it to the number of steps"
            )
        if warmup > trainer.max_steps and not trainer.fast_dev_run:
            raise InputError(
                f"schedule.warmup_steps={warmup}: the {trainer.max_steps} steps of trainer.max_steps end before it "
                "does, lower it or train for longer"
            )
        if trainer.gradient_clip_val is not None and trainer.gradient_clip_val < 0:
            raise InputError(f"trainer.gradient_clip_val={trainer.gradient_clip_val}: must not be negative")
        limit, batches = trainer.limit_train_batches, trainer.accumulate_grad_batches
        if isinstance(limit, int) and limit % batches:
            raise InputError(
                f"trainer.limit_train_batches={limit} is not a multiple of accumulate_grad_batches={batches}: an epoch "
                "would end within an optimizer step, choose a multiple"
            )

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        nats = self(batch, self.token_losses)
        for name in ("all", batch["source"]):
            cast(BitsPerByte, self.bits_per_byte[f"of {name}"]).update(nats, batch["label_bytes"])

    def on_validation_epoch_end(self) -> None:
        self._log_bits_per_byte("validation")

    def test_step(self, batch: Batch, batch_index: int) -> None:
        self.validation_step(batch, batch_index)

    def on_test_epoch_end(self) -> None:
        self._log_bits_per_byte("test")

    def predict_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        """Nats, bytes and bits per byte of each window, for `callbacks.Predictions`."""
        nats, in_bytes = self(batch, self.token_losses), batch["label_bytes"]
        real = batch["sample"] >= 0  # the others are padding of the batch
        sums, sizes = (nats * (in_bytes > 0)).sum(1)[real].tolist(), in_bytes.sum(1)[real].tolist()
        return {
            "sample": batch["sample"][real].tolist(),
            "source": batch["source"],
            "nats": sums,
            "bytes": sizes,
            "bits_per_byte": [n / size / math.log(2) if size else None for n, size in zip(sums, sizes, strict=True)],
        }

    def _log_bits_per_byte(self, stage: str) -> None:
        for name, metric in self.bits_per_byte.items():
            self.log(f"{stage}/bits_per_byte/{name.removeprefix('of ')}", cast(BitsPerByte, metric))

    @torch.no_grad()
    def load_weights(self, checkpoint: dict[str, Any]) -> None:
        """Copy the weights of a whole checkpoint, of any layout."""
        self.on_load_checkpoint(checkpoint)
        self.configure_model()
        for name, parameter in self.named_parameters():
            parameter.copy_(checkpoint["state_dict"][name])

    def optimizer_names(self) -> list[str]:
        """Names of the optimizers whose state a checkpoint holds."""
        return [type(self.optimizer_factory).__name__]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["decoder_config"] = asdict(self.config)
        checkpoint["optimizer_names"] = self.optimizer_names()
        if self.norm_history is not None:
            checkpoint["norm_history"] = self.norm_history.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another shape, or to continue with another optimizer, before tensors are copied."""
        saved, mine = checkpoint["decoder_config"], asdict(self.config)
        default = asdict(DecoderConfig(vocabulary_size=1))
        saved = {key: saved.get(key, default[key]) for key in mine}  # keys newer than the checkpoint
        differing = [f"{key} {saved[key]} -> {mine[key]}" for key in mine if saved[key] != mine[key]]
        if differing:
            raise InputError(
                f"the checkpoint holds another model ({', '.join(differing)}): "
                "give this one a trainer.default_root_dir of its own, or restore the configuration"
            )
        trains = self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        names = checkpoint.get("optimizer_names", self.optimizer_names())
        if trains and any(name != mine for name, mine in zip(names, self.optimizer_names(), strict=False)):
            raise InputError(
                f"the checkpoint holds the state of {', '.join(names)}, this run trains with "
                f"{', '.join(self.optimizer_names())}: restore the optimizer, or begin another run from these weights "
                "(model.init_args.init_from)"
            )
        if self.norm_history is not None and "norm_history" in checkpoint:
            self.norm_history.load_state_dict(checkpoint["norm_history"])

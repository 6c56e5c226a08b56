"""Preference policy: the LightningModule of DPO and its family, with a loss over pairs of responses.

A batch is a number of pairs in one row without padding; a prompt is computed once for both responses. The reference's
log-probabilities are computed once before training, the cheapest and the default; online by a second, frozen model; or
by the policy itself with its adapter off.
"""

from contextlib import nullcontext
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from alignment.named_means import NamedMeans, StepMeans
from alignment.preferences.checks import refuse_trained_adapter, refuse_z_loss, require_adapter, require_pairs
from alignment.preferences.losses import Pairs, PreferenceLoss, expected_loss
from alignment.preferences.precomputed_reference import load_precomputed, precompute
from common.constants import IGNORE
from common.errors import InputError
from models.decoder import Decoder
from models.initialization import materialize
from models.language_model import Batch, LanguageModel
from models.lora import lora_disabled

Reference = Literal["precomputed", "online", "adapter_off"]


class PreferencePolicy(LanguageModel):
    """A language model that learns which of two responses is preferred, as far as the labels are sure of it.

    Args:
        loss: one of `alignment.preferences.losses`.
        reference: where the reference's log-probabilities come from: `precomputed` from the initial weights before
            training and stored; `online`, by a frozen copy of the initial weights; `adapter_off`, by the policy
            without its LoRA adapter. Ignored by losses without a reference.
        further: arguments of `LanguageModel`.

    Raises:
        InputError: for a reference that cannot be.
    """

    whole_rows = True
    """The loss needs all pairs of a row together: a pipeline, which cuts batches by rows, has one to cut."""

    def __init__(self, loss: PreferenceLoss, reference: Reference = "precomputed", **further: Any) -> None:
        super().__init__(**further)
        refuse_z_loss(self)
        self.preference_loss, self.reference = loss, reference
        self.reference_decoder: Decoder | None = None
        self.reference_key: str | None = None
        self._key_in_checkpoint: str | None = None
        self.means, self.step_means = NamedMeans(), StepMeans()
        if loss.needs_reference:
            require_adapter(reference, self.config, instead="precomputed")

    @property
    def needs_precomputed(self) -> bool:
        """Whether batches bring the reference's log-probabilities."""
        return self.preference_loss.needs_reference and self.reference == "precomputed"

    def preflight(self, trainer: Any) -> None:
        """Refuse data without pairs."""
        super().preflight(trainer)
        require_pairs(self, trainer)
        if self.preference_loss.needs_reference:
            refuse_trained_adapter(self.reference, self.stored, instead="precomputed or online")

    def setup(self, stage: str) -> None:
        """Ask the data for what the loss needs."""
        super().setup(stage)
        if self.preference_loss.needs_kl:
            cast(Any, self.trainer).datamodule.use_unrelated_responses()

    def make_metrics(self) -> None:
        """Means over validation pairs, by name."""

    def configure_model(self) -> None:
        """The policy, and its reference where it is kept."""
        super().configure_model()
        if self.preference_loss.needs_reference and self.reference == "online" and self.reference_decoder is None:
            with torch.device("meta"):
                self.reference_decoder = Decoder(self.config).requires_grad_(False)
            if torch.get_default_device().type != "meta":
                self.materialize(self.reference_decoder, self.device)

    def materialize(self, part: nn.Module, device: torch.device) -> None:
        """Policy and reference begin with the same weights."""
        reference = self.reference_decoder
        if reference is not None and any(module is part for module in reference.modules()):
            materialize(reference, device, self.initial_seed, part, self.initial_weight)
        else:
            super().materialize(part, device)

    def on_fit_start(self) -> None:
        """Compute what the reference says of every pair, before a checkpoint is loaded over the initial weights."""
        if self.needs_precomputed:
            self._same_reference(precompute(self))

    def on_validation_start(self) -> None:
        """A command that only evaluates takes what training stored."""
        if self.needs_precomputed and self.reference_key is None:
            self._same_reference(load_precomputed(self))

    def on_test_start(self) -> None:
        self.on_validation_start()

    def _same_reference(self, key: str | None = None) -> None:
        """Refuse to go on with margins measured against another model than before."""
        self.reference_key = key or self.reference_key
        if self.reference_key and self._key_in_checkpoint and self.reference_key != self._key_in_checkpoint:
            raise InputError(
                f"the checkpoint was trained against reference {self._key_in_checkpoint}, init_from and precision now "
                f"give {self.reference_key}: restore them, or train again with another trainer.default_root_dir"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["reference_key"] = self.reference_key

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self._key_in_checkpoint = checkpoint.get("reference_key")
        self._same_reference()

    # Log-probabilities

    def response_log_probabilities(self, hidden: Tensor, batch: Batch) -> Tensor:
        """log pi(response | prompt) of every response of the batch, [A]."""
        return self._sum_by_response(cast(Decoder, self.decoder), hidden, batch)

    def _sum_by_response(self, decoder: Decoder, hidden: Tensor, batch: Batch) -> Tensor:
        learned = batch["labels"] != IGNORE
        tokens = decoder.output.log_probabilities(hidden[learned], batch["labels"][learned])
        return tokens.new_zeros(len(batch["lengths"])).index_add(0, batch["response_ids"][learned], tokens)

    @torch.no_grad()
    def reference_log_probabilities(self, batch: Batch) -> Tensor | None:
        """Log-probabilities under the reference, [A], or None where the loss has none."""
        if not self.preference_loss.needs_reference:
            return None
        if self.reference == "precomputed":
            return cast(Tensor, batch["reference"])
        decoder, hidden = self._reference_hidden(batch)
        return self._sum_by_response(decoder, hidden, batch)

    def _reference_hidden(self, batch: Batch) -> tuple[Decoder, Tensor]:
        # A copy of the initial weights keeps the adapter it began with.
        decoder = cast(Decoder, self.reference_decoder or self.decoder)
        with lora_disabled(decoder) if decoder is self.decoder else nullcontext():
            return decoder, decoder(batch["tokens"], batch["document_ids"], branch_ids_BT=batch["branch_ids"])

    def pairs(self, batch: Batch, policy: Tensor, reference: Tensor | None) -> Pairs:
        """Log-probabilities by pair."""
        each = len(batch["lengths"]) // len(batch["example"])
        chosen, rejected, *unrelated = policy.view(-1, each).unbind(1)
        chosen_length, rejected_length, *_ = batch["lengths"].view(-1, each).unbind(1)
        kl, probability = None, batch.get("probabilities")
        if reference is None:
            return Pairs(chosen, rejected, chosen_length, rejected_length, probability=probability)
        if unrelated:
            ratios = (unrelated[0].detach() - reference.view(-1, each)[:, 2])[batch["example"] >= 0]
            total = torch.stack((ratios.sum(), ratios.new_tensor(len(ratios))))
            total = cast(Tensor, self.trainer.strategy.reduce(total, reduce_op="sum"))
            kl = (total[0] / total[1].clamp(min=1)).clamp(min=0)
        by_pair = reference.view(-1, each)
        return Pairs(chosen, rejected, chosen_length, rejected_length, by_pair[:, 0], by_pair[:, 1], kl, probability)

    # Steps

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The mean over the batch's pairs; every batch holds equally many."""
        reference = self.reference_log_probabilities(batch)
        pairs = self.pairs(batch, self(batch, self.response_log_probabilities), reference)
        loss = self.with_auxiliary_loss(expected_loss(self.preference_loss, pairs).mean())
        self.step_loss = self.step_loss + loss.detach() / self.trainer.accumulate_grad_batches
        for name, values in self.describe(pairs).items():
            self.step_means.add(name, values, 1 / self.trainer.accumulate_grad_batches)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        self.step_means.log_to(self)

    @torch.no_grad()
    def describe(self, pairs: Pairs) -> dict[str, Tensor]:
        """Metrics of each pair, [P]. Chosen responses are known to lose probability while rejected ones lose
        more: both are here.
        """
        chosen, rejected = self.preference_loss.rewards(pairs)
        described = {
            "rewards/chosen": chosen,
            "rewards/rejected": rejected,
            "rewards/margin": chosen - rejected,
            # A tie, as before the first step, is half a hit: 0 margin is chance.
            "rewards/accuracy": (chosen > rejected).float() + (chosen == rejected).float() / 2,
            "log_probabilities/chosen": pairs.chosen,
            "log_probabilities/rejected": pairs.rejected,
            "lengths/chosen": pairs.chosen_length,
            "lengths/rejected": pairs.rejected_length,
            "preferred_by_likelihood": (pairs.chosen > pairs.rejected).float(),
        }
        if pairs.reference_chosen is not None:
            log_ratios = pairs.log_ratios
            described |= {"log_ratios/chosen": log_ratios[0], "log_ratios/rejected": log_ratios[1]}
        if pairs.kl is not None:
            described["kl_estimate"] = pairs.kl.expand_as(chosen)
        return {name: value.detach() for name, value in described.items()}

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        real = batch["example"] >= 0
        reference = self.reference_log_probabilities(batch)
        pairs = self.pairs(batch, self(batch, self.response_log_probabilities), reference)
        for name, values in ({"loss": expected_loss(self.preference_loss, pairs)} | self.describe(pairs)).items():
            self.means.add(name, values[real])
        if reference is not None and self.reference != "precomputed":
            self.means.add("kl_per_token", self.kl_from_reference(batch, real))

    def kl_from_reference(self, batch: Batch, real: Tensor) -> Tensor:
        """Exact KL(policy || reference) of the next token at every place of the real responses, in nats."""
        each = len(batch["lengths"]) // len(batch["example"])
        response = batch["response_ids"].clamp(min=0)
        learned = (batch["labels"] != IGNORE) & real[response // each] & (response % each < 2)
        reference, reference_hidden = self._reference_hidden(batch)

        def kl(hidden: Tensor, batch: Batch) -> Tensor:
            head = cast(Decoder, self.decoder).output
            return head.kl(hidden[learned], reference.output, reference_hidden[learned])

        values: Tensor = self(batch, kl)
        return values

    def on_validation_epoch_end(self) -> None:
        self.means.log_to(self, "validation")

    def on_test_epoch_end(self) -> None:
        self.means.log_to(self, "test")

    def predict_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        """Log-probabilities of every pair, by column."""
        each = len(batch["lengths"]) // len(batch["example"])
        real = batch["example"] >= 0
        policy = self(batch, self.response_log_probabilities).view(-1, each)[real]
        return {
            "sample": batch["sample"][real].tolist(),
            "chosen": policy[:, 0].tolist(),
            "rejected": policy[:, 1].tolist(),
        }

"""Reward model: a decoder with one output, trained on preference pairs by the Bradley-Terry loss.

A score is read at the response's own last token, never at a fixed column, so that padding and packing cannot move it.
Only differences of scores are learned; a center_rewards term can hold their level near zero.
"""

import math
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from alignment.named_means import StepMeans
from alignment.preferences.checks import refuse_z_loss, require_pairs
from alignment.preferences.losses import bradley_terry
from alignment.preferences.pair_evaluation import PairEvaluation, describe
from common.errors import InputError
from models.decoder import Decoder, DecoderConfig
from models.language_model import Batch, LanguageModel


class RewardModel(PairEvaluation, LanguageModel):
    """Scores responses; trained by Bradley and Terry's model of comparisons, on soft labels where the data has them.

    Args:
        decoder: shape of the model, that of `init_from` where one is given; its output becomes a single row.
        use_margin: subtract each pair's margin within the sigmoid, where the data has margins (Llama 2).
        center_rewards: weight of the term that holds scores near zero; 0.01 is Eisenstein et al.'s (2023).
        further: arguments of `LanguageModel`. `initial_seed` draws the scalar output: members of an ensemble differ
            by it and by the data's seed.

    Raises:
        InputError: for a negative weight.
    """

    whole_rows = True
    has_scalar_output = True

    def __init__(
        self,
        decoder: DecoderConfig | None = None,
        use_margin: bool = False,
        center_rewards: float = 0.0,
        **further: Any,
    ) -> None:
        scalar = replace(decoder, scalar_output=True, tied_embeddings=False) if decoder is not None else None
        super().__init__(decoder=scalar, **further)
        refuse_z_loss(self)
        if not 0 <= center_rewards < math.inf:
            raise InputError(f"center_rewards={center_rewards}: must be a number, not negative")
        self.use_margin, self.center_rewards = use_margin, center_rewards
        self.step_means = StepMeans()

    def preflight(self, trainer: Any) -> None:
        """Refuse data without pairs."""
        super().preflight(trainer)
        require_pairs(self, trainer)

    def setup(self, stage: str) -> None:
        """Refuse margins that the data does not have."""
        super().setup(stage)
        if self.use_margin and not cast(Any, self.trainer).datamodule.has_margins:
            raise InputError(
                "use_margin=true: no pair has a `margin`, or `score_chosen` and `score_rejected`; leave it out"
            )

    def initial_weight(self, name: str) -> Tensor | None:
        """The trunk's from `init_from`; the output too, where that is a reward model."""
        source = cast(Any, self.stored)
        if source is None or (name == "output.weight" and not source.config.get("scalar_output")):
            return None
        return super().initial_weight(name)

    def scores(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Score of every response at its last token, float32 [A]."""
        return response_scores(cast(Decoder, self.decoder), hidden, batch)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The mean over the batch's pairs; every batch holds equally many."""
        chosen, rejected = self.pair_scores(batch)
        loss = self.with_auxiliary_loss(self.pair_losses(chosen, rejected, batch).mean())
        share = 1 / self.trainer.accumulate_grad_batches
        self.step_loss = self.step_loss + loss.detach() * share
        for name, values in describe(chosen.detach(), rejected.detach()).items():
            self.step_means.add(name, values, share)
        return loss

    def pair_scores(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scores of the chosen and of the rejected responses, [P] each."""
        scores = self(batch, self.scores).view(len(batch["example"]), -1)
        return scores[:, 0], scores[:, 1]

    def pair_losses(self, chosen: Tensor, rejected: Tensor, batch: Batch) -> Tensor:
        """Bradley-Terry loss of each pair, [P]."""
        margin = batch["margins"] if self.use_margin else 0.0
        return bradley_terry(chosen, rejected, margin, self.center_rewards, batch.get("probabilities"))

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        self.step_means.log_to(self)


def response_scores(decoder: Decoder, hidden: Tensor, batch: Batch) -> Tensor:
    """Scalar output at the last token of every response, float32 [A]."""
    return decoder.output.scores(hidden.flatten(0, 1)[batch["ends"]])

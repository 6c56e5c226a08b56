"""Reward-model ensemble: several reward models as one score.

A policy finds what a single reward model is wrong about. Members are runs that differ by their seeds. Scores of
different models agree on a level only as far as the center_rewards term of training held them there: train members with
it before taking their minimum. All members are in memory and each costs a forward pass.
"""

from typing import Any, Literal, cast

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torchmetrics import MeanMetric

from alignment.preferences.checks import require_pairs
from alignment.preferences.losses import bradley_terry
from alignment.preferences.pair_evaluation import Batch, PairEvaluation
from alignment.preferences.reward_model import response_scores
from common.errors import InputError
from common.path_lists import PathList, path_list
from models.decoder import Decoder, DecoderConfig
from models.initialization import materialize


class RewardEnsemble(PairEvaluation):
    """Scores by several trained reward models; for `test`, `predict` and as a reward, not for training.

    Args:
        init_from: the members: runs, checkpoints or converted files of reward models of one shape.
        combine: `mean`; `minimum`, the worst case; or `pessimistic`, the mean less `penalty` times the variance
            (Coste et al. 2023, section 3.2: WCO and UWO).
        penalty: of the variance between members.
        decoder: shape of the members, filled in from the first.

    Raises:
        InputError: for a member that is not a reward model; before testing, for shapes that differ.
    """

    trains = False

    def __init__(
        self,
        init_from: PathList,
        combine: Literal["mean", "minimum", "pessimistic"] = "mean",
        penalty: float = 0.5,
        decoder: DecoderConfig | None = None,
    ) -> None:
        super().__init__()
        self.names = path_list(init_from)
        if decoder is None or not decoder.scalar_output:
            raise InputError(f"init_from: {self.names[0]} is not a reward model, train it with alignment.RewardModel")
        if penalty < 0:
            raise InputError(f"penalty={penalty}: must not be negative")
        self.config, self.combine, self.penalty = decoder, combine, penalty
        self.stored: Any = []
        self.members: nn.ModuleList | None = None

    @property
    def sources(self) -> list[Any]:
        """Weights of each member."""
        return self.stored if isinstance(self.stored, list) else [self.stored]

    def preflight(self, trainer: Any) -> None:
        """Refuse training, data without pairs, and members of other shapes than the first."""
        if trainer.state.fn == TrainerFn.FITTING:
            raise InputError("RewardEnsemble does not train: fit its members, each with a seed of its own")
        for name, stored in zip(self.names, self.sources, strict=True):
            if differing := [key for key, value in self.sources[0].config.items() if stored.config.get(key) != value]:
                raise InputError(f"init_from: {name} differs from {self.names[0]} in {', '.join(differing)}")
        require_pairs(self, trainer)

    def setup(self, stage: str) -> None:
        """Refuse what cannot be before a weight exists."""
        self.preflight(self.trainer)
        self.make_metrics()

    def make_metrics(self) -> None:
        """Metrics of the members together and apart."""
        super().make_metrics()
        self.spread = MeanMetric()
        self.by_member = nn.ModuleList(MeanMetric() for _ in self.names)

    def configure_model(self) -> None:
        """Build the members; allocate unless the strategy wants to spread them first."""
        if self.members is None:
            with torch.device("meta"):
                self.members = nn.ModuleList(Decoder(self.config) for _ in self.names)
            if torch.get_default_device().type != "meta":
                self.materialize(self.members, self.device)

    def materialize(self, part: nn.Module, device: torch.device) -> None:
        """Allocate the members, or a part of one, with their stored weights."""
        for member, stored in zip(cast(nn.ModuleList, self.members), self.stored, strict=True):
            modules = list(member.modules())
            if part is self.members:
                materialize(cast(Decoder, member), device, 0, member, stored)
            elif any(module is part for module in modules):
                materialize(cast(Decoder, member), device, 0, part, stored)

    def scores(self, batch: Batch) -> Tensor:
        """Score of every response by every member, float32 [members, A]."""
        rows = []
        for member in cast(nn.ModuleList, self.members):
            decoder = cast(Decoder, member)
            hidden = decoder(batch["tokens"], batch["document_ids"], branch_ids_BT=batch["branch_ids"])
            rows.append(response_scores(decoder, hidden, batch))
        return torch.stack(rows)

    def combined(self, scores_MA: Tensor) -> Tensor:
        """One score of every response, [A]."""
        if self.combine == "minimum":
            return scores_MA.amin(0)
        if self.combine == "pessimistic":
            return scores_MA.mean(0) - self.penalty * scores_MA.var(0, unbiased=False)
        return scores_MA.mean(0)

    def pair_scores(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Combined scores of the chosen and of the rejected responses, [P] each."""
        scores = self.scores(batch).unflatten(1, (len(batch["example"]), -1))
        real = batch["example"] >= 0
        margins = (scores[:, :, 0] - scores[:, :, 1])[:, real]
        self.spread.update(margins.std(0, unbiased=False))
        for metric, margin in zip(self.by_member, margins, strict=True):
            cast(MeanMetric, metric).update((margin > 0).float() + (margin == 0).float() / 2)
        by_pair = self.combined(scores.flatten(1)).unflatten(0, scores.shape[1:])
        return by_pair[:, 0], by_pair[:, 1]

    def pair_losses(self, chosen: Tensor, rejected: Tensor, batch: Batch) -> Tensor:
        """Bradley-Terry loss of each pair, [P]."""
        return bradley_terry(chosen, rejected, probability=batch.get("probabilities"))

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        self._log_members("validation")

    def on_test_epoch_end(self) -> None:
        super().on_test_epoch_end()
        self._log_members("test")

    def _log_members(self, stage: str) -> None:
        self.log(f"{stage}/spread_of_margins", self.spread)
        for number, metric in enumerate(self.by_member):
            self.log(f"{stage}/member_{number}/accuracy", cast(MeanMetric, metric))

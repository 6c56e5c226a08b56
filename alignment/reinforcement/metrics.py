"""Metrics of policy optimization: means over ranks, and alarms for known ways of reward hacking.

Sums and counts travel together and once per step, so that a mean is over all tokens or responses of all ranks whatever
each of them held, and watching costs one small reduction.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignment.reinforcement.advantages import Reduce, no_reduction, sum_by_response
from alignment.reinforcement.experience import ExperienceBatch
from alignment.reinforcement.kl import ESTIMATORS, estimate
from alignment.reinforcement.policy_loss import explained_variance
from common.errors import InputError


class DistributedMeans:
    """Weighted sums by name, reduced over ranks at the end.

    Args:
        device: where they are kept.
        ranks: how many add theirs up.
    """

    def __init__(self, device: torch.device, ranks: int = 1) -> None:
        self.device, self.ranks = device, ranks
        self._found: dict[str, Tensor] = {}

    def add(self, name: str, values: Tensor, weights: Tensor | None = None) -> None:
        """Values of any shape, each once or with its weight."""
        values = values.detach().to(self.device, torch.float64)
        weights = torch.ones_like(values) if weights is None else weights.detach().to(values).expand_as(values)
        self._add(name, (values * weights).sum(), weights.sum())

    def add_part(self, name: str, part: Tensor, share: float) -> None:
        """A part of a number whose parts on all ranks add up, and which share of this rank's parts it is."""
        part = part.detach().to(self.device, torch.float64)
        self._add(name, part, torch.full_like(part, share / self.ranks))

    def _add(self, name: str, total: Tensor, weight: Tensor) -> None:
        pair = torch.stack((total, weight))
        self._found[name] = self._found[name] + pair if name in self._found else pair

    def include(self, other: "DistributedMeans") -> None:
        """Add all of another's."""
        for name, pair in other._found.items():
            self._found[name] = self._found[name] + pair if name in self._found else pair

    def means(self, reduce: Reduce = no_reduction) -> dict[str, float]:
        """Mean by name over all ranks, NaN of nothing; every rank has added to the same names."""
        if not self._found:
            return {}
        totals = reduce(torch.stack(list(self._found.values()))).tolist()
        return {name: s / n if n else math.nan for name, (s, n) in zip(self._found, totals, strict=True)}


@dataclass(frozen=True)
class Alarms:
    """Alarms: limits beyond which a metric is a sign of a reward being cheated rather than earned; each is logged as
    `alarms/NAME`, 0 or 1.

    Args:
        length_correlation: of responses' rewards with their lengths, within a batch: what is liked is length (Singhal
            et al. 2023 find it to be much of what reward models like).
        repetition: share of a response's n-grams that it has said before.
        unfinished: share of responses that end for lack of room.

    Raises:
        InputError: for a limit out of (0, 1].
    """

    length_correlation: float = 0.8
    repetition: float = 0.3
    unfinished: float = 0.5

    def __post_init__(self) -> None:
        for name in ("length_correlation", "repetition", "unfinished"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"alarms.{name}={getattr(self, name)}: must lie in (0, 1], 1 never rings")

    def ringing(self, correlation: float, repetition: float, stopped: float) -> dict[str, float]:
        """Alarms that ring, 0 or 1 by name."""
        found = {
            "length_correlation": correlation > self.length_correlation,
            "repetition": repetition > self.repetition,
            "unfinished": 1 - stopped > self.unfinished,
        }
        return {f"alarms/{name}": float(rings) for name, rings in found.items()}


def describe(
    experience: ExperienceBatch,
    sums: DistributedMeans,
    alarms: Alarms,
    reduce: Reduce = no_reduction,
    max_over_ranks: Reduce = no_reduction,
) -> dict[str, float]:
    """Metrics of a batch of rollouts over all ranks.

    Args:
        experience: the rollouts, after they were learned from.
        sums: metrics of the updates.
        alarms: limits.
        reduce, max_over_ranks: add sums up over the ranks; take the largest of all ranks'.
    """
    rollouts, scores = experience.rollouts, experience.scores
    lengths = rollouts.lengths.to(scores.device)
    sums.add("reward", scores)
    sums.add("reward_square", scores.double().square())
    sums.add("length", lengths)
    sums.add("stopped", rollouts.stopped)
    sums.add("kept", experience.kept)
    sums.add("repetition", torch.tensor([repetition(response.tokens) for response in rollouts.responses]))
    if experience.monitored_reward is not None:
        sums.add("monitored_reward", experience.monitored_reward)
    if experience.log_ratio is not None:
        sums.add("kl", sum_by_response(experience.log_ratio, lengths))
        for estimator in ESTIMATORS:
            sums.add(f"kl_per_token/{estimator}", estimate(estimator, experience.log_ratio))
    drift = experience.old - experience.sampled
    drift = drift[drift.isfinite()]
    sums.add("drift/kl", estimate("k3", -drift))
    sums.add("drift/ratio", drift.exp())
    found = sums.means(reduce)
    found["reward_std"] = math.sqrt(max(found.pop("reward_square") - found["reward"] ** 2, 0.0))
    found["drift/smallest_ratio"], found["drift/largest_ratio"] = extremes(drift.exp(), max_over_ranks)
    if experience.values is not None:
        assert experience.returns is not None
        variance = explained_variance(experience.values, experience.returns, reduce)
        found["critic/explained_variance"] = float(variance)
    found["length_correlation"] = correlation(lengths, scores, reduce)
    return found | alarms.ringing(found["length_correlation"], found["repetition"], found["stopped"])


def extremes(values: Tensor, max_over_ranks: Reduce = no_reduction) -> tuple[float, float]:
    """Smallest and largest value over all ranks; `max_over_ranks` takes the largest of all ranks'. NaN of nothing."""
    nothing = values.new_full((1,), -math.inf)
    pair = torch.stack((torch.cat((-values, nothing)).max(), torch.cat((values, nothing)).max()))
    smallest, largest = max_over_ranks(pair).tolist()
    return (-smallest, largest) if math.isfinite(largest) else (math.nan, math.nan)


def repetition(tokens: Sequence[int], n: int = 4) -> float:
    """Share of n-grams that occurred before in the same response (Welleck et al. 2020, section 6.1: seq-rep-4); 0 for
    one shorter than `n`.
    """
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def correlation(x: Tensor, y: Tensor, reduce: Reduce = no_reduction) -> float:
    """Pearson's correlation over all ranks' pairs; 0 where one of them does not vary."""
    x, y = x.double(), y.double()
    count, *totals = reduce(torch.stack((x.new_tensor(x.numel()), x.sum(), y.sum()))).unbind()
    x, y = (values - total / count for values, total in zip((x, y), totals, strict=True))
    xy, xx, yy = reduce(torch.stack(((x * y).sum(), (x * x).sum(), (y * y).sum()))).tolist()
    return xy / math.sqrt(xx * yy) if xx * yy > 0 else 0.0


def sample_rows(experience: ExperienceBatch, count: int, tokenizer: Any) -> list[dict[str, Any]]:
    """The first responses of a batch with their metrics, one dictionary each.

    Args:
        experience: the batch.
        count: responses at most.
        tokenizer: decodes prompts.
    """
    responses, lengths = experience.responses[:count], experience.rollouts.lengths.to(experience.scores.device)
    columns: dict[str, list[Any]] = {
        "prompt": [tokenizer.decode(response.prompt) for response in responses],
        "continuation": [response.text for response in responses],
        "reward": experience.scores[:count].tolist(),
    }
    if experience.monitored_reward is not None:
        columns["monitored_reward"] = experience.monitored_reward[:count].tolist()
    if experience.log_ratio is not None:
        columns["kl"] = sum_by_response(experience.log_ratio, lengths)[:count].tolist()
    columns["tokens"] = [len(response.tokens) for response in responses]
    columns["finish"] = [response.finish for response in responses]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

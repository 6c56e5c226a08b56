"""Mini-batches of a batch of rollouts, and the micro-batches by a budget of tokens in which models compute them.

Both are functions of sample numbers and sizes alone. A response's mini-batch does not depend on which rank holds it, so
that any number of ranks makes the same updates; micro-batches have a budget of tokens instead of responses, because
short and long responses cost differently, and every rank runs equally many, because ranks that share parameters run in
step.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import xxhash
from torch import Tensor

from alignment.reinforcement.advantages import Reduce, no_reduction
from alignment.reinforcement.rollouts import PackedRollouts, Rollouts
from common.errors import InputError


@dataclass(frozen=True)
class PPOUpdates:
    """Updates on a batch of rollouts.

    Args:
        epochs: passes over the batch; 4 is TRL's for PPO and Ziegler et al.'s (2019), GRPO takes 1.
        minibatches: updates per pass.
        microbatch_tokens: tokens, prompts and responses together, that go through a model at once.
        max_gradient_norm: of the actor and of the critic, each by itself; null clips nothing.
        target_kl: no further update once the policy has gone further than 1.5 times this from the one that drew the
            responses, in nats per token (Spinning Up: 0.01 to 0.05); the first is always made. Null never stops.

    Raises:
        InputError: for a value out of its range.
    """

    epochs: int = 4
    minibatches: int = 1
    microbatch_tokens: int = 8192
    max_gradient_norm: float | None = 1.0
    target_kl: float | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "minibatches", "microbatch_tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"optimization.{name}={getattr(self, name)}: must be at least 1")
        for name in ("max_gradient_norm", "target_kl"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"optimization.{name}={value}: must be above 0, or null")


@dataclass(frozen=True)
class Minibatch:
    """Responses of one update.

    Attributes:
        microbatches: numbers of this rank's responses, micro-batch by micro-batch; some may be empty.
        tokens, responses: their numbers over all ranks.
    """

    microbatches: list[list[int]]
    tokens: float
    responses: float

    @property
    def is_empty(self) -> bool:
        """Whether no rank has a response to learn from."""
        return not self.responses


def split_minibatches(
    rollouts: Rollouts,
    kept: Tensor,
    optimization: PPOUpdates,
    seed: int,
    epoch: int,
    reduce: Reduce,
    max_over_ranks: Reduce,
) -> list[Minibatch]:
    """The minibatches of an epoch.

    Args:
        rollouts: this rank's responses.
        kept: boolean [A], those that are learned from.
        optimization: number of minibatches, size of their micro-batches.
        seed, epoch: of who is in which.
        reduce, max_over_ranks: add sums up over the ranks; take the largest of all ranks' counts.
    """
    chosen_by_minibatch: list[list[int]] = [[] for _ in range(optimization.minibatches)]
    for number, is_kept in enumerate(kept.tolist()):
        if is_kept:
            position = rollouts.samples[number] * rollouts.group_size + number % rollouts.group_size
            chosen_by_minibatch[minibatch_of(position, optimization.minibatches, seed, epoch)].append(number)
    lengths = rollouts.lengths
    counts = [[float(lengths[chosen].sum()), float(len(chosen))] for chosen in chosen_by_minibatch]
    totals = reduce(torch.tensor(counts, dtype=torch.float64, device=kept.device)).tolist()
    cut = [split_microbatches(rollouts, chosen, optimization.microbatch_tokens) for chosen in chosen_by_minibatch]
    longest = max_over_ranks(torch.tensor([max(len(found), 1) for found in cut], device=kept.device)).tolist()
    return [
        Minibatch([*found, *[[]] * (many - len(found))], *total)
        for found, many, total in zip(cut, longest, totals, strict=True)
    ]


def minibatch_of(position: int, minibatches: int, seed: int, epoch: int) -> int:
    """Number of the minibatch that the response with a global position (sample number times group plus place) is in.

    Every run of `minibatches` neighboring responses is distributed in an order of its own, another one each epoch:
    minibatches are equally large, random, and no rank has to know all responses.
    """
    block, place = divmod(position, minibatches)

    def key(minibatch: int) -> int:
        return xxhash.xxh3_64_intdigest(f"{epoch}/{block}/{minibatch}".encode(), seed=seed)

    return sorted(range(minibatches), key=key)[place]


def split_microbatches(rollouts: Rollouts, chosen: Iterable[int], budget: int) -> list[list[int]]:
    """Micro-batches of a batch, within a budget of tokens.

    Args:
        rollouts: the responses.
        chosen: numbers of those that are to be cut.
        budget: tokens of a micro-batch at most; a response that alone has more is one by itself.

    Returns:
        The chosen numbers, each once, those to one prompt together where they fit.
    """
    bundles = rollouts.bundles(chosen, budget)
    sizes = [rollouts.size(bundle) for bundle in bundles]
    found: list[list[int]] = []
    room: list[int] = []
    # First fit, the largest first, which also puts those of like size together.
    for bundle, size in sorted(zip(bundles, sizes, strict=True), key=lambda pair: (-pair[1], pair[0])):
        fitting = next((place for place, free in enumerate(room) if free >= size), None)
        if fitting is None:
            found.append([])
            room.append(budget)
            fitting = len(found) - 1
        found[fitting] += bundle
        room[fitting] -= size
    return found


class ChunkedForward:
    """Forward passes without gradient over all responses, micro-batch by micro-batch; every rank makes equally many.

    Args:
        rollouts: responses of this rank.
        budget: tokens of a micro-batch.
        device: device of the models.
        max_over_ranks: maximum of all ranks' counts.
    """

    def __init__(
        self, rollouts: Rollouts, budget: int, device: torch.device, max_over_ranks: Reduce = no_reduction
    ) -> None:
        shortest = min(range(len(rollouts)), key=lambda number: rollouts.size([number]))
        microbatches = split_microbatches(rollouts, range(len(rollouts)), budget)
        # A rank that has nothing left to compute still takes part in gathering the weights.
        count = int(max_over_ranks(torch.tensor(len(microbatches), device=device)))
        idle = [[shortest]] * (count - len(microbatches))
        self.packed = [rollouts.pack(microbatch, device) for microbatch in [*microbatches, *idle]]
        self.tokens = int(rollouts.lengths.sum())
        self.device = device

    @torch.no_grad()
    def __call__(self, model: Callable[[PackedRollouts], Tensor]) -> Tensor:
        """Values of `model` for every token of the responses, float32 [T]."""
        found = torch.zeros(self.tokens, device=self.device)
        for packed in self.packed:
            found[packed.source] = model(packed).to(found)
        return found

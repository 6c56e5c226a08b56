"""Rollout engine: the interface behind which responses are decoded, with its decoding options.

Which engine decodes is swapped in YAML; what is learned from does not change. An engine gets the policy at every call,
since weights change between calls; whether it copies them or reads them in place is its own business.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from models.decoder import Decoder
from models.inference.generation import Generated
from models.inference.sampling import Sampling


@dataclass(frozen=True)
class Decoding:
    """Decoding options of a batch of rollouts.

    Args:
        max_new_tokens: tokens of a response at most, its stop token included.
        sampling: temperature, filters and seed.
        stop: token ids that end a response.
    """

    max_new_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    stop: Collection[int] = frozenset()


class RolloutEngine(ABC):
    """Decoder of prompts."""

    @abstractmethod
    def generate(
        self, policy: Decoder, prompts: Sequence[Sequence[int]], decoding: Decoding, rows: Sequence[int]
    ) -> list[Generated]:
        """One response per prompt, in their order.

        Args:
            policy: the decoder, unsharded, with the weights of this step.
            prompts: token ids.
            decoding: decoding options.
            rows: number of each draw, see `models.inference.generation.generate`.
        """

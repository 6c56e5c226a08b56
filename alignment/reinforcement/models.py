"""Actor, critic and reference of policy optimization: their initial weights, and what each computes of rollouts.

The critic is a model of its own, not a second output of the actor: one trunk would be cheaper and pulled two ways, by
two losses of different size. What can be shared is shared: an actor with an adapter is its own reference with the
adapter off, a reference may be kept in fewer bits or on the CPU, and an estimator of advantages that needs no values
has no critic.

Shape suffixes: T tokens of the responses in a packed row.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
import xxhash
from torch import Tensor, nn

from alignment.preferences.checks import require_adapter
from alignment.reinforcement.rollouts import PackedRollouts
from alignment.rewards.base import Reward
from alignment.rewards.reward_model_score import RewardModelScore, open_reward_model
from common.errors import InputError
from models.decoder import Decoder, DecoderConfig
from models.initialization import WeightLookup, materialize
from models.lora import lora_disabled
from models.packed_batch import response_log_probabilities, response_states
from models.weights.source import WeightSource

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class ScoreScale:
    """Scale of a reward model's scores as rewards, and so of the values of a critic that begins as it:
    (score - shift) / scale, see `alignment.RewardModelScore`."""

    shift: float = 0.0
    scale: float = 1.0


class ActorCriticModels:
    """The decoders that policy optimization computes with.

    The LightningModule registers them as `decoder`, `critic` and `reference_decoder`; here they have their roles.

    Args:
        config: shape of the actor.
        initial_seed: seed of initial weights that come from nowhere else.
        has_critic: whether the advantage needs values.
        critic_init_from: reward model that the critic begins as (Stiennon et al. 2020, section 3.4; Ouyang et al.
            2022); None begins with the actor's trunk and an output of zeros.
        reference: `online`, a frozen copy of the initial weights, adapters merged; `adapter_off`, the actor without its
            adapter; None, none.
        reference_precision: precision of the copy's weights; None takes the actor's.
        reference_on_cpu: keep the copy in main memory, whole on every rank, and compute it there: slow, but a GPU has
            room for one model more. It is in no checkpoint and is made again from `init_from`.

    Attributes:
        score_scale: of the critic's output; that of the reward whose model it begins as.
        critic, reference: the decoders; None before `build`, and where there is none.

    Raises:
        InputError: for a reference that cannot be.
    """

    def __init__(
        self,
        config: DecoderConfig,
        initial_seed: int,
        has_critic: bool,
        critic_init_from: str | None = None,
        reference: Literal["online", "adapter_off"] | None = "online",
        reference_precision: Literal["float32", "bfloat16"] | None = None,
        reference_on_cpu: bool = False,
    ) -> None:
        require_adapter(reference, config, instead="online")
        if (reference_precision is not None or reference_on_cpu) and reference != "online":
            given = f"precision={reference_precision}" if reference_precision is not None else "on_cpu=true"
            raise InputError(f"reference_{given}: only a reference=online has weights of its own")
        if critic_init_from is not None and not has_critic:
            raise InputError(f"critic_init_from={critic_init_from}: this advantage needs no critic, leave it out")
        self.config, self.initial_seed = config, initial_seed
        self.has_critic, self.critic_init_from = has_critic, critic_init_from
        self.reference_kind, self.reference_precision = reference, reference_precision
        self.reference_on_cpu = reference_on_cpu
        self.critic_source: WeightSource | None = None
        self.score_scale = ScoreScale()
        self._actor: Decoder | None = None
        self.critic: Decoder | None = None
        self.reference: Decoder | None = None

    @property
    def is_built(self) -> bool:
        """Whether the models exist, be it on the meta device."""
        return self._actor is not None

    @property
    def actor(self) -> Decoder:
        """The policy."""
        assert self._actor is not None
        return self._actor

    @property
    def has_reference(self) -> bool:
        """Whether there is a reference, be it the actor with its adapter off."""
        return self.reference_kind is not None

    # Initial weights

    def open_critic(self, tokenizer: Any, tokenizer_of: Callable[[Path], Any], rewards: Iterable[Reward] = ()) -> None:
        """Open the weights of `critic_init_from`, if there is one.

        Args:
            tokenizer: tokenizer of the data.
            tokenizer_of: tokenizer of the run or file at a path, see `common.contracts.WeightSourcesUser`.
            rewards: that are learned from; one by the same reward model has the scale of the critic's values.

        Raises:
            InputError: for a critic that is not a reward model or has another vocabulary, tokenizer or template.
        """
        if self.critic_init_from is None:
            return
        path = Path(self.critic_init_from)
        self.begin_critic_from(open_reward_model("critic_init_from", path, tokenizer, tokenizer_of))
        for reward in rewards:
            if isinstance(reward, RewardModelScore) and Path(reward.init_from).resolve() == path.resolve():
                self.score_scale = ScoreScale(reward.shift, reward.scale)

    def begin_critic_from(self, source: WeightSource) -> None:
        """Take the critic's initial weights from a reward model.

        Raises:
            InputError: see `open_critic`.
        """
        config = source.whole_config()
        if not config.scalar_output or config.vocabulary_size != self.config.vocabulary_size:
            raise InputError(
                f"critic_init_from={self.critic_init_from}: a critic begins as a reward model of the actor's "
                f"{self.config.vocabulary_size} token ids, this has {config.vocabulary_size} and "
                f"{'one output' if config.scalar_output else 'an output per token'}"
            )
        self.critic_source = source

    @property
    def critic_config(self) -> DecoderConfig:
        """Shape of the critic."""
        if self.critic_source is not None:
            return self.critic_source.whole_config()
        return replace(self.config, scalar_output=True, tied_embeddings=False, lora=None)

    def build(self, actor: Decoder, actor_source: WeightSource | None) -> None:
        """Build critic and reference beside the actor, on the meta device, except for a reference on the CPU.

        Args:
            actor: built already, perhaps on the meta device.
            actor_source: weights that the actor begins with; None draws them.
        """
        self._actor, self.actor_source = actor, actor_source
        with torch.device("meta"):
            self.critic = Decoder(self.critic_config) if self.has_critic else None
            if self.reference_kind == "online":
                self.reference = Decoder(replace(self.config, lora=None)).requires_grad_(False)
        if self.reference is not None and self.reference_precision is not None:
            self.reference.to(DTYPES[self.reference_precision])
        if self.reference is not None and self.reference_on_cpu:
            with torch.device("cpu"):
                materialize(self.reference, torch.device("cpu"), self.initial_seed, stored=self.merged_weight)

    def materialize(self, part: nn.Module, device: torch.device, actor_weight: WeightLookup) -> None:
        """Allocate a model, or a part of one, with its initial weights.

        Args:
            part: one of the models, or a sub-module.
            device: where it is allocated.
            actor_weight: initial weight of the actor by its name.
        """
        for model, weights in self._with_weights(actor_weight):
            if any(module is part for module in model.modules()):
                materialize(model, device, self.initial_seed, part, weights)

    def _with_weights(self, actor_weight: WeightLookup) -> Iterator[tuple[Decoder, WeightLookup]]:
        roles = ((self._actor, actor_weight), (self.critic, self.critic_weight), (self.reference, self.merged_weight))
        yield from ((model, weights) for model, weights in roles if model is not None)

    def merged_weight(self, name: str) -> Tensor | None:
        """Initial parameter of the actor with its adapter merged; None where it is drawn."""
        return None if self.actor_source is None else self.actor_source.merged(name)

    def critic_weight(self, name: str) -> Tensor | None:
        """Initial parameter of the critic: the reward model's, or the actor's with an output of zeros."""
        if self.critic_source is not None:
            return self.critic_source.merged(name)
        return torch.zeros(1, self.config.width) if name == "output.weight" else self.merged_weight(name)

    def trained(self) -> list[tuple[str, list[nn.Parameter]]]:
        """Parameters by optimizer, each with the prefix of its metrics."""
        models: dict[str, Decoder | None] = {"": self.actor, "critic/": self.critic}
        return [(name, list(model.parameters())) for name, model in models.items() if model is not None]

    # Outputs

    def log_probabilities(self, packed: PackedRollouts, temperature: float) -> Tensor:
        """log pi of every token of the responses under the actor, [T]."""
        return response_log_probabilities(self.actor, packed, temperature)

    def reference_log_probabilities(self, packed: PackedRollouts, temperature: float) -> Tensor:
        """log pi_reference of every token of the responses, [T]."""
        decoder = self._reference_decoder
        with lora_disabled(decoder) if decoder is self.actor else nullcontext():
            return response_log_probabilities(decoder, packed.to(device_of(decoder)), temperature)

    def kl_from_reference(self, packed: PackedRollouts, temperature: float) -> Tensor:
        """Exact KL(policy || reference) of the next token before each token of the responses, in nats, [T]."""
        hidden = []
        models = (self.actor, self._reference_decoder)
        for model, is_reference in zip(models, (False, True), strict=True):
            with lora_disabled(model) if is_reference and model is self.actor else nullcontext():
                hidden.append(response_states(model, packed.to(device_of(model))) / temperature)
        return self.actor.output.kl(hidden[0], models[1].output, hidden[1])

    def values(self, packed: PackedRollouts) -> Tensor:
        """Values by the critic before each token of the responses, float32 [T]."""
        assert self.critic is not None
        return critic_values(self.critic, packed, self.score_scale)

    @property
    def _reference_decoder(self) -> Decoder:
        return self.reference or self.actor

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the critic's shape, and the checksum of a reference that the checkpoint does not hold."""
        if self.critic is not None:
            checkpoint["critic_config"] = asdict(self.critic.config)
        if self.reference_on_cpu:
            checkpoint["reference_checksum"] = self.reference_checksum

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint with another critic or reference before its tensors are copied.

        Raises:
            InputError: for one.
        """
        if checkpoint.get("critic_config") != (asdict(self.critic_config) if self.has_critic else None):
            raise InputError(
                "the checkpoint holds another critic, or none: restore advantage and critic_init_from, or give this "
                "run a trainer.default_root_dir of its own"
            )
        checksum = checkpoint.get("reference_checksum")
        if (checksum is not None) != self.reference_on_cpu:
            raise InputError(
                f"the checkpoint was written with reference_on_cpu={str(not self.reference_on_cpu).lower()}: restore "
                "it, or give this run a trainer.default_root_dir of its own"
            )
        if self.reference_on_cpu and self.reference is not None and checksum != self.reference_checksum:
            raise InputError(
                "init_from gives another reference than the checkpoint was trained against: restore it, or give this "
                "run a trainer.default_root_dir of its own"
            )

    @cached_property
    def reference_checksum(self) -> str:
        """xxh3 checksum of all weights of a reference that checkpoints do not hold."""
        assert self.reference is not None
        sums = xxhash.xxh3_64()
        for parameter in self.reference.parameters():
            sums.update(parameter.detach().contiguous().view(torch.uint8).numpy().tobytes())
        return str(sums.hexdigest())


def critic_values(critic: Decoder, packed: PackedRollouts, score_scale: ScoreScale = ScoreScale()) -> Tensor:
    """Expected return before each token of the responses is drawn, float32 [T]."""
    return (critic.output.scores(response_states(critic, packed)) - score_scale.shift) / score_scale.scale


def device_of(decoder: Decoder) -> torch.device:
    """Device of a decoder's weights."""
    return decoder.tok_embeddings.weight.device

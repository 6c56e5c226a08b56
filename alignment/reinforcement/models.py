"""The models that learn from rewards together: actor, critic and reference, and which weights each begins with.

The critic is a model of its own, not a second output of the actor: one trunk would be cheaper and pulled two ways, by
two losses of different size. What can be shared is shared: an actor with an adapter is its own reference with the
adapter off, a reference may be kept in fewer bits or on the CPU, and an estimator of advantages that needs no values
has no critic.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any, Literal, cast

import torch
import xxhash
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy
from torch import Tensor, nn

from alignment.preferences.reward_model import refuse_z_loss
from alignment.reinforcement.experience import critic_values, log_probabilities
from alignment.reinforcement.rollouts import PackedRollouts
from common.errors import InputError
from models.decoder import Decoder, DecoderConfig, WeightLookup, materialize
from models.language_model import LanguageModel
from models.lora import lora_disabled
from models.losses import token_divergence
from models.optimizers.adamw import OptimizerFactory

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class ActorCritic(LanguageModel):
    """Builds the models; `decoder` is the actor.

    Args:
        has_critic: whether values are needed.
        critic_init_from: reward model that the critic begins as (Stiennon et al. 2020, section 3.4; Ouyang et al.
            2022); null begins with the actor's trunk and expects 0 of everything.
        critic_optimizer: of the critic; null takes the actor's.
        reference: `online`, a frozen copy of the initial weights, adapters merged; `adapter_off`, the actor without its
            adapter; null, none.
        reference_precision: of the copy's weights; null takes the actor's.
        reference_on_cpu: keep the copy in main memory, whole on every rank, and compute it there: slow, but a GPU has
            room for one model more. It is in no checkpoint and is made again from `init_from`.
        further: arguments of `LanguageModel`.

    Raises:
        InputError: for a reference that cannot be.
    """

    def __init__(
        self,
        has_critic: bool,
        critic_init_from: str | None,
        critic_optimizer: OptimizerFactory | None,
        reference: Literal["online", "adapter_off"] | None,
        reference_precision: Literal["float32", "bfloat16"] | None,
        reference_on_cpu: bool,
        **further: Any,
    ) -> None:
        super().__init__(**further)
        refuse_z_loss(self)
        if reference == "adapter_off" and self.config.lora is None:
            raise InputError("reference=adapter_off: there is no adapter, give model.init_args.lora or take online")
        if (reference_precision is not None or reference_on_cpu) and reference != "online":
            given = f"precision={reference_precision}" if reference_precision is not None else "on_cpu=true"
            raise InputError(f"reference_{given}: only a reference=online has weights of its own")
        if critic_init_from is not None and not has_critic:
            raise InputError(f"critic_init_from={critic_init_from}: this advantage needs no critic, leave it out")
        self.has_critic, self.critic_init_from = has_critic, critic_init_from
        self.critic_optimizer = critic_optimizer or self.optimizer_factory
        self.reference, self.reference_precision = reference, reference_precision
        self.reference_on_cpu = reference_on_cpu
        self.critic_stored: Any = None
        self.critic: Decoder | None = None
        self.reference_decoder: Decoder | None = None

    # Models

    def load_critic_from(self, stored: Any) -> None:
        """Take the weights of `critic_init_from`, which whoever may open files has opened.

        Args:
            stored: has `whole_config()`, and `merged(name)` for every parameter of the decoder.

        Raises:
            InputError: for a critic that is no reward model or has another vocabulary.
        """
        config = stored.whole_config()
        if not config.scalar_output or config.vocabulary_size != self.config.vocabulary_size:
            raise InputError(
                f"critic_init_from={self.critic_init_from}: a critic begins as a reward model of the actor's "
                f"{self.config.vocabulary_size} token ids, this has {config.vocabulary_size} and "
                f"{'one output' if config.scalar_output else 'an output a token'}"
            )
        self.critic_stored = stored

    @property
    def critic_config(self) -> DecoderConfig:
        """Shape of the critic."""
        if self.critic_stored is not None:
            return cast(DecoderConfig, self.critic_stored.whole_config())
        return replace(self.config, scalar_output=True, tied_embeddings=False, lora=None)

    def configure_model(self) -> None:
        """The actor, and critic and reference where there are any."""
        super().configure_model()
        if self.has_critic and self.critic is None:
            with torch.device("meta"):
                self.critic = Decoder(self.critic_config)
            self._allocate(self.critic)
        if self.reference == "online" and self.reference_decoder is None:
            with torch.device("meta"):
                reference = Decoder(replace(self.config, lora=None)).requires_grad_(False)
            if self.reference_precision is not None:
                reference.to(DTYPES[self.reference_precision])
            if self.reference_on_cpu:
                with torch.device("cpu"):
                    materialize(reference, torch.device("cpu"), self.initial_seed, stored=self.merged_weight)
                # No sub-module: whoever moves, shards or saves those is to leave it where it is.
                self.__dict__["reference_decoder"] = reference
            else:
                self.reference_decoder = reference
                self._allocate(reference)

    def _allocate(self, model: Decoder) -> None:
        if torch.get_default_device().type != "meta":
            self.materialize(model, self.device)

    def roles(self) -> Iterator[tuple[Decoder, WeightLookup]]:
        """Every model there is, and what its parameters begin with."""
        yield cast(Decoder, self.decoder), self.initial_weight
        if self.critic is not None:
            yield self.critic, self.initial_critic_weight
        if self.reference_decoder is not None:
            yield self.reference_decoder, self.merged_weight

    def materialize(self, part: nn.Module, device: torch.device) -> None:
        """Allocate a model, or a part of one, with its weights."""
        for model, weights in self.roles():
            if any(module is part for module in model.modules()):
                materialize(model, device, self.initial_seed, part, weights)

    def merged_weight(self, name: str) -> Tensor | None:
        """The actor's initial parameter with its adapter added; None where it is to be drawn."""
        return None if self.stored is None else cast(Any, self.stored).merged(name)

    def initial_critic_weight(self, name: str) -> Tensor | None:
        """The reward model's, or the actor's with an output of zeros; None where it is to be drawn."""
        if self.critic_stored is not None:
            return cast(Tensor, self.critic_stored.merged(name))
        return torch.zeros(1, self.config.width) if name == "output.weight" else self.merged_weight(name)

    def build_optimizers(self) -> list[torch.optim.Optimizer]:
        """The actor's, and the critic's, which has a learning rate of its own."""
        assert self.decoder is not None
        optimizers = [self.optimizer_factory.build(self.decoder.named_parameters())]
        if self.critic is not None:
            optimizers.append(self.critic_optimizer.build(self.critic.named_parameters()))
        return optimizers

    def learners(self) -> list[tuple[str, list[nn.Parameter]]]:
        """What each optimizer trains, and what its metrics are called."""
        models = {"": self.decoder, "critic/": self.critic}
        return [(name, list(model.parameters())) for name, model in models.items() if model is not None]

    # Refusals and checkpoints

    def preflight(self, trainer: Any) -> None:
        """Refuse layouts in which nobody can decode, and settings that Lightning has no say in here."""
        super().preflight(trainer)
        name = type(self).__name__
        if trainer.gradient_clip_val:
            raise InputError(
                f"trainer.gradient_clip_val={trainer.gradient_clip_val}: {name} clips each model by itself, set it to "
                "null and model.init_args.optimization.max_gradient_norm instead"
            )
        if trainer.accumulate_grad_batches != 1:
            raise InputError(
                f"trainer.accumulate_grad_batches={trainer.accumulate_grad_batches}: {name} cuts batches itself, set "
                "it to 1 and model.init_args.optimization.microbatch_tokens instead"
            )
        sizes = getattr(trainer.strategy, "sizes", None)
        if sizes is not None and max(sizes.tp, sizes.pp) > 1:
            raise InputError(
                f"{name} on {sizes}: answers are decoded by a whole model on every rank, take data_parallel_shard_size "
                "instead"
            )
        if isinstance(trainer.strategy, FSDPStrategy | DeepSpeedStrategy):
            raise InputError(
                f"trainer.strategy={type(trainer.strategy).__name__}: {name} decodes with whole weights, take "
                "strategies.TensorParallelStrategy, which is FSDP2"
            )
        stored = cast(Any, self.stored)
        if self.reference == "adapter_off" and stored is not None and stored.config.get("lora") is not None:
            raise InputError(
                f"reference=adapter_off: init_from={stored.path} holds an adapter already, without which it is another "
                "model; merge it by `main.py convert`, or take online"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.critic is not None:
            checkpoint["critic_config"] = asdict(self.critic.config)
        if self.reference_on_cpu:
            checkpoint["reference_checksum"] = self.reference_checksum

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint with another critic before its tensors are copied."""
        super().on_load_checkpoint(checkpoint)
        saved = checkpoint.get("critic_config")
        mine = asdict(self.critic_config) if self.has_critic else None
        if saved != mine:
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
        if self.reference_on_cpu and self.reference_decoder is not None and checksum != self.reference_checksum:
            raise InputError(
                f"init_from={self.init_from} gives another reference than the checkpoint was trained against: restore "
                "it, or give this run a trainer.default_root_dir of its own"
            )

    @cached_property
    def reference_checksum(self) -> str:
        """Of all weights of a reference that checkpoints do not hold."""
        assert self.reference_decoder is not None
        sums = xxhash.xxh3_64()
        for parameter in self.reference_decoder.parameters():
            sums.update(parameter.detach().contiguous().view(torch.uint8).numpy().tobytes())
        return str(sums.hexdigest())

    # What each says of tokens

    def reference_log_probabilities(self, packed: PackedRollouts, temperature: float) -> Tensor:
        """log pi_reference of every token of the answers, [T]."""
        decoder = self.reference_decoder or cast(Decoder, self.decoder)
        with lora_disabled(decoder) if decoder is self.decoder else nullcontext():
            return log_probabilities(decoder, packed.to(device_of(decoder)), temperature)

    def kl_from_reference(self, packed: PackedRollouts, temperature: float) -> Tensor:
        """KL(policy || reference) of the next token before each token of the answers, exact, in nats, [T]."""
        models, hidden = [cast(Decoder, self.decoder), self.reference_decoder or cast(Decoder, self.decoder)], []
        for model, is_reference in zip(models, (False, True), strict=True):
            with lora_disabled(model) if is_reference and model is self.decoder else nullcontext():
                hidden.append(packed.to(device_of(model)).hidden(model).to(self.device) / temperature)
        policy, reference = (model.output.weight.to(self.device) for model in models)
        return token_divergence(hidden[0], policy, hidden[1], reference)

    def values(self, packed: PackedRollouts) -> Tensor:
        """What the critic expects before each token of the answers, [T]."""
        assert self.critic is not None
        return critic_values(self.critic, packed)

    # Ranks

    @property
    def ranks(self) -> int:
        """Data-parallel processes."""
        return int((self.trainer.distributed_sampler_kwargs or {"num_replicas": 1})["num_replicas"])

    def gradients_kept_local(self) -> AbstractContextManager[None]:
        """No exchange of gradients yet: more are to come."""
        block = getattr(self.trainer.strategy, "block_backward_sync", None)
        return nullcontext() if block is None else cast(AbstractContextManager[None], block())

    def zero_gradients(self) -> None:
        """Forget the gradients of all that is trained."""
        for optimizer in self.trainer.optimizers:
            optimizer.zero_grad()

    def release_gathered_weights(self) -> None:
        """Forget what forward passes without a backward pass gathered: updates would leave it behind."""
        release = getattr(self.trainer.strategy, "release_gathered_weights", None)
        if release is not None:
            release()

    def sum_over_ranks(self, sums: Tensor) -> Tensor:
        """The same sums of all ranks' data together."""
        return cast(Tensor, self.trainer.strategy.reduce(sums.clone(), reduce_op="sum"))

    def most_over_ranks(self, counts: Tensor) -> Tensor:
        """The largest of all ranks' counts."""
        return cast(Tensor, self.trainer.strategy.reduce(counts.clone(), reduce_op="max"))


def device_of(decoder: Decoder) -> torch.device:
    """Where a decoder computes."""
    return decoder.tok_embeddings.weight.device

"""A Llama-style decoder (Touvron et al. 2023): pre-norm blocks of grouped-query attention and SwiGLU.

One plain class for every size and family member: what differs lives in `DecoderConfig`, never in a subclass.
Sub-modules follow the name contract the strategies rely on: `tok_embeddings`, `layers.<i>`, `norm`, `output`.
Weights are drawn from a generator seeded by (seed, parameter name), so that every parallel layout, and every
order of construction, begins with the same numbers; one global seed would be simpler and break both.
"""

from collections.abc import Callable
from typing import cast

import torch
import xxhash
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from common.errors import InputError
from models.attention import Attention, AttentionPattern
from models.config import DecoderConfig
from models.head import OutputHead
from models.kv_cache import KeyValueCache
from models.layers import RMSNorm, SwiGLU, compute_dtype
from models.lora import add_lora
from models.mixture_of_experts import SparseFeedForward


class DecoderBlock(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width, config.norm_epsilon)
        self.attention = Attention(config)
        self.feed_forward_norm = RMSNorm(config.width, config.norm_epsilon)
        self.feed_forward = (
            SwiGLU(config.width, config.feed_forward_width) if config.experts is None else SparseFeedForward(config)
        )

    def forward(
        self, x_BTC: Tensor, layout: AttentionPattern, cache: KeyValueCache | None = None, layer: int = 0
    ) -> Tensor:
        x_BTC = x_BTC + self.attention(self.attention_norm(x_BTC), layout, cache, layer)
        return x_BTC + self.feed_forward(self.feed_forward_norm(x_BTC))


class Decoder(nn.Module):
    """The whole decoder. `forward` ends at the last norm: losses and sampling call the methods of `output`.

    A stage of a pipeline is this class with sub-modules left out: without `tok_embeddings` it takes the hidden states
    of the stage before in place of tokens, without `norm` it ends at its last block.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.tok_embeddings = nn.Embedding(config.vocabulary_size, config.width)
        self.layers = nn.ModuleDict({str(index): DecoderBlock(config) for index in range(config.layers)})
        self.norm = RMSNorm(config.width, config.norm_epsilon)
        self.output = OutputHead(config.width, 1 if config.scalar_output else config.vocabulary_size)
        if config.tied_embeddings:
            self.output.weight = self.tok_embeddings.weight
        if config.lora is not None:
            self.requires_grad_(False)
            add_lora(self.layers, config.lora)
            self.output.weight.requires_grad_(config.scalar_output)

    def forward(
        self,
        tokens_BT: Tensor,
        document_ids_BT: Tensor | None = None,
        cache: KeyValueCache | None = None,
        branch_ids_BT: Tensor | None = None,
    ) -> Tensor:
        """Hidden states after the last norm.

        Args:
            tokens_BT: int64 token ids (hidden states where there is no embedding).
            document_ids_BT: integers, equal for neighbors of one document; None means one document a row.
            cache: takes the keys and values of whole prompts, packed as documents; or, without `document_ids_BT`, of
                one token a slot, which sees what its slot holds.
            branch_ids_BT: 0 for a document's prompt, other integers for what continues it; None is no branches.

        Returns:
            [B, T, C] in the dtype of the computation.
        """
        dtype = compute_dtype(next(self.layers.parameters()))
        if document_ids_BT is not None:
            layout = AttentionPattern.of(document_ids_BT, self.config, dtype, branch_ids_BT)
        elif cache is not None:
            layout = AttentionPattern.decoding(cache, self.config)
        else:
            layout = AttentionPattern.causal(tokens_BT, self.config, dtype)
        x_BTC = tokens_BT if self.tok_embeddings is None else self.tok_embeddings(tokens_BT)
        for index, block in self.layers.items():
            x_BTC = block(x_BTC, layout, cache, int(index))
        return x_BTC if self.norm is None else self.norm(x_BTC)


def auxiliary_loss(decoder: Decoder) -> Tensor | None:
    """Mean over blocks of what their experts add to the loss of the last batch; None without experts."""
    if decoder.config.experts is None:
        return None
    losses = [
        cast(Tensor, module.auxiliary_loss) for module in decoder.modules() if isinstance(module, SparseFeedForward)
    ]
    return torch.stack(losses).mean()


def draw_weight(config: DecoderConfig, name: str, shape: torch.Size, seed: int) -> Tensor:
    """Initial value of one parameter, float32 on the CPU, from a generator of its own seeded by (seed, name).

    Matrices are normal with `initial_std`; those that write into the residual stream (`wo`, `w2`) are divided by
    sqrt(2 * layers), so that its variance does not grow with depth (Radford et al. 2019, section 2.3). Norms are 1,
    biases 0.
    A scalar output takes 1 / sqrt(width + 1) (Stiennon et al. 2020, appendix). Adapters begin as nothing: their first
    factor has 1 / sqrt(its input width), their second is 0 (Hu et al. 2021, section 4.1).
    """
    if name.endswith(".bias"):
        return torch.zeros(shape)
    if len(shape) < 2:
        return torch.ones(shape)
    if name.endswith("lora_b"):
        return torch.zeros(shape)
    std = config.initial_std
    if config.scalar_output and name == "output.weight":
        std = (config.width + 1) ** -0.5
    if name.endswith("lora_a"):
        std = shape[1] ** -0.5
    if name.endswith(("wo.weight", "w2.weight", "feed_forward.w2")):
        std /= (2 * config.layers) ** 0.5
    generator = torch.Generator().manual_seed(xxhash.xxh3_64_intdigest(name.encode(), seed=seed) >> 1)
    # Drawn on the CPU in float32 whatever the device, whose own generators differ.
    return torch.randn(shape, generator=generator, device="cpu", dtype=torch.float32) * std


WeightLookup = Callable[[str], Tensor | None]
"""A stored parameter by its name in the decoder, whole; None for one that is to be drawn."""


@torch.no_grad()
def materialize(
    decoder: Decoder, device: torch.device, seed: int, part: nn.Module | None = None, stored: WeightLookup | None = None
) -> None:
    """Allocate what is still on the meta device and give it its weights, stored or drawn; tied parameters stay one.

    Args:
        decoder: gives the names, which seed the generators.
        device: where to allocate.
        seed: of all weights that are drawn.
        part: sub-module to materialize; by default the whole decoder.
        stored: weights to begin with instead.

    Raises:
        InputError: when a stored weight has another shape.
    """
    names = {parameter: name for name, parameter in decoder.named_parameters()}
    made: dict[nn.Parameter, nn.Parameter] = {}
    for module in (part or decoder).modules():
        # `Module.to_empty` would make two parameters of a tied one.
        for key, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            if parameter.is_meta:
                if parameter not in made:
                    name = names[parameter]
                    if decoder.config.tied_embeddings and name == "output.weight":
                        name = "tok_embeddings.weight"  # a pipeline's last stage holds a copy of the first one's matrix
                    value = stored(name) if stored is not None else None
                    if value is None:
                        value = draw_weight(decoder.config, name, parameter.shape, seed)
                    elif value.shape != parameter.shape:
                        raise InputError(
                            f"init_from holds {name} with shape {tuple(value.shape)}, this model needs "
                            f"{tuple(parameter.shape)}: restore the shape it was trained with"
                        )
                    made[parameter] = nn.Parameter(
                        _as(parameter, value.to(device, parameter.dtype)), requires_grad=parameter.requires_grad
                    )
                setattr(module, key, made[parameter])


def build_decoder(config: DecoderConfig, seed: int = 0, device: torch.device | str = "cpu") -> Decoder:
    """A decoder with its initial weights, allocated once."""
    with torch.device("meta"):
        decoder = Decoder(config)
    materialize(decoder, torch.device(device), seed)
    return decoder


def _as(like: Tensor, whole: Tensor) -> Tensor:
    """`whole`, or the shard of it that this process holds where `like` is a DTensor."""
    if isinstance(like, DTensor):
        return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)
    return whole

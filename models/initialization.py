"""Weight initialization: drawn or stored values of a decoder's parameters, the same for every parallel layout.

Weights are drawn from a generator seeded by (seed, parameter name), so that every layout, and every order of
construction, starts from the same numbers; one global seed would be simpler and break both. Each value is drawn whole
on the CPU, which costs seconds for large matrices.
"""

from collections.abc import Callable

import torch
import xxhash
from torch import Tensor, nn

from common.errors import InputError
from models.config import DecoderConfig
from models.decoder import Decoder
from models.device import is_dtensor


def draw_weight(config: DecoderConfig, name: str, shape: torch.Size, seed: int) -> Tensor:
    """Initial value of one parameter, float32 on the CPU, from a generator of its own seeded by (seed, name).

    Matrices are normal with `initial_std`; those that write into the residual stream (`wo`, `w2`) are divided by
    sqrt(2 * layers), so that its variance does not grow with depth (Radford et al. 2019, section 2.3). Norms are 1,
    biases 0.
    A scalar output has 1 / sqrt(width + 1) (Stiennon et al. 2020, appendix). An adapter starts as zero: its first
    factor has 1 / sqrt(its input width), its second is 0 (Hu et al. 2021, section 4.1).
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
"""Stored parameter by its name in the decoder, whole; None for one that is drawn."""


@torch.no_grad()
def materialize(
    decoder: Decoder, device: torch.device, seed: int, part: nn.Module | None = None, stored: WeightLookup | None = None
) -> None:
    """Allocate parameters that are still on the meta device, with their stored or drawn weights; tied ones stay tied.

    Args:
        decoder: decoder whose parameter names seed the generators.
        device: device to allocate on.
        seed: seed of the weights that are drawn.
        part: sub-module to materialize; the whole decoder by default.
        stored: weights to start from instead.

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
    """Decoder with its initial weights, allocated once."""
    with torch.device("meta"):
        decoder = Decoder(config)
    materialize(decoder, torch.device(device), seed)
    return decoder


def _as(like: Tensor, whole: Tensor) -> Tensor:
    """The whole tensor, or this rank's shard of it where `like` is a DTensor."""
    if is_dtensor(like):
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)
    return whole

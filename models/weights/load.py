"""Loading a decoder for inference: whole, frozen, from any checkpoint format.

Adapters are merged, so that one code path serves every model; the price is that an adapter cannot be turned off again.
"""

from typing import Protocol

import torch

from common.compute.cpu_threads import watch_spin
from models.config import DecoderConfig
from models.decoder import Decoder
from models.device import default_device
from models.initialization import materialize


class StoredDecoder(Protocol):
    """Stored decoder, as `models.weights.source.WeightSource` reads it."""

    def whole_config(self) -> DecoderConfig:
        """Shape without adapters."""

    def merged(self, name: str) -> torch.Tensor:
        """Parameter by its name, its adapter added."""


def load_decoder(
    source: StoredDecoder, device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> Decoder:
    """Decoder with its stored weights, in evaluation mode and without gradients.

    What computes with it shares its cores well from here on: `common.compute.cpu_threads.watch_spin` begins.

    Args:
        source: `WeightSource` of a run, a checkpoint, a converted file or a Hugging Face folder.
        device: place of the weights; the accelerator by default, the CPU where there is none.
        dtype: precision of the weights.

    Raises:
        InputError: when a weight is missing or has another shape.
    """
    watch_spin(torch.get_num_threads())
    with torch.device("meta"):
        decoder = Decoder(source.whole_config()).to(dtype)
    materialize(decoder, device or default_device(), 0, stored=source.merged)
    return decoder.eval().requires_grad_(False)

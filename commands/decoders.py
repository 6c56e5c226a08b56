"""Decoders for inference: whole models in memory, adapters merged, on the machine's accelerator."""

import torch

from models.decoder import Decoder, materialize
from models.weights.source import WeightSource


def inference_device() -> torch.device:
    """The machine's accelerator, or its CPU where there is none."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return device or torch.device("cpu")


def load_decoder(
    stored: WeightSource, device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> Decoder:
    """A decoder that is ready to score and to generate.

    Args:
        stored: weights of a run, a checkpoint or a file.
        device: where to place it; by default `inference_device`.
        dtype: of the weights.
    """
    with torch.device("meta"):
        decoder = Decoder(stored.whole_config()).to(dtype)
    materialize(decoder, device or inference_device(), 0, stored=stored.merged)
    return decoder.eval().requires_grad_(False)

"""Rollout engine of the trainer's own decoder: same weights, same process, same precision.

There is no copy of the weights and no server, at the price of fewer tokens per second on a GPU than an engine made for
decoding. A response depends on the weights and on (seed, sample number, place in its group), never on what is decoded
beside it: any layout and any restart draws the same responses.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from alignment.reinforcement.engines.base import Decoding, RolloutEngine
from common.errors import InputError
from models.decoder import Decoder
from models.inference.generation import Generated, generate


class DecoderEngine(RolloutEngine):
    """`models.inference.generation` with the trainer's own weights and precision.

    Args:
        slots: responses decoded together; each takes memory for keys and values of the longest prompt and response.
        cuda_graphs: replay of recorded decoding steps; pays for long responses on a GPU.

    Raises:
        InputError: for no slots.
    """

    def __init__(self, slots: int = 64, cuda_graphs: bool = False) -> None:
        if slots < 1:
            raise InputError(f"engine.slots={slots}: must be at least 1")
        self.slots, self.cuda_graphs = slots, cuda_graphs

    def generate(
        self, policy: Decoder, prompts: Sequence[Sequence[int]], decoding: Decoding, rows: Sequence[int]
    ) -> list[Generated]:
        with weights_cast_once(policy.tok_embeddings.weight.device.type):
            return generate(
                policy,
                prompts,
                max_new_tokens=decoding.max_new_tokens,
                sampling=decoding.sampling,
                stop=decoding.stop,
                slots=self.slots,
                rows=rows,
                cuda_graphs=self.cuda_graphs,
            )


@contextmanager
def weights_cast_once(device_type: str) -> Iterator[None]:
    """Autocast that narrows each weight once instead of once per token.

    Lightning's autocast keeps no narrowed weights, rightly: they would be stale after an optimizer step. Nothing is
    trained here, and the cache is cleared at the end.
    """
    if not torch.is_autocast_enabled(device_type):
        yield
        return
    try:
        with torch.autocast(device_type, torch.get_autocast_dtype(device_type), cache_enabled=True):
            yield
    finally:
        torch.clear_autocast_cache()

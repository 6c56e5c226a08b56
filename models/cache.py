"""Keys and values of what was decoded so far, in slots of fixed size that rows come into and leave one by one.

A slot for every row costs memory up to its longest possible text; nothing is ever copied or allocated while decoding,
and a row's slot does not care who is beside it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.config import DecoderConfig


class KeyValueCache:
    """A pair of tensors a layer, allocated once.

    Args:
        config: of the decoder.
        slots: rows decoded together.
        capacity: positions a row can hold.
        like: a parameter that gives dtype and device.

    Attributes:
        lengths: positions each slot holds; known on the host, so that decoding never waits to read them.
    """

    def __init__(self, config: DecoderConfig, slots: int, capacity: int, like: Tensor) -> None:
        assert config.head_width is not None
        shape = (config.layers, slots, capacity, config.key_value_heads, config.head_width)
        # Not `like.new_zeros`: a parameter may be a DTensor, and what is kept here is not. Zeros, because what a mask
        # leaves out is still multiplied.
        self.keys, self.values = (torch.zeros(shape, dtype=like.dtype, device=like.device) for _ in range(2))
        self.capacity, self.lengths = capacity, [0] * slots
        self.rows = list(range(slots))
        self._slots = self._positions = torch.empty(0, dtype=torch.int64)

    @property
    def device(self) -> torch.device:
        """Where keys and values are."""
        return self.keys.device

    def begin(self, slots: Sequence[int], lengths: Sequence[int]) -> None:
        """Next come whole prompts, one after another: which slot each takes, and its tokens."""
        for slot, length in zip(slots, lengths, strict=True):
            self.lengths[slot] = length
        counts = torch.tensor(list(lengths))
        self._slots = torch.repeat_interleave(torch.tensor(list(slots)), counts).to(self.device)
        self._positions = torch.cat([torch.arange(length) for length in lengths]).to(self.device)

    def extend(self, slots: Sequence[int]) -> None:
        """Next comes one token for each of these slots."""
        self.rows = list(slots)
        self._slots = torch.tensor(self.rows, device=self.device)
        self._positions = torch.tensor([self.lengths[slot] for slot in self.rows], device=self.device)
        for slot in self.rows:
            self.lengths[slot] += 1

    @property
    def positions(self) -> Tensor:
        """Of the tokens that come next, int64."""
        return self._positions

    def write(self, layer: int, k_NKD: Tensor, v_NKD: Tensor) -> None:
        """Store a layer's keys and values of the tokens announced last."""
        self.keys[layer].index_put_((self._slots, self._positions), k_NKD.to(self.keys.dtype))
        self.values[layer].index_put_((self._slots, self._positions), v_NKD.to(self.values.dtype))

    def read(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values [S, K, longest, D] of the slots extended last."""
        longest = max(self.lengths[slot] for slot in self.rows)
        whole = len(self.rows) == self.keys.shape[1] and self.rows == list(range(len(self.rows)))
        parts = (x[layer, :, :longest] if whole else x[layer, self._slots, :longest] for x in (self.keys, self.values))
        keys, values = (part.transpose(1, 2) for part in parts)
        return keys, values

    def mask(self, window: int | None) -> Tensor:
        """Which stored positions the slots extended last may see, boolean [S, 1, 1, longest]."""
        longest = max(self.lengths[slot] for slot in self.rows)
        distance = self._positions[:, None] - torch.arange(longest, device=self.device)
        allowed = distance >= 0
        return (allowed if window is None else allowed & (distance < window))[:, None, None]

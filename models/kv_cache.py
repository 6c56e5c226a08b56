"""Keys and values of what was decoded so far, in slots of fixed size that rows come into and leave one by one.

A slot for every row costs memory up to its longest possible text; nothing is allocated while decoding, and a row's slot
does not care who is beside it. The occupied slots are always the first ones, so that a step reads one stretch of memory
and gathers nothing: a row that leaves is replaced by a copy of the last one. Keys lie with their places side by side,
the order in which one query meets all of them fastest.

Shape suffixes: N new tokens, S slots, K key/value heads, D head width, L places.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.config import DecoderConfig
from models.layers import compute_dtype

STRETCH = 32
"""What is read grows by so many places at once: kernels are chosen anew for every shape."""


class KVCache:
    """A pair of tensors for all layers, allocated once.

    Args:
        config: of the decoder.
        slots: rows decoded together.
        capacity: positions a row can hold.
        like: a parameter that gives the device, and the dtype where there is no autocast.

    Attributes:
        lengths: positions each slot holds; known on the host, so that decoding never waits to read them.
        count: slots that the next token is for, the first ones.
        longest: places that are read, at least as many as any of those slots holds.
    """

    def __init__(self, config: DecoderConfig, slots: int, capacity: int, like: Tensor) -> None:
        assert config.head_width is not None
        device, dtype = like.device, compute_dtype(like)
        self.capacity = -(-capacity // STRETCH) * STRETCH
        shape = (config.layers, slots, config.key_value_heads)
        # Not `like.new_zeros`: a parameter may be a DTensor, and what is kept here is not. Zeros, because what a mask
        # leaves out is still multiplied.
        self.keys = torch.zeros(*shape, config.head_width, self.capacity, dtype=dtype, device=device)
        self.values = torch.zeros(*shape, self.capacity, config.head_width, dtype=dtype, device=device)
        self.lengths = [0] * slots
        self.count = self.longest = 0
        self._every = torch.arange(slots, device=device)
        self._next = torch.zeros(slots, dtype=torch.int64, device=device)
        self._slots, self._positions = self._every, self._next

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

    def extend(self, count: int, spare: int = 0) -> None:
        """Next comes one token for each of the first `count` slots, and something that counts for nothing for `spare`
        more.
        """
        self.count = count + spare
        self._slots, self._positions = self._every[: self.count], self._next[: self.count]
        self._positions.copy_(torch.tensor([*self.lengths[:count], *[0] * spare]))
        for slot in range(count):
            self.lengths[slot] += 1
        self.longest = -(-max(self.lengths[:count]) // STRETCH) * STRETCH

    def move(self, source: int, into: int) -> None:
        """Give a slot what another one holds."""
        length = self.lengths[source]
        self.keys[:, into, :, :, :length] = self.keys[:, source, :, :, :length]
        self.values[:, into, :, :length] = self.values[:, source, :, :length]
        self.lengths[into] = length

    @property
    def positions(self) -> Tensor:
        """Of the tokens that come next, int64."""
        return self._positions

    def write(self, layer: int, k_NKD: Tensor, v_NKD: Tensor) -> None:
        """Store a layer's keys and values of the tokens announced last."""
        self.keys[layer][self._slots, :, :, self._positions] = k_NKD.to(self.keys.dtype)
        self.values[layer][self._slots, :, self._positions] = v_NKD.to(self.values.dtype)

    def attend(self, layer: int, q_SHD: Tensor, bias_SL: Tensor) -> Tensor:
        """Attention of one new token a slot to what its slot holds, [S, H, D].

        Query heads that share keys are rows of one product: nothing is repeated.

        Args:
            layer: its number.
            q_SHD: queries, K dividing H.
            bias_SL: see `bias`.
        """
        keys = self.keys[layer, : self.count, :, :, : self.longest]
        values = self.values[layer, : self.count, :, : self.longest]
        q_SKGD = q_SHD.unflatten(1, (keys.shape[1], -1)).to(keys.dtype)
        scores_SKGL = q_SKGD * q_SHD.shape[-1] ** -0.5 @ keys + bias_SL[:, None, None]
        return (scores_SKGL.softmax(-1) @ values).flatten(1, 2).to(q_SHD.dtype)

    def bias(self, window: int | None) -> Tensor:
        """0 where the slots extended last may look, -inf elsewhere, [S, longest] in the cache's dtype."""
        distance = self._positions[:, None] - torch.arange(self.longest, device=self.device)
        allowed = distance >= 0 if window is None else (distance >= 0) & (distance < window)
        return torch.zeros(allowed.shape, dtype=self.keys.dtype, device=self.device).masked_fill_(~allowed, -torch.inf)

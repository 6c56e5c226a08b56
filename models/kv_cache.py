"""Slot-based KV cache for batched decoding.

Each row has a slot of fixed size, which costs memory up to its longest possible text; nothing is allocated while
decoding, and a row does not depend on its neighbors. The occupied slots are always the first ones, so that a step reads
one range of memory and gathers nothing: a finished row is replaced by a copy of the last one. Keys are stored with
their positions last, the order in which the product with one query is fastest.

Shape suffixes: N new tokens, S slots, K key/value heads, D head width, L positions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.config import DecoderConfig
from models.layers import compute_dtype

READ_MULTIPLE = 32
"""The positions read are rounded up to a multiple of this: kernels are chosen again for each shape."""


class KVCache:
    """KV cache of all layers: two tensors, allocated once.

    Args:
        config: shape of the decoder.
        slots: rows decoded together.
        capacity: positions of a row at most.
        like: parameter that gives the device, and the dtype where there is no autocast.

    Attributes:
        lengths: positions held by each slot; known on the host, so that decoding never waits for the device.
        count: slots of the next token, the first ones.
        longest: positions that are read, at least as many as any of those slots holds.
    """

    def __init__(self, config: DecoderConfig, slots: int, capacity: int, like: Tensor) -> None:
        assert config.head_width is not None
        device, dtype = like.device, compute_dtype(like)
        self.capacity = -(-capacity // READ_MULTIPLE) * READ_MULTIPLE
        shape = (config.layers, slots, config.key_value_heads)
        # Not `like.new_zeros`: a parameter may be a DTensor, the cache is not. Zeros, because masked values are still
        # multiplied.
        self.keys = torch.zeros(*shape, config.head_width, self.capacity, dtype=dtype, device=device)
        self.values = torch.zeros(*shape, self.capacity, config.head_width, dtype=dtype, device=device)
        self.lengths = [0] * slots
        self.count = self.longest = 0
        self._every = torch.arange(slots, device=device)
        self._next = torch.zeros(slots, dtype=torch.int64, device=device)
        self._slots, self._positions = self._every, self._next

    @property
    def device(self) -> torch.device:
        """Device of the keys and values."""
        return self.keys.device

    def prefill(self, slots: Sequence[int], lengths: Sequence[int]) -> None:
        """Prefill: the next tokens are whole prompts, end to end.

        Args:
            slots: slot of each prompt.
            lengths: tokens of each prompt.
        """
        for slot, length in zip(slots, lengths, strict=True):
            self.lengths[slot] = length
        counts = torch.tensor(list(lengths))
        self._slots = torch.repeat_interleave(torch.tensor(list(slots)), counts).to(self.device)
        self._positions = torch.cat([torch.arange(length) for length in lengths]).to(self.device)

    def extend(self, count: int, spare: int = 0) -> None:
        """Decoding step: the next tokens are one per slot of the first `count`, and `spare` unused ones behind."""
        self.count = count + spare
        self._slots, self._positions = self._every[: self.count], self._next[: self.count]
        self._positions.copy_(torch.tensor([*self.lengths[:count], *[0] * spare]))
        for slot in range(count):
            self.lengths[slot] += 1
        self.longest = -(-max(self.lengths[:count]) // READ_MULTIPLE) * READ_MULTIPLE

    def move(self, source: int, into: int) -> None:
        """Copy one slot into another."""
        length = self.lengths[source]
        self.keys[:, into, :, :, :length] = self.keys[:, source, :, :, :length]
        self.values[:, into, :, :length] = self.values[:, source, :, :length]
        self.lengths[into] = length

    @property
    def positions(self) -> Tensor:
        """Positions of the next tokens, int64 [N]."""
        return self._positions

    def write(self, layer: int, k_NKD: Tensor, v_NKD: Tensor) -> None:
        """Store a layer's keys and values of the next tokens, those of `prefill` or `extend`."""
        self.keys[layer][self._slots, :, :, self._positions] = k_NKD.to(self.keys.dtype)
        self.values[layer][self._slots, :, self._positions] = v_NKD.to(self.values.dtype)

    def attend(self, layer: int, q_SHD: Tensor, bias_SL: Tensor) -> Tensor:
        """Attention of one new token per slot to the keys of its slot, [S, H, D].

        Query heads that share keys are rows of one product: nothing is repeated.

        Args:
            layer: number of the layer.
            q_SHD: queries, K dividing H.
            bias_SL: additive mask, see `bias`.
        """
        keys = self.keys[layer, : self.count, :, :, : self.longest]
        values = self.values[layer, : self.count, :, : self.longest]
        q_SKGD = q_SHD.unflatten(1, (keys.shape[1], -1)).to(keys.dtype)
        scale = q_SHD.shape[-1] ** -0.5
        if keys.dtype in (torch.float32, torch.float64):
            scores_SKGL = q_SKGD * scale @ keys
        else:
            scores_SKGL = _wide_product(q_SKGD, keys) * scale
        weights_SKGL = (scores_SKGL + bias_SL[:, None, None]).softmax(-1).to(values.dtype)
        return (weights_SKGL @ values).flatten(1, 2).to(q_SHD.dtype)

    def bias(self, window: int | None) -> Tensor:
        """Additive mask of the next tokens: 0 where visible, else -inf, [S, longest] in the cache's dtype."""
        distance = self._positions[:, None] - torch.arange(self.longest, device=self.device)
        allowed = distance >= 0 if window is None else (distance >= 0) & (distance < window)
        return torch.zeros(allowed.shape, dtype=self.keys.dtype, device=self.device).masked_fill_(~allowed, -torch.inf)


def _wide_product(q_SKGD: Tensor, keys_SKDL: Tensor) -> Tensor:
    """Scores of half-precision queries and keys in float32: rounded, they would shift every probability by percents."""
    if keys_SKDL.device.type == "cuda":
        product: Tensor = torch.bmm(q_SKGD.flatten(0, 1), keys_SKDL.flatten(0, 1), out_dtype=torch.float32)
        return product.unflatten(0, q_SKGD.shape[:2])
    with torch.autocast(keys_SKDL.device.type, enabled=False):  # which would round the factors again
        return q_SKGD.float() @ keys_SKDL.float()

"""Packed documents as padded batches of similar length, for attention on a CPU.

One attention call per document costs more to launch than to compute where documents are short; one mask over whole
rows computes mostly what it discards. Documents of similar length share a padded batch (a rectangle), padded at the
right, where causal attention needs no mask. The price is a copy of queries, keys and values.

Shape suffixes: N tokens, P positions of all rectangles, S sequences, L length, D and further: dimensions of a token.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

MIN_FILL = 0.8
"""A sequence shorter than this share of the longest starts another rectangle."""


class Segment(NamedTuple):
    """Segment of a row: a document, or its prompt with the first branch (`prefix` 0), or a further branch."""

    start: int
    """First token."""
    length: int
    prompt: int
    """First token of the prompt that it also sees."""
    prefix: int
    """Tokens of that prompt."""


@dataclass(frozen=True)
class PaddedIndex:
    """Index between packed tokens and their positions in the rectangles.

    Attributes:
        tokens: int64 [P], the token at each position; an arbitrary one for padding.
        first: int64 [N], the first position of each token.
        repeated: int64 [2, R], tokens with further positions, and those positions.
        unused: int64 [U], positions that are no token's first.
        sizes: positions of each rectangle.
    """

    tokens: Tensor
    first: Tensor
    repeated: Tensor
    unused: Tensor
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, spans: Sequence[tuple[int, int, int]], sizes: Sequence[int]) -> "PaddedIndex":
        """Index from the (first token, first position, tokens) of each span and the rectangles' sizes."""
        starts, place_starts, lengths = torch.tensor(sorted(spans)).unbind(1)
        tokens, places = ranges(starts, lengths), ranges(place_starts, lengths)
        is_first = torch.ones_like(tokens, dtype=torch.bool)
        is_first[1:] = tokens[1:] > tokens[:-1].cummax(0).values
        at_place = torch.zeros(sum(sizes), dtype=torch.int64).scatter_(0, places, tokens)
        unused = torch.ones(sum(sizes), dtype=torch.bool).index_fill_(0, places[is_first], False)
        repeated = torch.stack((tokens[~is_first], places[~is_first]))
        return cls(at_place, places[is_first], repeated, unused.nonzero().flatten(), tuple(sizes))

    def pad(self, x_ND: Tensor, lengths: Sequence[int]) -> list[Tensor]:
        """Values of packed tokens as [S, L, D] of each rectangle; padding has those of an arbitrary token."""
        flat: Tensor = _ToPlaces.apply(x_ND, self)
        parts = flat.split(self.sizes)
        return [part.unflatten(0, (-1, length)) for part, length in zip(parts, lengths, strict=True)]

    def unpad(self, rectangles: Sequence[Tensor]) -> Tensor:
        """Values at the first position of each token, [N, D]."""
        tokens: Tensor = _ToTokens.apply(torch.cat([part.flatten(0, 1) for part in rectangles]), self)
        return tokens


class _ToPlaces(torch.autograd.Function):
    """Indexing by `tokens`, whose backward is indexing too; that of `index_select` adds row by row."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, places: PaddedIndex) -> Tensor:
        ctx.places = places
        return x_ND.index_select(0, places.tokens)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        places = ctx.places
        gradient = gradients[0].index_select(0, places.first)
        if places.repeated.numel():
            tokens, further = places.repeated
            gradient.index_add_(0, tokens, gradients[0].index_select(0, further))
        return gradient, None


class _ToTokens(torch.autograd.Function):
    """Indexing by `first`."""

    @staticmethod
    def forward(ctx: Any, x_PD: Tensor, places: PaddedIndex) -> Tensor:
        ctx.places = places
        return x_PD.index_select(0, places.first)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        places = ctx.places
        return gradients[0].index_select(0, places.tokens).index_fill_(0, places.unused, 0), None


@dataclass(frozen=True)
class PackedDocuments:
    """All documents of a batch, as padded batches of similar length.

    Attributes:
        queries: each token once.
        keys: a prompt again for each branch but the first; `queries` itself without branches.
        lengths: (queries, keys) per sequence of each rectangle.
        masks: additive float32 [S, 1, queries, keys], or None where the causal window is enough.
        window: a token sees itself and this many minus one before it; None sees all.
    """

    queries: PaddedIndex
    keys: PaddedIndex
    lengths: tuple[tuple[int, int], ...]
    masks: tuple[Tensor | None, ...]
    window: int | None = None

    @classmethod
    def of(cls, document_ids_BT: Tensor, branch_ids_BT: Tensor | None, window: int | None = None) -> "PackedDocuments":
        """Rectangles of a packed batch.

        Args:
            document_ids_BT, branch_ids_BT: see `models.attention.positions_in_documents`.
            window: a token sees itself and this many minus one before it; None sees all.
        """
        segments = sorted(_segments(document_ids_BT, branch_ids_BT), key=lambda p: (p.prefix > 0, -p.prefix - p.length))
        rectangles: list[list[Segment]] = []
        for segment in segments:
            longest = rectangles[-1][0] if rectangles else None
            if (
                longest is None
                or (longest.prefix > 0) != (segment.prefix > 0)
                or segment.prefix + segment.length < MIN_FILL * (longest.prefix + longest.length)
            ):
                rectangles.append([])
            rectangles[-1].append(segment)
        lengths, masks = [], []
        queries: list[tuple[int, int, int]] = []
        keys: list[tuple[int, int, int]] = []
        query_sizes: list[int] = []
        key_sizes: list[int] = []
        for rectangle in rectangles:
            height = max(segment.length for segment in rectangle)
            width = max(segment.prefix + segment.length for segment in rectangle)
            for number, (start, length, prompt, prefix) in enumerate(rectangle):
                queries.append((start, sum(query_sizes) + number * height, length))
                place = sum(key_sizes) + number * width
                if prefix:
                    keys.append((prompt, place, prefix))
                keys.append((start, place + prefix, length))
            query_sizes.append(len(rectangle) * height)
            key_sizes.append(len(rectangle) * width)
            lengths.append((height, width))
            masks.append(_mask(rectangle, height, width, window) if rectangle[0].prefix > 0 else None)
        placed = PaddedIndex.of(queries, query_sizes)
        places = placed if keys == queries else PaddedIndex.of(keys, key_sizes)
        return cls(placed, places, tuple(lengths), tuple(masks), window)


def _mask(rectangle: Sequence[Segment], height: int, width: int, window: int | None) -> Tensor:
    """A branch sees its prompt and causally itself, as far as the window reaches."""
    prefixes = torch.tensor([segment.prefix for segment in rectangle])[:, None, None, None]
    # Padding may see anything but nothing: a softmax over no key is NaN.
    queries = (prefixes + torch.arange(height)[:, None]).clamp(max=width - 1)
    distance = queries - torch.arange(width)
    allowed = (distance >= 0) & (distance < (window or width))
    return torch.zeros(allowed.shape).masked_fill_(~allowed, -torch.inf)


def _segments(document_ids_BT: Tensor, branch_ids_BT: Tensor | None) -> Iterator[Segment]:
    begins = changes(document_ids_BT)
    cuts = begins if branch_ids_BT is None else begins | changes(branch_ids_BT)
    starts = cuts.flatten().nonzero().flatten()
    ends = [*starts[1:].tolist(), cuts.numel()]
    is_prompt = [True] * len(ends) if branch_ids_BT is None else (branch_ids_BT.flatten()[starts] == 0).tolist()
    columns = (starts.tolist(), ends, begins.flatten()[starts].tolist(), is_prompt)
    prompt, waits = (0, 0), False
    for start, end, new, own in zip(*columns, strict=True):
        if new and waits:
            yield Segment(prompt[0], prompt[1] - prompt[0], 0, 0)
        if own:
            prompt, waits = (start, end), True
            continue
        if new:
            prompt = (start, start)
        if waits:  # the first branch continues the prompt in the row itself
            yield Segment(prompt[0], end - prompt[0], 0, 0)
        else:
            yield Segment(start, end - start, prompt[0], prompt[1] - prompt[0])
        waits = False
    if waits:
        yield Segment(prompt[0], prompt[1] - prompt[0], 0, 0)


def ranges(starts: Tensor, lengths: Tensor) -> Tensor:
    """Concatenated ranges: start, start + 1, ..., start + length - 1 of each pair."""
    before = lengths.cumsum(0) - lengths
    return torch.arange(int(lengths.sum())) + torch.repeat_interleave(starts - before, lengths)


def changes(x_BT: Tensor) -> Tensor:
    """True where a value differs from its left neighbor, and in the first column."""
    changed = torch.ones_like(x_BT, dtype=torch.bool)
    changed[:, 1:] = x_BT[:, 1:] != x_BT[:, :-1]
    return changed

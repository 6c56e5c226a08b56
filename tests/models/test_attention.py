"""Attention stays within documents: packed rows give what each document gives alone."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.attention import attend, attend_documents, attended_pairs, positions_in_documents
from models.attention_kernels.cpu import blockwise_attention
from models.attention_kernels.flex import attend_blocks, document_block_mask
from models.attention_kernels.packed_documents import PackedDocuments
from models.decoder import Decoder, DecoderConfig
from models.initialization import build_decoder

CONFIG = DecoderConfig(vocabulary_size=64, width=32, layers=2, heads=4, key_value_heads=2, feed_forward_width=48)


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    decoder = build_decoder(CONFIG, seed=1).double()
    # Larger weights than a fresh model's, so that attention is far from uniform and a leak would show.
    with torch.no_grad():
        for parameter in decoder.parameters():
            if parameter.ndim == 2:
                parameter.mul_(10)
    return decoder


def document_rows(lengths_of_rows: list[list[int]]) -> torch.Tensor:
    return torch.stack([torch.repeat_interleave(torch.arange(len(row)), torch.tensor(row)) for row in lengths_of_rows])


def dense_mask(
    document_ids_BT: torch.Tensor, branch_ids_BT: torch.Tensor | None = None, window: int | None = None
) -> torch.Tensor:
    """Boolean [B, 1, T, T], True where a position (row) may attend to another (column)."""
    allowed = document_ids_BT[:, None, :, None] == document_ids_BT[:, None, None, :]
    if branch_ids_BT is not None:
        keys = branch_ids_BT[:, None, None, :]
        allowed &= (keys == 0) | (keys == branch_ids_BT[:, None, :, None])
    if window is not None:
        positions = positions_in_documents(document_ids_BT, branch_ids_BT)
        allowed &= positions[:, None, :, None] - positions[:, None, None, :] < window
    return allowed.tril()


def compared(parts: list[torch.Tensor], *attentions: Any) -> list[tuple[torch.Tensor, ...]]:
    """What each attention gives for queries, keys and values, with the gradients of its sum of squares."""
    results = []
    for attention in attentions:
        leaves = [part.clone().requires_grad_() for part in parts]
        y = attention(*leaves)
        results.append((y.detach(), *torch.autograd.grad(y.square().sum(), leaves)))
    return results


row_of_documents = st.lists(st.integers(1, 9), min_size=1, max_size=8).map(
    lambda lengths: [*lengths, 24 - sum(lengths)] if sum(lengths) < 24 else [24]
)


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(row_of_documents, min_size=1, max_size=3), seed=st.integers(0, 1000))
def test_packed_documents_equal_documents_alone(decoder: Decoder, rows: list[list[int]], seed: int) -> None:
    tokens = torch.randint(64, (len(rows), 24), generator=torch.Generator().manual_seed(seed))
    packed = decoder(tokens, document_rows(rows))
    for row, lengths in enumerate(rows):
        alone = [decoder(part[None])[0] for part in tokens[row].split(lengths)]
        torch.testing.assert_close(packed[row], torch.cat(alone), rtol=0, atol=1e-10)


@pytest.mark.parametrize("window", [None, 4])
def test_dense_mask_and_loop_over_documents_agree_with_gradients(window: int | None) -> None:
    documents = document_rows([[5, 1, 18], [24]])
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(2, 24, heads, 8, generator=generator, dtype=torch.float64) for heads in (4, 2, 2)]
    results = compared(
        parts,
        lambda q, k, v: attend_documents(q, k, v, PackedDocuments.of(documents, None, window)),
        lambda q, k, v: attend(q, k, v, dense_mask(documents, window=window)),
    )
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-10)


tree = st.tuples(st.integers(0, 5), st.lists(st.integers(1, 6), max_size=4)).filter(lambda t: t[0] + len(t[1]) > 0)


@settings(max_examples=40, deadline=None)
@given(trees=st.lists(tree, min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_branches_equal_their_prompt_with_each_alone(decoder: Decoder, trees: list[Any], seed: int) -> None:
    """Several responses after one prompt give what each gives after its own copy of the prompt; by lengths and by
    mask.
    """
    generator = torch.Generator().manual_seed(seed)
    tokens, documents, branches, expected = [], [], [], []
    for number, (prompt, lengths) in enumerate(trees):
        start = torch.randint(64, (prompt,), generator=generator)
        responses = [torch.randint(64, (length,), generator=generator) for length in lengths]
        tokens += [start, *responses]
        documents.append(torch.full((prompt + sum(lengths),), number))
        branches += [torch.zeros(prompt), *(torch.full((length,), k + 1) for k, length in enumerate(lengths))]
        expected.append(decoder(start[None])[0] if prompt else torch.empty(0, 32))
        expected += [decoder(torch.cat((start, response))[None])[0, prompt:] for response in responses]
    row, document_ids, branch_ids = (
        torch.cat(tokens)[None],
        torch.cat(documents)[None],
        torch.cat(branches)[None].long(),
    )
    packed = decoder(row, document_ids, branch_ids_BT=branch_ids)
    torch.testing.assert_close(packed[0], torch.cat(expected), rtol=0, atol=1e-10)
    parts = [torch.randn(*row.shape, heads, 8, generator=generator, dtype=torch.float64) for heads in (4, 2, 2)]
    results = compared(
        parts,
        lambda q, k, v: attend_documents(q, k, v, PackedDocuments.of(document_ids, branch_ids)),
        lambda q, k, v: attend(q, k, v, dense_mask(document_ids, branch_ids)),
    )
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-8)


def test_a_document_does_not_see_its_neighbors_or_the_future(decoder: Decoder) -> None:
    document_ids = document_rows([[8, 16]])
    tokens = torch.randint(64, (1, 24), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[0, 3] = (changed[0, 3] + 1) % 64
    before, after = decoder(tokens, document_ids), decoder(changed, document_ids)
    same = (before == after).all(-1)[0]
    assert same[:3].all()
    assert not same[3:8].any()
    assert same[8:].all()


def test_positions_restart_in_each_document_and_row() -> None:
    document_ids = torch.tensor([[0, 0, 1, 1, 1], [7, 8, 8, 8, 9]])
    assert positions_in_documents(document_ids).tolist() == [[0, 1, 0, 1, 2], [0, 0, 1, 2, 0]]


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(
        st.lists(st.tuples(st.integers(1, 150), st.integers(0, 3)), min_size=1, max_size=6), min_size=2, max_size=2
    ),
    window=st.sampled_from([None, 5, 200]),
    has_branches=st.booleans(),
)
def test_blocks_allow_what_the_dense_mask_allows(
    rows: list[list[tuple[int, int]]], window: int | None, has_branches: bool
) -> None:
    """Blocks that are skipped hold nothing allowed, whole ones nothing forbidden, the others ask for every pair."""
    length = 300
    documents, branches = torch.full((2, length), -1), torch.zeros(2, length, dtype=torch.int64)
    for row, pieces in enumerate(rows):
        begin = 0
        for number, (size, branch) in enumerate(pieces):
            documents[row, begin : begin + size] = number
            branches[row, begin + size // 2 : begin + size] = branch
            begin += size
    given = branches if has_branches else None
    positions = positions_in_documents(documents, given)
    blocks = document_block_mask(documents, positions, given, window)
    every = torch.arange(length)
    allowed = blocks.mask_mod(torch.arange(2)[:, None, None], torch.tensor(0), every[:, None], every)
    expected = dense_mask(documents, given, window)
    assert attended_pairs(documents, given, window) == expected.sum()
    torch.testing.assert_close(allowed, expected[:, 0])
    count, indices = blocks.kv_num_blocks, blocks.kv_indices
    whole_count, whole_indices = blocks.full_kv_num_blocks, blocks.full_kv_indices
    assert whole_count is not None
    assert whole_indices is not None
    for row in range(2):
        for block in range(count.shape[2]):
            queries = slice(block * 128, (block + 1) * 128)
            asked = indices[row, 0, block, : count[row, 0, block]].tolist()
            whole = whole_indices[row, 0, block, : whole_count[row, 0, block]].tolist()
            for other in range(count.shape[2]):
                part = expected[row, 0, queries, other * 128 : (other + 1) * 128]
                if other in whole:
                    assert part.all()
                elif other not in asked:
                    assert not part.any()


@pytest.mark.parametrize("window", [None, 40])
def test_flex_attention_over_blocks_equals_rectangles(window: int | None) -> None:
    documents = document_rows([[100, 61, 139], [300]])
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 300, heads, 16, generator=generator) for heads in (4, 2, 2))
    blocks = document_block_mask(documents, positions_in_documents(documents), None, window)
    expected = attend(q, k, v, dense_mask(documents, window=window))
    torch.testing.assert_close(attend_blocks(q, k, v, blocks), expected, rtol=0, atol=1e-5)
    sequences = PackedDocuments.of(documents, None, window)
    torch.testing.assert_close(attend_documents(q, k, v, sequences), expected, rtol=0, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 300), st.integers(1, 2), st.integers(1, 3)),
    window=st.sampled_from([None, 1, 7, 128, 150]),
    seed=st.integers(0, 1000),
)
def test_blockwise_attention_and_its_gradient_equal_the_naive_ones(
    shape: tuple[int, ...], window: int | None, seed: int
) -> None:
    batch, time, heads, group = shape
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (
        torch.randn(batch, time, count, 8, generator=generator, dtype=torch.float64, requires_grad=True)
        for count in (heads * group, heads, heads)
    )
    causal = torch.ones(time, time, dtype=torch.bool).tril()[None, None]
    causal = causal if window is None else causal.triu(1 - window)
    upstream = torch.randn(batch, time, heads * group, 8, generator=generator, dtype=torch.float64)
    results = []
    for mask in (None, causal):
        y = attend(q, k, v, mask, window)
        results.append((y, *torch.autograd.grad(y, (q, k, v), upstream)))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-10)


def test_blockwise_attention_is_a_sound_operation_for_a_compiler() -> None:
    q, k = (torch.randn(*shape, requires_grad=True) for shape in ((2, 140, 3, 8), (2, 140, 8)))
    torch.library.opcheck(blockwise_attention, (q, k, k.detach().clone().requires_grad_(), 60))

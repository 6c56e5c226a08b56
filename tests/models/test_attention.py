"""Attention stays within documents: packed rows give what each document gives alone."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.attention import AttentionLayout, dense_mask, positions_in_documents
from models.decoder import Decoder, DecoderConfig, build_decoder

CONFIG = DecoderConfig(vocabulary_size=64, width=32, layers=2, heads=4, key_value_heads=2, hidden_width=48)


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


def test_dense_mask_and_loop_over_documents_agree_with_gradients(decoder: Decoder) -> None:
    document_ids = document_rows([[5, 1, 18], [24]])
    tokens = torch.randint(64, (2, 24), generator=torch.Generator().manual_seed(0))
    x = decoder.tok_embeddings(tokens).detach()
    attention = decoder.layers["0"].attention
    by_loop = AttentionLayout.of(document_ids, CONFIG)
    by_mask = AttentionLayout(by_loop.angles, mask=dense_mask(document_ids))
    results = []
    for layout in (by_loop, by_mask):
        leaf = x.clone().requires_grad_()
        y = attention(leaf, layout)
        y.square().sum().backward()
        results.append((y.detach(), leaf.grad))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-10)


tree = st.tuples(st.integers(0, 5), st.lists(st.integers(1, 6), max_size=4)).filter(lambda t: t[0] + len(t[1]) > 0)


@settings(max_examples=40, deadline=None)
@given(trees=st.lists(tree, min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_branches_equal_their_prompt_with_each_alone(decoder: Decoder, trees: list[Any], seed: int) -> None:
    """Several answers after one prompt give what each gives after its own copy of the prompt; by lengths and by
    mask.
    """
    generator = torch.Generator().manual_seed(seed)
    tokens, documents, branches, expected = [], [], [], []
    for number, (prompt, lengths) in enumerate(trees):
        start = torch.randint(64, (prompt,), generator=generator)
        answers = [torch.randint(64, (length,), generator=generator) for length in lengths]
        tokens += [start, *answers]
        documents.append(torch.full((prompt + sum(lengths),), number))
        branches += [torch.zeros(prompt), *(torch.full((length,), k + 1) for k, length in enumerate(lengths))]
        expected.append(decoder(start[None])[0] if prompt else torch.empty(0, 32))
        expected += [decoder(torch.cat((start, answer))[None])[0, prompt:] for answer in answers]
    row, document_ids, branch_ids = (
        torch.cat(tokens)[None],
        torch.cat(documents)[None],
        torch.cat(branches)[None].long(),
    )
    packed = decoder(row, document_ids, branches_BT=branch_ids)
    torch.testing.assert_close(packed[0], torch.cat(expected), rtol=0, atol=1e-10)
    listed = AttentionLayout.of(document_ids, CONFIG, branch_ids)
    masked = AttentionLayout(listed.angles, mask=dense_mask(document_ids, branch_ids))
    attention, results = decoder.layers["0"].attention, []
    for layout in (listed, masked):
        leaf = decoder.tok_embeddings(row).detach().requires_grad_()
        y = attention(leaf, layout)
        y.square().sum().backward()
        results.append((y.detach(), leaf.grad))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-8)


def test_a_document_does_not_see_its_neighbours_or_the_future(decoder: Decoder) -> None:
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

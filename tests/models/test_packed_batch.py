"""Responses in a packed row against each of them alone behind its prompt."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.config import DecoderConfig
from models.decoder import Decoder
from models.initialization import build_decoder
from models.packed_batch import (
    Document,
    group_by_prompt,
    pack_responses,
    response_kl,
    response_log_probabilities,
    response_scores,
    sum_by_response,
)

CONFIG = DecoderConfig(vocabulary_size=13, width=16, layers=2, heads=2, key_value_heads=1, feed_forward_width=24)


def decoder_of(config: DecoderConfig, seed: int) -> Decoder:
    """A decoder whose attention and logits differ from token to token."""
    decoder = build_decoder(config, seed).double().eval().requires_grad_(False)
    for parameter in decoder.parameters():
        if parameter.ndim > 1:
            parameter.mul_(12)
    return decoder


POLICY, REFERENCE = decoder_of(CONFIG, 0), decoder_of(CONFIG, 1)
REWARD = decoder_of(replace(CONFIG, scalar_output=True, tied_embeddings=False), 2)

sequences = st.lists(st.integers(0, 12), min_size=1, max_size=6)
documents_of_any_shape = st.lists(
    st.tuples(sequences, st.lists(sequences, min_size=1, max_size=3)), min_size=1, max_size=4
)


def alone(model: Decoder, prompt: Any, response: Any) -> Tensor:
    return model(torch.tensor([[*prompt, *response]]))[0]


@settings(max_examples=30, deadline=None)
@given(documents=documents_of_any_shape, keep=st.booleans(), multiple=st.sampled_from([1, 8]))
def test_log_probabilities_equal_those_of_each_response_alone(
    documents: list[Document], keep: bool, multiple: int
) -> None:
    packed = pack_responses(documents, keep_last_token=keep, multiple=multiple)
    expected, kls = [], []
    for prompt, responses in documents:
        for response in responses:
            states = slice(len(prompt) - 1, -1)
            log_p = (POLICY.output(alone(POLICY, prompt, response)[states]) / 0.7).log_softmax(-1)
            log_q = (REFERENCE.output(alone(REFERENCE, prompt, response)[states]) / 0.7).log_softmax(-1)
            expected.append(log_p.gather(-1, torch.tensor(response)[:, None])[:, 0])
            kls.append((log_p.exp() * (log_p - log_q)).sum(-1))
    found = response_log_probabilities(POLICY, packed, temperature=0.7)
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(response_kl(POLICY, REFERENCE, packed, 0.7), torch.cat(kls), rtol=1e-9, atol=1e-9)
    sums = torch.stack([values.sum() for values in expected])
    torch.testing.assert_close(sum_by_response(found, packed), sums, rtol=1e-9, atol=1e-9)
    assert packed.lengths.tolist() == [len(response) for _, responses in documents for response in responses]
    assert packed.tokens.shape[1] % multiple == 0


@settings(max_examples=30, deadline=None)
@given(documents=documents_of_any_shape, multiple=st.sampled_from([1, 8]))
def test_scores_equal_those_of_each_response_alone(documents: list[Document], multiple: int) -> None:
    packed = pack_responses(documents, keep_last_token=True, multiple=multiple)
    each = [(prompt, response) for prompt, responses in documents for response in responses]
    expected = torch.stack([REWARD.output(alone(REWARD, *pair))[-1, 0] for pair in each])
    torch.testing.assert_close(response_scores(REWARD, packed), expected.float(), rtol=1e-5, atol=1e-5)


def test_a_row_without_last_tokens_has_no_scores() -> None:
    with pytest.raises(ValueError, match="keep_last_token"):
        response_scores(REWARD, pack_responses([([1, 2], [[3]])]))


def test_neighbors_with_equal_prompts_share_a_document() -> None:
    pairs = [([1, 2], [3]), ([1, 2], [4, 5]), ([6], [7]), ([1, 2], [8])]
    assert group_by_prompt(pairs) == [([1, 2], [[3], [4, 5]]), ([6], [[7]]), ([1, 2], [[8]])]


def test_a_prompt_is_computed_once_for_all_its_responses() -> None:
    packed = pack_responses([([1, 2, 3], [[4, 5], [6]]), ([7, 8], [[9, 10]])])
    assert packed.tokens.tolist() == [[1, 2, 3, 4, 3, 7, 8, 9]]
    assert packed.document_ids.tolist() == [[0, 0, 0, 0, 0, 1, 1, 1]]
    assert packed.branch_ids is not None
    assert packed.branch_ids.tolist() == [[0, 0, 1, 1, 2, 0, 0, 0]]
    assert packed.targets.tolist() == [4, 5, 6, 9, 10]
    assert packed.response_ids.tolist() == [0, 0, 1, 2, 2]
    assert pack_responses([([7, 8], [[9, 10]])]).branch_ids is None

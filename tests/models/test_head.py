"""The output head's methods against the logits it would make whole, and against another head."""

from dataclasses import replace

import torch
from torch import Tensor

from common.constants import IGNORE
from models.config import DecoderConfig
from models.decoder import Decoder
from models.head import OutputHead
from models.initialization import build_decoder


def head_and_hidden(seed: int, tokens: int = 9) -> tuple[OutputHead, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    head = OutputHead(6, 11).double()
    with torch.no_grad():
        head.weight.normal_(generator=generator)
    return head, torch.randn(tokens, 6, dtype=torch.float64, generator=generator)


LABELS = torch.tensor([3, 0, IGNORE, 10, 5, 5, 2, IGNORE, 1])


def test_log_probabilities_are_those_of_the_whole_logits() -> None:
    head, hidden = head_and_hidden(0)
    log_p = head(hidden).log_softmax(-1)
    expected = log_p.gather(-1, LABELS.clamp(min=0)[:, None]).squeeze(-1) * (LABELS != IGNORE)
    torch.testing.assert_close(head.log_probabilities(hidden, LABELS, chunk=4), expected)
    both = head.log_probabilities_and_entropies(hidden, LABELS.clamp(min=0), chunk=4)
    torch.testing.assert_close(both[0][LABELS != IGNORE], expected[LABELS != IGNORE])
    torch.testing.assert_close(both[1], -(log_p.exp() * log_p).sum(-1))


def test_cross_entropy_reaches_the_weight_and_divides_by_the_count_of_the_step() -> None:
    head, hidden = head_and_hidden(1)
    mean = head.cross_entropy(hidden, LABELS)
    torch.testing.assert_close(mean, torch.nn.functional.cross_entropy(head(hidden), LABELS))
    torch.testing.assert_close(head.cross_entropy(hidden, LABELS, count=torch.tensor(14)), mean / 2)
    mean.backward()
    (expected,) = torch.autograd.grad(torch.nn.functional.cross_entropy(head(hidden), LABELS), head.weight)
    torch.testing.assert_close(head.weight.grad, expected)


def test_kl_is_exact_between_two_heads_and_zero_with_itself() -> None:
    (head, hidden), (other, other_hidden) = head_and_hidden(2), head_and_hidden(3)
    log_p, log_q = head(hidden).log_softmax(-1), other(other_hidden).log_softmax(-1)
    found = head.kl(hidden, other, other_hidden, chunk=4)
    torch.testing.assert_close(found, (log_p.exp() * (log_p - log_q)).sum(-1))
    assert not found.requires_grad
    assert not head.kl(hidden, head, hidden).any()


def test_logits_and_scores_are_float32_in_any_precision() -> None:
    head, hidden = head_and_hidden(4)
    low = head.bfloat16()
    assert low.logits(hidden.bfloat16()).dtype == torch.float32
    one = OutputHead(6, 1).bfloat16()
    scores = one.scores(hidden.bfloat16().view(3, 3, 6))
    assert scores.dtype == torch.float32
    in_float32 = hidden.bfloat16().float() @ one.weight.float().T
    torch.testing.assert_close(scores, in_float32.view(3, 3))


def test_a_decoder_keeps_the_names_of_its_parameters_with_either_head() -> None:
    config = DecoderConfig(11, 8, 1, 2, 1, 16, tied_embeddings=False)
    for scalar, outputs in ((False, 11), (True, 1)):
        decoder = build_decoder(replace(config, scalar_output=scalar))
        assert isinstance(decoder.output, OutputHead)
        assert dict(decoder.named_parameters())["output.weight"].shape == (outputs, 8)
        assert [name for name in decoder.state_dict() if name.startswith("output")] == ["output.weight"]
    tied = Decoder(replace(config, tied_embeddings=True))
    assert tied.output.weight is tied.tok_embeddings.weight

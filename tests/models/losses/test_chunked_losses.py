"""The chunked loss against a naive float64 computation, with its hand-written gradient."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.constants import IGNORE
from models.losses.chunked_losses import (
    linear_cross_entropy,
    linear_cross_entropy_and_z_loss,
    token_kl,
    token_log_probabilities,
    token_log_probabilities_and_entropies,
)


def problem(tokens: int, seed: int, ignored: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, 6, dtype=torch.float64, generator=generator)
    weight = torch.randn(11, 6, dtype=torch.float64, generator=generator)
    labels = torch.randint(11, (tokens,), generator=generator)
    labels[:ignored] = IGNORE
    return hidden, weight, labels


def naive(hidden: Tensor, weight: Tensor, labels: Tensor, z_loss: float) -> Tensor:
    losses = []
    for state, label in zip(hidden, labels.tolist(), strict=True):
        if label != IGNORE:
            scores = (weight * state).sum(-1)
            normalizer = scores.exp().sum().log()
            losses.append(normalizer - scores[label] + z_loss * normalizer**2)
    return torch.stack(losses).mean()


@settings(max_examples=25, deadline=None)
@given(
    tokens=st.integers(2, 20),
    chunk=st.integers(1, 25),
    z_loss=st.sampled_from([0.0, 0.01]),
    seed=st.integers(0, 99),
    ignored=st.integers(0, 1),
)
def test_value_and_gradient_equal_the_naive_ones(
    tokens: int, chunk: int, z_loss: float, seed: int, ignored: int
) -> None:
    hidden, weight, labels = problem(tokens, seed, ignored)
    results = []
    for loss in (
        lambda h, w: linear_cross_entropy(h, w, labels, z_loss, chunk),
        lambda h, w: naive(h, w, labels, z_loss),
    ):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        value = 3 * loss(h, w)
        value.backward()
        results.append((value.detach(), h.grad, w.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-12)


def test_gradcheck() -> None:
    hidden, weight, labels = problem(7, 0, ignored=2)
    inputs = (hidden.requires_grad_(), weight.requires_grad_())
    assert torch.autograd.gradcheck(lambda h, w: linear_cross_entropy(h, w, labels, 0.02, chunk=3), inputs)


def test_without_gradient_and_token_losses_agree() -> None:
    hidden, weight, labels = problem(9, 3, ignored=2)
    with torch.no_grad():
        mean = linear_cross_entropy(hidden, weight, labels, chunk=4)
    tokens = -token_log_probabilities(hidden, weight, labels, chunk=4)
    assert tokens[:2].tolist() == [0.0, 0.0]
    torch.testing.assert_close(tokens.sum() / 7, mean)
    torch.testing.assert_close(mean, naive(hidden, weight, labels, 0.0))


def test_no_valid_label_gives_zero_and_no_gradient() -> None:
    hidden, weight, labels = problem(4, 0, ignored=4)
    hidden.requires_grad_()
    loss = linear_cross_entropy(hidden, weight, labels)
    loss.backward()
    assert loss.item() == 0
    assert hidden.grad is not None
    assert not hidden.grad.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_stays_within_its_rounding(dtype: torch.dtype) -> None:
    hidden, weight, labels = problem(64, 1)
    exact = naive(hidden, weight, labels, 0.0)
    leaf = weight.to(dtype).requires_grad_()
    loss = linear_cross_entropy(hidden.to(dtype), leaf, labels, chunk=16)
    loss.backward()
    assert loss.dtype == torch.float32
    assert leaf.grad is not None
    assert leaf.grad.dtype == dtype
    torch.testing.assert_close(loss.double(), exact, rtol=torch.finfo(dtype).eps * 8, atol=0)


@settings(max_examples=25, deadline=None)
@given(tokens=st.integers(2, 20), chunk=st.integers(1, 25), seed=st.integers(0, 99), ignored=st.integers(0, 1))
def test_log_probabilities_and_their_gradient_equal_the_naive_ones(
    tokens: int, chunk: int, seed: int, ignored: int
) -> None:
    hidden, weight, labels = problem(tokens, seed, ignored)
    coming = torch.randn(tokens, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))

    def simple(h: Tensor, w: Tensor) -> Tensor:
        found = (h @ w.T).log_softmax(-1).gather(-1, labels.clamp(min=0)[:, None]).squeeze(-1)
        return found * (labels != IGNORE)

    results = []
    for function in (lambda h, w: token_log_probabilities(h, w, labels, chunk), simple):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        value = function(h, w)
        value.backward(coming)
        results.append((value.detach(), h.grad, w.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(token_log_probabilities(hidden, weight, labels, chunk), results[0][0])


def test_gradcheck_of_log_probabilities() -> None:
    hidden, weight, labels = problem(7, 0, ignored=2)
    inputs = (hidden.requires_grad_(), weight.requires_grad_())
    assert torch.autograd.gradcheck(lambda h, w: token_log_probabilities(h, w, labels, chunk=3), inputs)


def test_a_frozen_output_matrix_gets_no_gradient() -> None:
    hidden, weight, labels = problem(5, 0)
    token_log_probabilities(hidden.requires_grad_(), weight, labels).sum().backward()
    assert hidden.grad is not None
    assert weight.grad is None


def test_kl_of_the_next_token_is_exact() -> None:
    (hidden, weight, _), (other_hidden, other_weight, _) = problem(9, 0), problem(9, 1)
    log_p, log_q = (hidden @ weight.T).log_softmax(-1), (other_hidden @ other_weight.T).log_softmax(-1)
    expected = torch.nn.functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
    found = token_kl(hidden, weight, other_hidden, other_weight, chunk=4)
    torch.testing.assert_close(found, expected)
    assert not token_kl(hidden, weight, hidden, weight).any()


def test_a_count_below_one_divides_too() -> None:
    hidden, weight, labels = problem(3, 0)
    whole = linear_cross_entropy(hidden, weight, labels)
    torch.testing.assert_close(linear_cross_entropy(hidden, weight, labels, count=torch.tensor(0.5)), whole * 6)


def test_autocast_rounds_logits_and_nothing_else() -> None:
    """The loss itself stays float32: summed in bfloat16 it would have three digits."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 16, generator=generator).requires_grad_() for n in (300, 50))
    labels = torch.randint(50, (300,), generator=generator)
    exact = F.cross_entropy((hidden.bfloat16() @ weight.bfloat16().T).float(), labels)
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(hidden, weight, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=1e-6, atol=0)


@settings(max_examples=20, deadline=None)
@given(tokens=st.integers(1, 20), chunk=st.integers(1, 25), seed=st.integers(0, 99))
def test_entropies_and_their_gradients_equal_the_naive_ones(tokens: int, chunk: int, seed: int) -> None:
    hidden, weight, labels = problem(tokens, seed)
    factors = torch.randn(2, tokens, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))

    def naive_both(h: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        log_p = (h @ w.T).log_softmax(-1)
        return log_p.gather(-1, labels[:, None]).squeeze(-1), -(log_p.exp() * log_p).sum(-1)

    results = []
    for function in (lambda h, w: token_log_probabilities_and_entropies(h, w, labels, chunk), naive_both):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        log_probabilities, entropies = function(h, w)
        (factors[0] * log_probabilities + factors[1] * entropies).sum().backward()
        results.append((log_probabilities.detach(), entropies.detach(), h.grad, w.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-12)


def test_a_frozen_output_matrix_has_no_gradient_and_none_is_held() -> None:
    hidden, weight, labels = (x.float() if x.is_floating_point() else x for x in problem(9, 1))
    gradients = []
    for trained in (True, False):
        saved: list[Tensor] = []
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_(trained)

        def pack(tensor: Tensor, into: list[Tensor] = saved) -> Tensor:
            into.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = linear_cross_entropy(h, w, labels, 0.01, chunk=4)
        loss.backward()
        assert sum(x.shape == weight.shape for x in saved) == int(trained)
        gradients.append(h.grad)
    assert w.grad is None
    assert torch.equal(*gradients)


@pytest.mark.parametrize("batches", [1, 3, 5, 7])
def test_the_gradient_of_bfloat16_states_is_scaled_exactly(batches: int) -> None:
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(64, 32, generator=generator).bfloat16().requires_grad_()
    weight = (torch.randn(50, 32, generator=generator) / 6).bfloat16().requires_grad_()
    labels = torch.randint(50, (64,), generator=generator)
    (whole,) = torch.autograd.grad(linear_cross_entropy(hidden, weight, labels), hidden)
    (share,) = torch.autograd.grad(linear_cross_entropy(hidden, weight, labels) / batches, hidden)
    ratio = (share.double() * whole.double()).sum() / whole.double().square().sum()
    assert ratio.item() * batches == pytest.approx(1, abs=3e-4)  # bfloat16(1 / 3) is off by 1.8e-3


@pytest.mark.parametrize("learns", [True, False])
def test_the_part_of_the_z_loss_is_that_of_the_whole(learns: bool) -> None:
    hidden, weight, labels = problem(9, 4, ignored=2)
    hidden.requires_grad_(learns)
    loss, part = linear_cross_entropy_and_z_loss(hidden, weight, labels, 0.3, chunk=4)
    assert loss.requires_grad is learns
    assert not part.requires_grad
    torch.testing.assert_close(part, (loss - linear_cross_entropy(hidden, weight, labels)).detach())
    assert linear_cross_entropy_and_z_loss(hidden, weight, labels, 0.0)[1] == 0

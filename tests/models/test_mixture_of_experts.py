"""Experts against every expert computed for every token, and their losses against closed forms."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from common.errors import InputError
from models.config import DecoderConfig, Experts
from models.decoder import auxiliary_loss
from models.flops import matmul_parameters, parameters
from models.initialization import build_decoder
from models.mixture_of_experts import SparseFeedForward

SHAPE: dict[str, Any] = {
    "vocabulary_size": 32, "width": 16, "layers": 2, "heads": 2, "key_value_heads": 1, "feed_forward_width": 12,
}  # fmt: skip


def mixture(**settings: Any) -> SparseFeedForward:
    layer = SparseFeedForward(DecoderConfig(**SHAPE, experts=Experts(**settings))).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5)
    return layer


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("num_experts", "experts_per_token"), [(4, 1), (5, 2), (3, 3)])
def test_each_token_is_the_weighted_sum_of_its_experts(
    num_experts: int, experts_per_token: int, normalize: bool
) -> None:
    layer = mixture(num_experts=num_experts, experts_per_token=experts_per_token, normalize=normalize)
    x = torch.randn(2, 7, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    by_all = torch.stack(
        [
            F.linear(F.silu(F.linear(x, layer.w1[e])) * F.linear(x, layer.w3[e]), layer.w2[e])
            for e in range(num_experts)
        ],
        -1,
    )
    probabilities = layer.router(x).softmax(-1)
    kept = probabilities * (probabilities >= probabilities.topk(experts_per_token).values[..., -1:])
    weights = kept / kept.sum(-1, keepdim=True) if normalize else kept
    expected = (by_all * weights[..., None, :]).sum(-1)
    found = layer(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    gradients = [torch.autograd.grad(y.square().sum(), [x, *layer.parameters()]) for y in (found, expected)]
    for mine, naive in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, naive, rtol=1e-8, atol=1e-10)


def test_a_token_does_not_depend_on_its_batch() -> None:
    layer = mixture(num_experts=4, experts_per_token=2)
    x = torch.randn(3, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(layer(x)[1:2], layer(x[1:2]), rtol=0, atol=1e-12)


def test_auxiliary_losses_equal_closed_forms_and_are_means_of_rows() -> None:
    layer = mixture(num_experts=4, experts_per_token=2, balance_weight=1.0, z_weight=0.0)
    with torch.no_grad():
        layer.router.weight.zero_()
    layer(torch.randn(2, 8, 16, dtype=torch.float64))
    # All probabilities equal: whichever is chosen, the sum is 4 x (1/4) x 1.
    assert layer.auxiliary_loss is not None
    assert layer.auxiliary_loss.item() == pytest.approx(1.0)
    layer = mixture(num_experts=4, experts_per_token=1, balance_weight=1.0, z_weight=0.0)
    with torch.no_grad():
        layer.router.weight.zero_()[0] = 50.0
    layer(torch.ones(1, 8, 16, dtype=torch.float64))
    assert layer.auxiliary_loss.item() == pytest.approx(4.0)  # all tokens to one expert, certainly
    layer = mixture(num_experts=4, experts_per_token=2)
    x = torch.randn(3, 6, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    rows = []
    for row in x:
        layer(row[None])
        rows.append(layer.auxiliary_loss)
    layer(x)
    assert layer.auxiliary_loss.item() == pytest.approx(torch.stack(rows).mean().item(), abs=1e-12)
    layer = mixture(num_experts=4, experts_per_token=2, balance_weight=0.0, z_weight=1.0)
    layer(x)
    z = torch.logsumexp(layer.router(x), -1).square().mean()
    assert layer.auxiliary_loss.item() == pytest.approx(z.item(), abs=1e-12)


def test_the_loss_reaches_the_router_and_parameters_are_counted() -> None:
    config = DecoderConfig(**SHAPE, tied_embeddings=False, experts=Experts(num_experts=4, experts_per_token=2))
    decoder = build_decoder(config)
    assert sum(parameter.numel() for parameter in decoder.parameters()) == parameters(config)
    assert parameters(config) - matmul_parameters(config) == 2 * 2 * 3 * 16 * 12 + 5 * 16 + 32 * 16
    decoder(torch.randint(32, (2, 9)))
    loss = auxiliary_loss(decoder)
    assert loss is not None
    loss.backward()
    for block in decoder.layers.values():
        router: Any = block.feed_forward.router  # type: ignore[union-attr]
        assert router.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_experts": 2, "experts_per_token": 3}, "experts_per_token=3"),
        ({"experts_per_token": 0}, "experts_per_token=0"),
        ({"z_weight": -1}, "z_weight=-1"),
    ],
)
def test_bad_values_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Experts(**settings)

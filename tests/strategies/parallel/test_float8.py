"""Products in 8 bits are as near as 8 bits allow, forward and backward, and a model learns with them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from common.errors import InputError
from models.config import DecoderConfig, Experts
from models.decoder import Decoder
from models.initialization import build_decoder
from models.lora import LoRA
from strategies.parallel.activation_checkpointing import checkpoint_activations
from strategies.parallel.float8 import BACKWARD, FORWARD, product, scaled, use_float8_products
from tests.helpers.layouts import fit


@pytest.mark.parametrize(("dtype", "digits"), [(FORWARD, 3), (BACKWARD, 2)])
def test_scaling_keeps_the_largest_value_and_rounds_to_the_types_digits(dtype: torch.dtype, digits: int) -> None:
    x = torch.randn(64, 48, generator=torch.Generator().manual_seed(0)) * 1e4
    quantized, scale = scaled(x, dtype)
    assert quantized.float().abs().max() == torch.finfo(dtype).max
    large = x.abs() > x.abs().max() / 100
    error = (quantized.float() * scale - x).abs() / x.abs()
    assert error[large].max() <= 2.0 ** -(digits + 1) * 1.01
    assert scaled(torch.zeros(2, 2), dtype)[0].float().abs().max() == 0


@pytest.mark.parametrize("rows", [1, 16, 37])
def test_products_and_gradients_are_near_exact_ones(rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(64, 32, dtype=torch.float64)
    x = torch.randn(2, rows, 64, generator=generator, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(2, rows, 32, generator=generator, dtype=torch.float64)
    exact = layer(x)
    gradients = torch.autograd.grad(exact, (x, layer.weight, layer.bias), upstream)
    block = nn.ModuleDict({"w": layer.float()})
    use_float8_products(block)
    narrow = x.detach().float().requires_grad_()
    found = layer(narrow)
    found_gradients = torch.autograd.grad(found, (narrow, layer.weight, layer.bias), upstream.to(found.dtype))
    # Three digits each forward; two and three backward; the weight's gradient is bfloat16's.
    bounds = (2**-4, 2**-3, 2**-6, 2**-6)
    for mine, right, bound in zip((found, *found_gradients), (exact, *gradients), bounds, strict=True):
        assert 0 < (mine.double() - right).norm() / right.norm() < bound
    whole = product(x.detach()[0].float(), layer.weight.detach().T, FORWARD, FORWARD)
    assert whole.shape == (rows, 32)


@pytest.mark.distributed
def test_a_model_learns_as_in_bfloat16(tmp_path: Path) -> None:
    options = {"precision": "bf16-mixed"}
    shape = {"width": 32, "feed_forward_width": 48, "head_width": 8}
    (expected,) = fit("single", tmp_path / "bf16", options, shape)
    (found,) = fit("single", tmp_path / "float8", options, shape, extra={"float8": True})
    assert found["losses"] != expected["losses"]
    assert found["losses"] == pytest.approx(expected["losses"], abs=0.05)


class Products(TorchDispatchMode):
    """Counts products in 8 bits."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        self.count += function is torch.ops.aten._scaled_mm.default
        return function(*arguments, **keywords or {})


def test_selective_recomputation_keeps_products_in_8_bits() -> None:
    shape = DecoderConfig(vocabulary_size=64, width=32, layers=1, heads=2, key_value_heads=1, feed_forward_width=48)
    counts = {}
    for mode in ("none", "selective", "full"):
        decoder = build_decoder(shape)
        use_float8_products(decoder.layers["0"])
        checkpoint_activations(decoder.layers["0"], mode)
        with Products() as products:
            decoder(torch.arange(16)[None]).sum().backward()
        counts[mode] = products.count
    assert counts["none"] == counts["selective"] < counts["full"]


def test_routers_and_experts_keep_their_precision() -> None:
    decoder = build_decoder(
        DecoderConfig(vocabulary_size=64, width=32, layers=1, feed_forward_width=40, experts=Experts(4))
    )
    use_float8_products(decoder.layers["0"])
    changed = {name for name, layer in decoder.named_modules() if "forward" in vars(layer)}
    assert changed == {f"layers.0.attention.{name}" for name in ("wq", "wk", "wv", "wo")}


def test_what_the_units_do_not_take_is_refused() -> None:
    shape = {"vocabulary_size": 64, "width": 32, "layers": 1, "heads": 2, "key_value_heads": 1}
    decoder = build_decoder(DecoderConfig(**shape, feed_forward_width=40))
    with pytest.raises(InputError, match="w1 is 40 x 32, both must be multiples of 16"):
        use_float8_products(decoder.layers["0"])
    with pytest.raises(InputError, match="float8=true with lora"):
        use_float8_products(Decoder(DecoderConfig(**shape, feed_forward_width=48, lora=LoRA())).layers["0"])

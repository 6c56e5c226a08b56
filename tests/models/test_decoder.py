"""Shapes that cannot work are refused; weights depend on the seed and their names alone."""

import pytest
import torch

from common.errors import InputError
from models.decoder import DecoderConfig
from models.flops import parameters
from models.initialization import build_decoder


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"heads": 6, "key_value_heads": 4, "width": 48}, "key_value_heads=4 does not divide heads=6"),
        ({"heads": 3, "key_value_heads": 1}, "heads=3 does not divide width=64"),
        ({"layers": 0}, "layers=0"),
        ({"head_width": 7}, "head_width=7: rotary"),
    ],
)
def test_bad_shapes_are_refused(changes: dict[str, int], named: str) -> None:
    shape = {"vocabulary_size": 32, "width": 64, "layers": 1, "heads": 4, "key_value_heads": 2, **changes}
    with pytest.raises(InputError, match=named):
        DecoderConfig(**shape)


def test_weights_depend_on_seed_and_name_only() -> None:
    shape = {"vocabulary_size": 32, "width": 16, "heads": 2, "key_value_heads": 1, "feed_forward_width": 24}
    deep, shallow, other = (
        build_decoder(DecoderConfig(layers=4, **shape), 7),
        build_decoder(DecoderConfig(layers=2, **shape), 7),
        build_decoder(DecoderConfig(layers=2, **shape), 8),
    )
    names = dict(shallow.named_parameters())
    assert torch.equal(deep.get_parameter("layers.1.attention.wq.weight"), names["layers.1.attention.wq.weight"])
    assert not torch.equal(other.tok_embeddings.weight, shallow.tok_embeddings.weight)
    assert not torch.equal(names["layers.0.attention.wq.weight"], names["layers.1.attention.wq.weight"])
    # Residual outputs shrink with depth: 0.02 / sqrt(2 * layers).
    assert deep.get_parameter("layers.0.attention.wo.weight").std().item() == pytest.approx(0.02 / 8**0.5, rel=0.15)


def test_tied_embeddings_share_storage() -> None:
    shape = {
        "vocabulary_size": 32,
        "width": 16,
        "layers": 1,
        "heads": 2,
        "key_value_heads": 1,
        "feed_forward_width": 24,
    }
    tied, untied = (build_decoder(DecoderConfig(tied_embeddings=value, **shape)) for value in (True, False))
    assert tied.output.weight is tied.tok_embeddings.weight
    assert untied.output.weight is not untied.tok_embeddings.weight
    assert [sum(p.numel() for p in decoder.parameters()) for decoder in (tied, untied)] == [
        parameters(decoder.config) for decoder in (tied, untied)
    ]

"""Initial weights depend on the seed and their names alone; stored ones take their place."""

import pytest
import torch
from torch import Tensor

from common.errors import InputError
from models.config import DecoderConfig
from models.decoder import Decoder
from models.initialization import build_decoder, materialize

SHAPE = {"vocabulary_size": 32, "width": 16, "heads": 2, "key_value_heads": 1, "feed_forward_width": 24}


def test_weights_depend_on_seed_and_name_only() -> None:
    deep, shallow, other = (
        build_decoder(DecoderConfig(layers=4, **SHAPE), 7),
        build_decoder(DecoderConfig(layers=2, **SHAPE), 7),
        build_decoder(DecoderConfig(layers=2, **SHAPE), 8),
    )
    names = dict(shallow.named_parameters())
    assert torch.equal(deep.get_parameter("layers.1.attention.wq.weight"), names["layers.1.attention.wq.weight"])
    assert not torch.equal(other.tok_embeddings.weight, shallow.tok_embeddings.weight)
    assert not torch.equal(names["layers.0.attention.wq.weight"], names["layers.1.attention.wq.weight"])
    # Residual outputs shrink with depth: 0.02 / sqrt(2 * layers).
    assert deep.get_parameter("layers.0.attention.wo.weight").std().item() == pytest.approx(0.02 / 8**0.5, rel=0.15)


def test_stored_weights_take_the_place_of_drawn_ones_and_ties_stay() -> None:
    config = DecoderConfig(layers=1, **SHAPE)
    norm = torch.full((16,), 3.0)

    def stored(name: str) -> Tensor | None:
        return norm if name == "norm.weight" else None

    with torch.device("meta"):
        decoder = Decoder(config)
    materialize(decoder, torch.device("cpu"), 7, stored=stored)
    assert torch.equal(decoder.norm.weight, norm)
    assert torch.equal(decoder.tok_embeddings.weight, build_decoder(config, 7).tok_embeddings.weight)
    assert decoder.output.weight is decoder.tok_embeddings.weight


def test_a_stored_weight_of_another_shape_is_refused() -> None:
    with torch.device("meta"):
        decoder = Decoder(DecoderConfig(layers=1, **SHAPE))
    with pytest.raises(InputError, match=r"holds tok_embeddings.weight with shape \(2,\), this model needs \(32, 16\)"):
        materialize(decoder, torch.device("cpu"), 0, stored=lambda name: torch.zeros(2))

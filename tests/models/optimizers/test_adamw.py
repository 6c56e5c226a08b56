"""Which parameters AdamW decays, and settings out of range."""

import pytest

from common.errors import InputError
from models.config import DecoderConfig
from models.decoder import Decoder
from models.optimizers.adamw import AdamW


def test_only_matrices_decay_and_every_parameter_is_trained_once() -> None:
    shape = DecoderConfig(vocabulary_size=32, width=16, layers=2, heads=2, key_value_heads=1, feed_forward_width=24)
    decoder = Decoder(shape)
    optimizer = AdamW(weight_decay=0.3).build(decoder.named_parameters())
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    parameters = list(decoder.parameters())
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(parameters)
    assert all(decay[id(p)] == (0.3 if p.ndim == 2 else 0.0) for p in parameters)


def test_settings_out_of_range_are_refused() -> None:
    for rate in (-1, float("nan"), float("inf")):
        with pytest.raises(InputError, match=f"learning_rate={rate}"):
            AdamW(learning_rate=rate)

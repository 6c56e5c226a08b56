"""A step that is left out leaves nothing behind."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from models.decoder import DecoderConfig
from models.initialization import build_decoder
from models.optimizers.adamw import AdamW, OptimizerFactory
from models.optimizers.muon import Muon
from models.optimizers.skip_step import NormHistory, SpikeSkip


def judged(settings: SpikeSkip, norms: list[float]) -> list[bool]:
    history = NormHistory(settings)
    return [bool(history.is_spike(torch.tensor(norm))) for norm in norms]


def test_what_is_far_above_the_last_norms_is_a_spike_and_does_not_hide_the_next() -> None:
    calm = [1.0, 1.1, 0.9, 1.05] * 8
    assert not any(judged(SpikeSkip(window=16), calm))
    assert judged(SpikeSkip(window=16), [*calm, 50.0, 1.0, 40.0, 1.0])[-4:] == [True, False, True, False]
    nothing_known_yet = judged(SpikeSkip(window=16), [1.0, 50.0, 1.0])
    assert nothing_known_yet == [False, False, False]
    # A level that has risen for good is accepted.
    assert not judged(SpikeSkip(window=16), [*calm, *[3.0] * 30])[-1]


@given(st.lists(st.floats(0.1, 10) | st.sampled_from([float("nan"), float("inf")]), min_size=1, max_size=60))
def test_no_number_is_always_a_spike_and_a_resumed_history_judges_alike(norms: list[float]) -> None:
    whole = judged(SpikeSkip(window=8), norms)
    assert all(spike for spike, norm in zip(whole, norms, strict=True) if not norm < float("inf"))
    half = len(norms) // 2
    first, second = NormHistory(SpikeSkip(window=8)), NormHistory(SpikeSkip(window=8))
    for norm in norms[:half]:
        first.is_spike(torch.tensor(norm))
    second.load_state_dict(first.state_dict())
    assert [bool(second.is_spike(torch.tensor(norm))) for norm in norms[half:]] == whole[half:]
    assert second.skipped == sum(whole)


@pytest.mark.parametrize("factory", [AdamW(0.02), Muon(0.02)])
def test_optimizers_leave_weights_and_moments_as_they_were(factory: OptimizerFactory) -> None:
    """A step without numbers in between changes nothing of the steps after it."""
    shape = DecoderConfig(vocabulary_size=32, width=16, layers=2, heads=2, key_value_heads=1, feed_forward_width=24)

    def run(steps: list[str]) -> tuple[list[torch.Tensor], Any]:
        decoder = build_decoder(shape)
        optimizer: Any = factory.build(decoder.named_parameters())
        generator = torch.Generator().manual_seed(0)
        for kind in steps:
            for parameter in decoder.parameters():
                bad = kind == "skipped"
                parameter.grad = (
                    torch.full_like(parameter, torch.nan) if bad else torch.randn(parameter.shape, generator=generator)
                )
            optimizer.found_inf = torch.tensor(float(kind == "skipped"))
            optimizer.step()
        return list(decoder.parameters()), optimizer.state_dict()["state"]

    plain, state = run(["taken"] * 3)
    skipping, after = run(["taken", "skipped", "taken", "skipped", "taken"])
    assert all(torch.equal(a, b) for a, b in zip(plain, skipping, strict=True))
    for key, values in state.items():
        assert all(torch.equal(value, after[key][name]) for name, value in values.items())


def test_bad_values_are_refused() -> None:
    with pytest.raises(InputError, match="deviations=0"):
        SpikeSkip(deviations=0)
    with pytest.raises(InputError, match="window=3"):
        SpikeSkip(window=3)

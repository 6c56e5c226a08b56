"""Steps: every one that YAML names has a summary for reports."""

import inspect

import pytest

import datamodules
from datamodules.curation.filters.base import SummarizedStep

STEPS = [
    value
    for value in (getattr(datamodules, name) for name in datamodules.__all__)
    if inspect.isclass(value) and issubclass(value, SummarizedStep)
]


@pytest.mark.parametrize("step", STEPS)
def test_a_step_says_in_one_line_what_it_does(step: type[SummarizedStep]) -> None:
    assert 10 < len(step.summary) < 110
    assert "\n" not in step.summary


def test_all_steps_are_found() -> None:
    assert len(STEPS) == 15

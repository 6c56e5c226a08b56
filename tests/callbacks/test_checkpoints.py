"""Checkpoint callback: values that it refuses."""

import pytest

from callbacks.checkpoints import Checkpoints
from common.errors import InputError


def test_bad_values_are_refused() -> None:
    with pytest.raises(InputError, match="every_steps=0"):
        Checkpoints(every_steps=0)
    with pytest.raises(InputError, match="keep=0"):
        Checkpoints(keep=0)

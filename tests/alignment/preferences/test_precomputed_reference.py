"""Precomputed reference log-probabilities: stored beside their pairs, verified, refused for others."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from alignment.preferences.precomputed_reference import ReferenceStore
from common.errors import InputError


def test_log_probabilities_come_back_and_are_bound_to_their_pairs(tmp_path: Path) -> None:
    data: Any = SimpleNamespace(folder=tmp_path, pairs_key="preferences-123")
    store, values = ReferenceStore(data, "abc"), {"train": np.ones((5, 2), "f4"), "validation": np.zeros((3, 2), "f4")}
    assert not store.exists()
    store.write(values)
    assert store.exists()
    assert not ReferenceStore(data, "abd").exists()
    data.pairs_key = "preferences-124"
    assert not ReferenceStore(data, "abc").exists()
    found = store.read({"train": 5, "validation": 3})
    assert all((found[split] == values[split]).all() for split in values)
    with pytest.raises(InputError, match="holds 5 pairs of 6: delete it"):
        store.read({"train": 6, "validation": 3})
    array = store.folder / "train.npy"
    array.write_bytes(array.read_bytes()[:-1] + b"!")
    with pytest.raises(InputError):
        store.read({"train": 5, "validation": 3})

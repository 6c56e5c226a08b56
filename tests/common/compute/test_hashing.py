"""Hash mixers against their definitions in Python's whole numbers."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from common.compute.hashing import hash_step, murmur_mix, nonzero_mix, pseudo_random

ALL_BITS = 2**64 - 1
U64 = st.integers(0, ALL_BITS)


def naive_murmur(value: int) -> int:
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value = ((value ^ (value >> 33)) * factor) & ALL_BITS
    return value ^ (value >> 33)


@settings(deadline=None)  # the first call compiles
@given(value=U64, more=U64)
def test_mixers_equal_their_definitions(value: int, more: int) -> None:
    mixed = int(murmur_mix(np.uint64(value)))
    assert mixed == naive_murmur(value)
    assert int(hash_step(np.uint64(value), np.uint64(more))) == naive_murmur(
        ((value * 0x9E3779B97F4A7C15) & ALL_BITS) ^ more
    )
    assert int(nonzero_mix(np.uint64(value))) == (mixed or 1)


def test_no_key_of_a_table_is_its_mark_of_a_free_slot() -> None:
    assert int(murmur_mix(np.uint64(0))) == 0
    assert int(nonzero_mix(np.uint64(0))) == 1


def test_pseudo_random_numbers_are_those_of_splitmix() -> None:
    """The first outputs of SplitMix64 from seed 0, as published with Java's SplittableRandom."""
    found = [int(pseudo_random(np.array([seed], dtype=np.uint64), 0)[0]) for seed in (0,)]
    assert found == [0xE220A8397B1DCDAF]
    assert int(pseudo_random(np.array([0], dtype=np.uint64), 1)[0]) == 0x6E789E6AA1B965F4

"""Hash mixers: the finalizers of MurmurHash3 and SplitMix64, and the constants of FNV-1a, for compiled loops.

Each is a bijection of 64 bits, so that mixing loses nothing: two different inputs keep different values. They are fast
and the same on every machine, and not made for keeping secrets.
"""

import functools

import numpy as np

from common.compute.compiled import compiled

FNV_START, FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
"""Offset basis and prime of FNV-1a for 64 bits: `value = (value ^ byte) * FNV_PRIME`."""
GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio, made odd: multiples of it are spread evenly (Knuth, volume 3, section 6.4)."""


@functools.partial(compiled, inline="always")
def murmur_mix(value: np.uint64) -> np.uint64:
    """MurmurHash3's finalizer: every bit of the input moves every bit of the result."""
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ (value >> np.uint64(33))


@functools.partial(compiled, inline="always")
def hash_step(value: np.uint64, more: np.uint64) -> np.uint64:
    """A step of a hash over a sequence, one-to-one in each argument; the two may not be swapped."""
    return murmur_mix((value * GOLDEN_RATIO) ^ more)


@compiled
def nonzero_mix(value: np.uint64) -> np.uint64:
    """`murmur_mix` as a key of a hash table in which 0 marks a free slot."""
    mixed = murmur_mix(value)
    return mixed if mixed != 0 else np.uint64(1)


def pseudo_random(numbers: np.ndarray, seed: int) -> np.ndarray:
    """SplitMix64's finalizer (Steele et al. 2014) of numbers and a seed, uint64 [numbers]: an order drawn from ids."""
    mixed = numbers.astype(np.uint64) + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))

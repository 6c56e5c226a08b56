"""The validation split: whole groups of related documents go to one side.

Drawing documents independently is one line, and lets a near-copy of a training document into validation, where it
looks like understanding.
"""

import numpy as np

from datamodules.compiled import compiled


def choose_validation(
    sources: np.ndarray, sizes: np.ndarray, components: np.ndarray, fraction: float, seed: int
) -> np.ndarray:
    """Which documents are held out.

    Components are taken in a pseudo-random order as long as they fit into the budget of every source they touch; one
    larger than what is left of a budget is trained on. A source of at least two components holds out at least one.

    Args:
        sources: name or number of each document's source.
        sizes: its bytes; 0 for a document that is dropped and counts for nothing.
        components: label of its connected component, integers: the order is drawn from it.
        fraction: share of each source's bytes to hold out.
        seed: of the order.

    Returns:
        boolean [documents].
    """
    names, source_index = np.unique(sources, return_inverse=True)
    labels, component_index = np.unique(components, return_inverse=True)
    by_source = np.zeros((len(labels), len(names)), dtype=np.int64)
    np.add.at(by_source, (component_index, source_index), sizes)
    budget = by_source.sum(axis=0) * fraction
    order = np.argsort(pseudo_random(labels, seed), kind="stable")
    order = order[by_source.sum(axis=1)[order] > 0]
    held_out = _fill(by_source, order, budget)
    for source in range(len(names)):
        own = order[by_source[order, source] > 0]
        if len(own) >= 2 and not held_out[own].any():
            held_out[own[np.argmin(by_source[own].sum(axis=1))]] = True
    return held_out[component_index] & (sizes > 0)


def pseudo_random(numbers: np.ndarray, seed: int) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al. 2014) of numbers and a seed, uint64: the same on every machine."""
    mixed = numbers.astype(np.uint64) + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


@compiled
def _fill(by_source: np.ndarray, order: np.ndarray, budget: np.ndarray) -> np.ndarray:
    """Take each component, in order, that fits into what is left of every source's budget."""
    left = budget.copy()
    taken = np.zeros(len(by_source), dtype=np.bool_)
    for component in order:
        if (by_source[component] <= left).all():
            taken[component] = True
            left -= by_source[component]
    return taken

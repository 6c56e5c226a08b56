"""Validation split: whole groups of related documents go to one side.

Drawing documents independently would be one line, but lets near-copies of training documents into the validation split,
where memorizing looks like understanding.
"""

import numpy as np

from common.compute.compiled import compiled
from common.compute.hashing import pseudo_random


def choose_validation(
    sources: np.ndarray, sizes: np.ndarray, components: np.ndarray, fraction: float, seed: int
) -> np.ndarray:
    """Mask of the validation documents.

    Components are taken in a pseudo-random order as long as they fit into the budget of every source they touch; one
    larger than what is left of a budget is trained on. A source of at least two components has at least one in the
    validation split.

    Args:
        sources: name or number of each document's source.
        sizes: its bytes; 0 for a document that is dropped and counts for nothing.
        components: label of its connected component, integers: the order is drawn from it.
        fraction: share of each source's bytes in the validation split.
        seed: seed of the order.

    Returns:
        boolean [documents].
    """
    names, source_index = np.unique(sources, return_inverse=True)
    labels, component_index = np.unique(components, return_inverse=True)
    # Only the pairs of component and source that there are: a table of all would grow with the number of sources.
    pairs, pair_index = np.unique(component_index * len(names) + source_index, return_inverse=True)
    pair_components, pair_sources = np.divmod(pairs, len(names))
    pair_sizes = np.zeros(len(pairs), dtype=np.int64)
    np.add.at(pair_sizes, pair_index, sizes)
    starts = np.searchsorted(pair_components, np.arange(len(labels) + 1))
    totals = np.add.reduceat(pair_sizes, starts[:-1])
    budget = np.zeros(len(names), dtype=np.int64)
    np.add.at(budget, pair_sources, pair_sizes)
    order = np.argsort(pseudo_random(labels, seed), kind="stable")
    order = order[totals[order] > 0]
    chosen = _fill(starts, pair_sources, pair_sizes, order, budget * fraction)
    for source in range(len(names)):
        touches = np.zeros(len(labels), dtype=bool)
        touches[pair_components[(pair_sources == source) & (pair_sizes > 0)]] = True
        own = order[touches[order]]
        if len(own) >= 2 and not chosen[own].any():
            chosen[own[np.argmin(totals[own])]] = True
    return chosen[component_index] & (sizes > 0)


@compiled
def _fill(
    starts: np.ndarray, sources: np.ndarray, sizes: np.ndarray, order: np.ndarray, budget: np.ndarray
) -> np.ndarray:
    """Take each component, in order, that fits into what is left of every source's budget.

    Args:
        starts: of each component's pairs with sources, int64 [components + 1].
        sources, sizes: of each pair, int64.
        order: of the components.
        budget: of each source, float64.
    """
    left = budget.copy()
    taken = np.zeros(len(starts) - 1, dtype=np.bool_)
    for component in order:
        fits = True
        for pair in range(starts[component], starts[component + 1]):
            fits &= sizes[pair] <= left[sources[pair]]
        if fits:
            taken[component] = True
            for pair in range(starts[component], starts[component + 1]):
                left[sources[pair]] -= sizes[pair]
    return taken

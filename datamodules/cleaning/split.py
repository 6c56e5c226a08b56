"""The validation split: whole groups of related documents go to one side.

Drawing documents independently is one line, and lets a near-copy of a training document into validation, where it
looks like understanding.
"""

import numpy as np
import xxhash


def choose_validation(
    sources: np.ndarray, sizes: np.ndarray, components: np.ndarray, fraction: float, seed: int
) -> np.ndarray:
    """Which documents are held out.

    Components are taken in a pseudo-random order as long as they fit into the budget of every source they touch; one
    larger than what is left of a budget is trained on. A source of at least two components holds out at least one.

    Args:
        sources: name of each document's source.
        sizes: its bytes; 0 for a document that is dropped and counts for nothing.
        components: label of its connected component.
        fraction: share of each source's bytes to hold out.
        seed: of the order.

    Returns:
        boolean [documents].
    """
    names, source_index = np.unique(sources, return_inverse=True)
    labels, component_index = np.unique(components, return_inverse=True)
    by_source = np.zeros((len(labels), len(names)), dtype=np.int64)
    np.add.at(by_source, (component_index, source_index), sizes)
    present = by_source.sum(axis=1) > 0
    budget = by_source.sum(axis=0) * fraction
    keys = [xxhash.xxh3_64_intdigest(int(label).to_bytes(8, "little", signed=label < 0), seed=seed) for label in labels]
    held_out = np.zeros(len(labels), dtype=bool)
    order = [int(index) for index in np.argsort(np.array(keys, dtype=np.uint64), kind="stable") if present[index]]
    for index in order:
        if (by_source[index] <= budget).all():
            held_out[index] = True
            budget = budget - by_source[index]
    for source in range(len(names)):
        own = [index for index in order if by_source[index, source]]
        if len(own) >= 2 and not held_out[own].any():
            held_out[min(own, key=lambda index: by_source[index].sum())] = True
    return held_out[component_index] & (sizes > 0)

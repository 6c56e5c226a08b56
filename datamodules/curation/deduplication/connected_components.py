"""Connected components: groups of equal documents from hash keys, by sorting and union-find.

A distributed join would carry the keys around the cluster to find what one machine finds in a sort of 8 bytes per
document: a billion documents are 8 GB per band, and bands are looked at one at a time.

Peak memory for 1 million documents (benchmarks/data/near_duplicates.py): 36 MB for 14 bands and their components, one
band's keys at a time included, and 16 bytes per pair found; 42 MB for `best_of_components`.
"""

from collections.abc import Iterable

import numpy as np

from common.compute.compiled import compiled

NO_KEY = 0
"""Key of a document that has nothing to compare, such as no URL: it shares a bucket with none."""


def pairs_in_buckets(ids: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Pairs of documents with equal keys: each member of a bucket with its bucket's first.

    A bucket of n members gives n - 1 pairs, not n (n - 1) / 2: enough to connect them, and a boilerplate page that
    occurs a million times costs a million pairs.

    Args:
        ids: integers [documents]; the first of a bucket is the one that comes first here.
        keys: uint64 [documents]; `NO_KEY` is equal to nothing.

    Returns:
        [pairs, 2] of the type of the ids: first of the bucket, other member.
    """
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    equal = ordered[1:] == ordered[:-1]
    equal &= ordered[1:] != NO_KEY
    del ordered
    others = np.flatnonzero(equal) + 1
    starts = np.flatnonzero(np.diff(others, prepend=-1) != 1)
    firsts = np.repeat(others[starts] - 1, np.diff(starts, append=len(others)))
    return np.stack((ids[order[firsts]], ids[order[others]]), axis=1)


def connected_components(edges: np.ndarray | Iterable[np.ndarray], size: int) -> np.ndarray:
    """The smallest member of each item's connected component, int64 [size].

    Args:
        edges: integers [pairs, 2] over range(size), or an iterable of such arrays (a band each), of which only one is
            held at a time.
        size: number of items.
    """
    parents = np.arange(size, dtype=np.int64)
    for part in [edges] if isinstance(edges, np.ndarray) else edges:
        _join(parents, np.ascontiguousarray(part.reshape(-1, 2), dtype=np.int64))
    _flatten(parents)
    return parents


@compiled
def _join(parents: np.ndarray, edges: np.ndarray) -> None:
    """Union by the smaller root, with path halving: parents never exceed their children."""
    for edge in range(len(edges)):
        left, right = edges[edge, 0], edges[edge, 1]
        while parents[left] != left:
            parents[left] = parents[parents[left]]
            left = parents[left]
        while parents[right] != right:
            parents[right] = parents[parents[right]]
            right = parents[right]
        if left < right:
            parents[right] = left
        else:
            parents[left] = right


@compiled
def _flatten(parents: np.ndarray) -> None:
    # A parent is smaller than its child: it was flattened before.
    for item in range(len(parents)):
        parents[item] = parents[parents[item]]


def best_of_components(components: np.ndarray, score: np.ndarray, size: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Items that their components keep: the best score, the larger among equals, then the earlier.

    Args:
        components: label of each item's component, integers [items].
        score: the higher, the better; float [items]. One that is not a number is worse than any.
        size: bytes or characters, integers [items].
        order: rank of the items, the lowest is kept among equals; integers [items], no two alike.

    Returns:
        boolean [items]; exactly one of each component is true.
    """
    worst_first = np.where(np.isnan(score), -np.inf, score)
    ranked = np.lexsort((order, -size.astype(np.int64), -worst_first, components))
    first = np.ones(len(ranked), dtype=bool)
    first[1:] = components[ranked][1:] != components[ranked][:-1]
    kept = np.zeros(len(ranked), dtype=bool)
    kept[ranked[first]] = True
    return kept


def kept_of(components: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Position of the item that each item's component keeps, int64 [items].

    Args:
        components: smallest member of each item's component, as `connected_components` gives it, int64 [items].
        kept: as `best_of_components` gives it, boolean [items].
    """
    of_label = np.empty(len(components), dtype=np.int64)
    positions = np.flatnonzero(kept)
    of_label[components[positions]] = positions
    return of_label[components]

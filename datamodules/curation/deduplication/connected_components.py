"""Connected components: groups of equal documents from hash keys, by sorting and union-find.

A distributed join would carry the keys around the cluster to find what one machine finds in a sort of 8 bytes per
document: a billion documents are 8 GB per band, and bands are looked at one at a time.
"""

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


def connected_components(edges: np.ndarray, size: int) -> np.ndarray:
    """The smallest member of each item's connected component, int64 [size].

    Args:
        edges: integers [pairs, 2] over range(size).
        size: number of items.
    """
    parents = np.arange(size, dtype=np.int64)
    join(parents, edges)
    return labels_of(parents)


def join(parents: np.ndarray, edges: np.ndarray) -> None:
    """Join the components of each pair of items.

    Args:
        parents: forest of components, int64 [items], at first `arange`; changed in place.
        edges: integers [pairs, 2].
    """
    _join(parents, np.ascontiguousarray(edges.reshape(-1, 2), dtype=np.int64))


def labels_of(parents: np.ndarray) -> np.ndarray:
    """The smallest member of each item's component, int64 [items]; the forest itself, flattened."""
    _flatten(parents)
    return parents


@compiled
def find_root(parents: np.ndarray, item: int) -> int:
    """Smallest known member of an item's component, by path halving: parents never exceed their children."""
    while parents[item] != item:
        parents[item] = parents[parents[item]]
        item = parents[item]
    return item


@compiled
def _join(parents: np.ndarray, edges: np.ndarray) -> None:
    """Union by the smaller root."""
    for edge in range(len(edges)):
        left, right = find_root(parents, edges[edge, 0]), find_root(parents, edges[edge, 1])
        if left < right:
            parents[right] = left
        else:
            parents[left] = right


@compiled
def _flatten(parents: np.ndarray) -> None:
    # A parent is smaller than its child: it was flattened before.
    for item in range(len(parents)):
        parents[item] = parents[parents[item]]

"""Comparison of candidates: documents that share a bucket, held against each other by their whole signatures.

A bucket is a coincidence of a few hashes, and what is joined through buckets alone grows with the corpus until it holds
most of it. So nothing is concluded from a bucket before the estimated Jaccard similarity says so. A document is
compared with at most `MAX_LEADERS` or `WINDOW` others of its bucket: the cost stays linear, and what is lost are pairs
in a large bucket of documents that resemble each other little.
"""

import numpy as np

from common.compute.compiled import compiled
from datamodules.curation.deduplication.connected_components import NO_KEY, find_root

MAX_LEADERS = 16
"""Documents of a bucket, none of which resembles another, that all further ones are compared with."""
WINDOW = 32
"""Documents before it in a bucket that a document is joined with where it resembles them."""
NO_SIGNATURES = np.empty((0, 0), dtype=np.uint32)
"""Where none were computed no document resembles another."""


def pairs_of_similar(
    ranked: np.ndarray, keys: np.ndarray, signatures: np.ndarray, threshold: float, equal: np.ndarray | None = None
) -> np.ndarray:
    """Documents that resemble a better one of their bucket: (the best such leader, document), int64 [pairs, 2].

    A document that resembles none of its bucket's leaders becomes one, so a document occurs in at most one pair as the
    other, and no leader is the other of a pair.

    Args:
        ranked: positions of the documents to compare, the best first, int64 [documents].
        keys: of the same documents, uint64; `NO_KEY` shares a bucket with none.
        signatures: of all documents of the corpus, uint32 [corpus, hashes], or `NO_SIGNATURES`.
        threshold: share of equal hashes from which on two documents are similar.
        equal: documents of the corpus, boolean [corpus], any two of which count as similar whatever their text; the
            first of them in a bucket leads beside `MAX_LEADERS` others.
    """
    members, bounds = _buckets(ranked, keys)
    pairs = np.empty((len(members), 2), dtype=np.int64)
    if equal is None:
        equal = np.zeros(0, dtype=np.bool_)
    found = _follow_leaders(members, bounds, signatures, _least(threshold, signatures), equal, pairs)
    return pairs[:found].copy()


def join_similar(
    parents: np.ndarray, documents: np.ndarray, keys: np.ndarray, signatures: np.ndarray, threshold: float
) -> None:
    """Join the components of documents that share a bucket and are similar; those joined before are not compared.

    Args:
        parents: forest of components, int64 [corpus], changed in place; see `connected_components.find_root`.
        documents, keys, signatures, threshold: as for `pairs_of_similar`, documents in any order.
    """
    _join_window(parents, *_buckets(documents, keys), signatures, _least(threshold, signatures))


def similarities(signatures: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Share of equal hashes of each pair of documents, float32 [pairs]."""
    found = np.empty(len(pairs), dtype=np.float32)
    _shares(signatures, pairs, found)
    return found


def keep_best(pairs: np.ndarray, rank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of documents to drop and the better one that is kept for each.

    From the best to the worst, a document is dropped for the best one that it resembles and that is itself kept: what
    resembles nothing but a dropped document stays.

    Args:
        pairs: similar documents, better one first, int64 [pairs, 2]; a pair may occur more than once.
        rank: of all documents of the corpus, the lowest is the best, no two alike; integers [corpus].

    Returns:
        int64 [dropped, 2], kept and dropped document; int64 [open], documents that resemble a dropped one and stay.
    """
    ordered = pairs[np.lexsort((rank[pairs[:, 0]], rank[pairs[:, 1]]))]
    dropped = np.zeros(len(rank), dtype=np.bool_)
    chosen = np.zeros(len(ordered), dtype=np.bool_)
    _drop_in_order(ordered, dropped, chosen)
    followers = ordered[dropped[ordered[:, 0]] & ~dropped[ordered[:, 1]], 1]
    return ordered[chosen], np.unique(followers)


def _least(threshold: float, signatures: np.ndarray) -> int:
    """Equal hashes from which on two documents are similar; more than there are where there are none."""
    return int(np.ceil(threshold * signatures.shape[1] - 1e-9)) if len(signatures) else 1


def _buckets(documents: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Members of all buckets of several, in their order, and where each bucket begins, int64."""
    if not len(keys):
        return np.empty(0, dtype=np.int64), np.zeros(1, dtype=np.int64)
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    equal = ordered[1:] == ordered[:-1]
    equal &= ordered[1:] != NO_KEY
    del ordered
    shared = np.append(equal, False) | np.insert(equal, 0, False)
    members = documents[order[shared]]
    begins = np.flatnonzero(~np.insert(equal, 0, False)[shared])
    return members, np.append(begins, len(members))


@compiled
def _equal_hashes(signatures: np.ndarray, one: int, other: int) -> int:
    if signatures.shape[0] == 0:
        return 0
    equal = 0
    for place in range(signatures.shape[1]):
        equal += signatures[one, place] == signatures[other, place]
    return equal


@compiled
def _follow_leaders(
    members: np.ndarray, bounds: np.ndarray, signatures: np.ndarray, least: int, equal: np.ndarray, pairs: np.ndarray
) -> int:
    """Fill the pairs of leaders and their followers; how many."""
    found = 0
    # One place more, for the first of the documents that are equal: those compared by text do not take it.
    leaders = np.empty(MAX_LEADERS + 1, dtype=np.int64)
    for bucket in range(len(bounds) - 1):
        count = compared = 0
        for place in range(bounds[bucket], bounds[bucket + 1]):
            member, leader = members[place], -1
            for number in range(count):
                other = leaders[number]
                if (len(equal) and equal[member] and equal[other]) or _equal_hashes(signatures, other, member) >= least:
                    leader = other
                    break
            if leader >= 0:
                pairs[found, 0], pairs[found, 1] = leader, member
                found += 1
                continue
            is_equal = len(equal) > 0 and equal[member]
            if is_equal or compared < MAX_LEADERS:
                leaders[count] = member
                count += 1
                compared += not is_equal
    return found


@compiled
def _join_window(
    parents: np.ndarray, members: np.ndarray, bounds: np.ndarray, signatures: np.ndarray, least: int
) -> None:
    for bucket in range(len(bounds) - 1):
        for place in range(bounds[bucket] + 1, bounds[bucket + 1]):
            for before in range(max(bounds[bucket], place - WINDOW), place):
                one, other = find_root(parents, members[before]), find_root(parents, members[place])
                if one != other and _equal_hashes(signatures, members[before], members[place]) >= least:
                    parents[max(one, other)] = min(one, other)


@compiled
def _shares(signatures: np.ndarray, pairs: np.ndarray, found: np.ndarray) -> None:
    for pair in range(len(pairs)):
        found[pair] = _equal_hashes(signatures, pairs[pair, 0], pairs[pair, 1]) / signatures.shape[1]


@compiled
def _drop_in_order(pairs: np.ndarray, dropped: np.ndarray, chosen: np.ndarray) -> None:
    for pair in range(len(pairs)):
        better, worse = pairs[pair, 0], pairs[pair, 1]
        if not dropped[better] and not dropped[worse]:
            dropped[worse] = True
            chosen[pair] = True

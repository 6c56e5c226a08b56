"""Candidates compared by their signatures, against naive comparisons of all pairs."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.curation.deduplication.connected_components import NO_KEY, labels_of
from datamodules.curation.deduplication.similar_documents import (
    NO_SIGNATURES,
    join_similar,
    keep_best,
    pairs_of_similar,
    similarities,
)

HASHES = 8


def drawn(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Signatures of few values, so that all similarities occur, and the keys of three buckets and of none."""
    generator = np.random.default_rng(seed)
    return (
        generator.integers(0, 3, (count, HASHES)).astype(np.uint32),
        generator.choice(np.array([NO_KEY, 5, 6, 7], dtype=np.uint64), count),
    )


def similar(signatures: np.ndarray, one: int, other: int, threshold: float) -> bool:
    return float((signatures[one] == signatures[other]).mean()) >= threshold


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(0, 12), threshold=st.sampled_from([0.375, 0.5, 0.75]))
def test_followers_resemble_the_best_leader_of_their_bucket(seed: int, count: int, threshold: float) -> None:
    signatures, keys = drawn(seed, count)
    ranked = np.random.default_rng(seed).permutation(count)
    expected, leaders = [], dict[int, list[int]]()
    for member in ranked.tolist():
        if (key := int(keys[member])) == NO_KEY:
            continue
        known = leaders.setdefault(key, [])
        leader = next((one for one in known if similar(signatures, one, member, threshold)), None)
        if leader is None:
            known.append(member)
        else:
            expected.append([leader, member])
    pairs = pairs_of_similar(ranked, keys[ranked], signatures, threshold)
    assert sorted(pairs.tolist()) == sorted(expected)
    shares = [float((signatures[one] == signatures[other]).mean()) for one, other in pairs.tolist()]
    assert np.allclose(similarities(signatures, pairs), shares)
    assert not len(pairs_of_similar(ranked, keys[ranked], NO_SIGNATURES, threshold))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(0, 14), threshold=st.sampled_from([0.375, 0.5, 0.75]))
def test_components_are_those_of_all_similar_pairs_of_a_bucket(seed: int, count: int, threshold: float) -> None:
    signatures, keys = drawn(seed, count)
    labels = list(range(count))
    for _ in range(count):
        for a in range(count):
            for b in range(count):
                if keys[a] == keys[b] != NO_KEY and similar(signatures, a, b, threshold):
                    labels[a] = labels[b] = min(labels[a], labels[b])
    parents = np.arange(count)
    join_similar(parents, np.arange(count), keys, signatures, threshold)
    assert labels_of(parents).tolist() == labels


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(2, 12), edges=st.integers(0, 30))
def test_every_dropped_document_resembles_the_one_kept_for_it(seed: int, count: int, edges: int) -> None:
    generator = np.random.default_rng(seed)
    rank = generator.permutation(count)
    drawn_pairs = generator.integers(0, count, (edges, 2))
    pairs = np.array(
        [pair if rank[pair[0]] < rank[pair[1]] else pair[::-1] for pair in drawn_pairs if pair[0] != pair[1]]
    )
    pairs = pairs.astype(np.int64).reshape(-1, 2)
    dropped, still_open = keep_best(pairs, rank)
    known = {tuple(pair) for pair in pairs.tolist()}
    gone = {other for _, other in dropped.tolist()}
    assert len(gone) == len(dropped)
    assert {tuple(pair) for pair in dropped.tolist()} <= known
    assert not gone & {kept for kept, _ in dropped.tolist()}
    for better, worse in known:
        assert better in gone or worse in gone
        assert (worse in set(still_open.tolist())) >= (better in gone and worse not in gone)

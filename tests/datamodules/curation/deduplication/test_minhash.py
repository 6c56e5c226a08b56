"""Buckets, components and MinHash against naive versions and the formula."""

import daft
import numpy as np
import pytest
from daft import col
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.data import near_duplicates as benchmark
from datamodules.curation.deduplication.connected_components import (
    NO_KEY,
    connected_components,
    join,
    labels_of,
    pairs_in_buckets,
)
from datamodules.curation.deduplication.minhash import NearDuplicates, estimated_similarity, probability_found

EDGES = st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=25)


@settings(max_examples=100, deadline=None)
@given(keys=st.lists(st.integers(0, 8), max_size=30), seed=st.integers(0, 99))
def test_pairs_equal_a_naive_grouping(keys: list[int], seed: int) -> None:
    ids = np.random.default_rng(seed).permutation(len(keys)).astype(np.uint64)
    expected = []
    for place, key in enumerate(keys):
        first = keys.index(key)
        if key != NO_KEY and first != place:
            expected.append([ids[first], ids[place]])
    found = pairs_in_buckets(ids, np.array(keys, dtype=np.uint64))
    assert found.dtype == np.uint64
    assert sorted(found.tolist()) == sorted(expected)


@settings(max_examples=100, deadline=None)
@given(edges=EDGES)
def test_components_equal_a_flood_fill(edges: list[tuple[int, int]]) -> None:
    labels = list(range(20))
    for _ in range(20):
        for a, b in edges:
            labels[a] = labels[b] = min(labels[a], labels[b])
    array = np.array(edges, dtype=np.int64).reshape(-1, 2)
    assert connected_components(array, 20).tolist() == labels
    # A part at a time gives the same.
    parents = np.arange(20)
    for part in (array[:7], array[7:]):
        join(parents, part)
    assert labels_of(parents).tolist() == labels


def test_a_chain_of_a_million_is_one_component() -> None:
    chain = np.stack((np.arange(1, 1_000_000), np.arange(999_999)), axis=1)
    assert not connected_components(np.random.default_rng(0).permutation(chain), 1_000_000).any()


def signatures_of(texts: list[str], near: NearDuplicates) -> daft.DataFrame:
    df = daft.from_pydict({"id": np.arange(len(texts), dtype=np.uint64), "text": texts})
    return df.select("id", near.signature(col("text")).alias("signature")).collect()


@pytest.fixture(scope="module")
def planted() -> benchmark.Measured:
    corpus = benchmark.plant(similarities=(0.3, 0.5, 0.6, 0.7, 0.8, 0.9), pairs=40, seed=7)
    return benchmark.measure(corpus, NearDuplicates())


def test_pairs_are_found_as_often_as_the_formula_says(planted: benchmark.Measured) -> None:
    # Independent draws of different chances: the variance is the sum of p (1 - p). Five deviations: 1 in 2 million.
    for found, rows, bands in ((planted.found, 8, 14), (planted.found_loose, 4, 28)):
        chance = np.asarray(probability_found(planted.exact, bands, rows))
        deviation = np.sqrt((chance * (1 - chance)).sum())
        assert abs(found.sum() - chance.sum()) < 5 * deviation + 1


def test_pairs_without_much_in_common_are_not_found(planted: benchmark.Measured) -> None:
    chance = float(probability_found(0.3))
    assert planted.found_similarities.size
    # Documents that were not planted together share next to nothing.
    assert (planted.found_similarities > 0.2).all()
    assert (planted.found_similarities < 0.35).sum() <= 5 + 5 * 40 * chance


def test_estimated_similarity_is_unbiased(planted: benchmark.Measured) -> None:
    errors = planted.estimated - planted.exact
    expected = np.sqrt((planted.exact * (1 - planted.exact)).mean() / 112)
    assert abs(errors.mean()) < 5 * expected / np.sqrt(len(errors))
    assert errors.std() < 1.3 * expected
    one = np.arange(6, dtype=np.uint32).reshape(2, 3)
    assert estimated_similarity(one, one[:, ::-1]).tolist() == [1 / 3, 1 / 3]


def test_texts_without_words_are_not_all_alike() -> None:
    near = NearDuplicates()
    signatures = signatures_of(["--- *** ---", "!!! ... ???", "+ + + +", "+ + + +"], near)
    assert {tuple(pair) for pair in near.edges(signatures, near.rows).tolist()} == {(2, 3)}


@pytest.mark.parametrize("first", ["\u4e00", "\u3041", "\u0e01", "\u1000"])
def test_near_duplicates_are_found_in_scripts_without_spaces(first: str) -> None:
    generator = np.random.default_rng(0)
    letters = [chr(ord(first) + i) for i in range(40)]
    texts = []
    for _ in range(20):
        original = generator.choice(letters, 400).tolist()
        copy = list(original)
        copy[200] = letters[letters.index(copy[200]) - 1]
        texts += ["".join(original), "".join(copy)]
    near = NearDuplicates()
    found = {tuple(sorted(edge)) for edge in near.edges(signatures_of(texts, near), near.rows).tolist()}
    assert found == {(2 * i, 2 * i + 1) for i in range(20)}

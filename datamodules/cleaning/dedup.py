"""Near-duplicates by MinHash and locality-sensitive hashing (Broder 1997; parameters of FineWeb, Penedo et al. 2024).

Two documents are compared only if they agree on a whole band of their signatures, so the cost grows with the number
of documents and not of pairs; what is lost are pairs below the threshold by chance. Whole connected components
collapse to one document, as in FineWeb: a chain of edits counts as one text.
"""

from typing import Any

import numpy as np
from daft import DataFrame, Expression, col, lit
from daft.functions import explode, hash, list_agg, minhash, normalize, regexp_replace, slice, to_list

from errors import InputError

UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
"""A character of a script written without spaces between words: each counts as a word, or a text would be one."""


class NearDuplicates:
    """Finds groups of documents with many word n-grams in common.

    Args:
        words: n-gram length in words, lower-cased and without punctuation; in Chinese and other scripts without spaces
            every character is a word.
        bands, rows: the signature is cut into `bands` bands of `rows` hashes; 14 x 8 finds pairs of Jaccard
            similarity s with probability 1 - (1 - s^8)^14, half of them at s = 0.72.
        seed: of the hash functions.
    """

    def __init__(self, words: int = 5, bands: int = 14, rows: int = 8, seed: int = 1) -> None:
        if min(words, bands, rows) < 1:
            raise InputError(f"near_duplicates words={words}, bands={bands}, rows={rows}: each must be at least 1")
        if rows % 2:
            raise InputError(
                f"near_duplicates rows={rows} is odd: the split's looser banding halves it, give an even number"
            )
        self.words, self.bands, self.rows, self.seed = words, bands, rows, seed

    def signature(self, text: Expression) -> Expression:
        """MinHash signature, a list of `bands * rows` uint32."""
        spaced = regexp_replace(text, UNSPACED, " $0 ")
        words = normalize(spaced, remove_punct=True, lowercase=True, nfd_unicode=False, white_space=True)
        return minhash(
            words, num_hashes=self.bands * self.rows, ngram_size=self.words, seed=self.seed, hash_function="xxhash3_64"
        )

    def edges(self, signatures: DataFrame, rows: int) -> np.ndarray:
        """Pairs of documents that agree on a band.

        Args:
            signatures: columns `id` (uint64) and `signature`.
            rows: hashes in a band; fewer than `self.rows` finds less similar pairs, half as many find half of the
                pairs at about s = 0.43.

        Returns:
            uint64 [pairs, 2] of ids; each member of a bucket is paired with the bucket's first.
        """
        size = self.bands * self.rows
        keys = [hash(slice(col("signature"), start, start + rows), seed=start) for start in range(0, size, rows)]
        buckets = signatures.select("id", explode(to_list(*keys)).alias("key"))
        return pairs_in_buckets(buckets)

    def settings(self) -> dict[str, Any]:
        """For the fingerprint."""
        return vars(self)


def pairs_in_buckets(buckets: DataFrame) -> np.ndarray:
    """Pairs (first of the bucket, other member) of ids with an equal `key`, uint64 [pairs, 2]."""
    members = (
        buckets.groupby("key")
        .agg(col("id").min().alias("first"), list_agg(col("id")).alias("others"), col("id").count().alias("size"))
        .where(col("size") > lit(1))
        .select("first", explode(col("others")).alias("other"))
        .where(col("first") < col("other"))
        .to_pydict()
    )
    return np.array([members["first"], members["other"]], dtype=np.uint64).T.reshape(-1, 2)


def connected_components(edges: np.ndarray, size: int) -> np.ndarray:
    """The smallest member of each item's connected component, int64 [size].

    Labels sink along edges and are then shortened by pointer jumping, until nothing changes.

    Args:
        edges: int64 [pairs, 2] over range(size).
        size: number of items.
    """
    labels = np.arange(size, dtype=np.int64)
    while len(edges):
        left, right = labels[edges[:, 0]], labels[edges[:, 1]]
        if (left == right).all():
            break
        lower = np.minimum(left, right)
        np.minimum.at(labels, left, lower)
        np.minimum.at(labels, right, lower)
        while not (labels == labels[labels]).all():
            labels = labels[labels]
    return labels


def best_of_components(components: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Whether an item is the one its component keeps: the largest, the first among equals; boolean [items]."""
    order = np.lexsort((np.arange(len(sizes)), -sizes, components))
    first = np.ones(len(order), dtype=bool)
    first[1:] = components[order][1:] != components[order][:-1]
    kept = np.zeros(len(order), dtype=bool)
    kept[order[first]] = True
    return kept

"""Near-duplicate detection by MinHash and locality-sensitive hashing (Broder 1997; parameters of FineWeb, Penedo et al.
2024).

Two documents are compared only if they agree on a whole band of their signatures, so the cost grows with the number
of documents and not of pairs; what is lost are pairs that agree on none by chance. FineWeb drops all but one document
of whatever bands connect, and so can empty a source of forms and manuals; here a document goes only if its whole
signature resembles that of the one kept for it, and of a chain of edits every second text may stay.
"""

from typing import Any

import daft
import numpy as np
from daft import DataFrame, Expression, col, lit
from daft.functions import hash, minhash, normalize, regexp_replace, slice, when

from common.errors import InputError
from datamodules.curation.deduplication.connected_components import pairs_in_buckets
from datamodules.curation.deduplication.word_hashes import UNSPACED

RELATED = 0.5
"""Estimated similarity from which on two documents stay in one split, and texts of one URL count as one page."""


class NearDuplicates:
    """Finds groups of documents with many word n-grams in common.

    Args:
        words: n-gram length in words, lower-cased and without punctuation; in Chinese and other scripts without spaces
            every character is a word. A text of nothing but punctuation is compared as it is.
        bands, rows: the signature is cut into `bands` bands of `rows` hashes; 14 x 8 finds pairs of Jaccard
            similarity s with probability 1 - (1 - s^8)^14, half of them at s = 0.68.
        seed: of the hash functions.
        similarity: share of equal hashes with the document kept instead, from which on a document is dropped; 0.75 is
            what FineWeb aims at.

    Raises:
        InputError: for numbers below 1, odd rows, or a similarity below 0.5, which the bands do not find.
    """

    def __init__(self, words: int = 5, bands: int = 14, rows: int = 8, seed: int = 1, similarity: float = 0.75) -> None:
        if min(words, bands, rows) < 1:
            raise InputError(f"near_duplicates words={words}, bands={bands}, rows={rows}: each must be at least 1")
        if rows % 2:
            raise InputError(
                f"near_duplicates rows={rows} is odd: the split's looser banding halves it, give an even number"
            )
        if not RELATED <= similarity <= 1:
            raise InputError(
                f"near_duplicates similarity={similarity}: must lie between {RELATED} and 1, 0.75 is usual"
            )
        self.words, self.bands, self.rows, self.seed, self.similarity = words, bands, rows, seed, similarity

    def signature(self, text: Expression) -> Expression:
        """MinHash signature, a list of `bands * rows` uint32."""
        spaced = regexp_replace(text, UNSPACED, " $0 ")
        words = normalize(spaced, remove_punct=True, lowercase=True, nfd_unicode=False, white_space=True)
        # Without this all texts without a word would count as one.
        words = when(words == lit(""), text).otherwise(words)
        return minhash(
            words, num_hashes=self.bands * self.rows, ngram_size=self.words, seed=self.seed, hash_function="xxhash3_64"
        )

    def band_keys(self, signature: Expression, rows: int | None = None) -> list[Expression]:
        """Hash of each band, uint64: documents that agree on one are candidates.

        Args:
            signature: as `signature` gives it.
            rows: hashes in a band, `self.rows` where none is given; fewer find less similar pairs, half as many find
                half of the pairs at s = 0.40.
        """
        rows, size = rows or self.rows, self.bands * self.rows
        return [hash(slice(signature, start, start + rows), seed=start) for start in range(0, size, rows)]

    def edges(self, signatures: DataFrame, rows: int) -> np.ndarray:
        """Pairs of documents that agree on a band, of all bands.

        Args:
            signatures: columns `id` (uint64) and `signature`, collected.
            rows: hashes in a band, see `band_keys`.

        Returns:
            uint64 [pairs, 2] of ids; each member of a bucket is paired with the bucket's first.
        """
        ids = signatures.select(col("id").cast(daft.DataType.uint64())).to_arrow()["id"].to_numpy()
        found = [np.empty((0, 2), dtype=np.uint64)]
        for key in self.band_keys(col("signature"), rows):
            keys = signatures.select(key.alias("key")).to_arrow()["key"].to_numpy()
            found.append(pairs_in_buckets(ids, keys))
        return np.concatenate(found)

    def settings(self) -> dict[str, Any]:
        """Settings for the fingerprint."""
        return vars(self)


def probability_found(similarity: np.ndarray | float, bands: int = 14, rows: int = 8) -> np.ndarray | float:
    """Chance that two documents of a Jaccard similarity agree on a band, 1 - (1 - s^rows)^bands (Leskovec et al.)."""
    return 1 - (1 - similarity**rows) ** bands


def estimated_similarity(signature_a: np.ndarray, signature_b: np.ndarray) -> np.ndarray:
    """Share of equal hashes: an unbiased estimate of the Jaccard similarity s, of variance s (1 - s) / hashes.

    Args:
        signature_a, signature_b: uint32 [..., hashes], of the same shape.

    Returns:
        float64 [...].
    """
    return np.asarray((signature_a == signature_b).mean(axis=-1))

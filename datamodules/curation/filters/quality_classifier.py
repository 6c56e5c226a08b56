"""Quality classifier: logistic regression over hashed words and pairs of words, as a filter.

Linear on hashed features, as DCLM's fastText classifier (Li et al. 2024, section 4.4): it knows no word order beyond
pairs, and scores megabytes per second and core where FineWeb-Edu's encoder (Penedo et al. 2024) needs an accelerator.
`main.py classifier` trains one.
"""

import functools
import json
from pathlib import Path

import daft
import numpy as np
import numpy.typing as npt
from daft import DataType, Expression, Series
from safetensors.numpy import load_file

from common.artifacts import CHECKSUMS, verified
from common.compute.compiled import compiled
from common.compute.hashing import FNV_PRIME, FNV_START, murmur_mix
from common.errors import InputError
from datamodules.curation.filters.base import Filter, Threshold
from datamodules.curation.words.utf8_buffers import utf8_buffers

WEIGHTS, DESCRIPTION = "weights.safetensors", "classifier.json"


@compiled
def hashed_features(
    content: np.ndarray, start: int, end: int, words: int, counts: np.ndarray, touched: np.ndarray
) -> int:
    """Counts of the hashed words and pairs of neighboring words of one text.

    A word is a run of ASCII letters, lower-cased, and digits, or of characters beyond ASCII as they are.

    Args:
        content: uint8 [total], UTF-8.
        start: first byte of the text.
        end: behind its last byte.
        words: looked at, from the beginning.
        counts: int32 [buckets], a power of two; zero before, the counts after.
        touched: int64 [2 * words], receives the buckets that are no longer zero, in the order of the text.

    Returns:
        How many buckets were touched.
    """
    within = np.uint64(len(counts) - 1)
    found, seen = 0, 0
    previous, current = np.uint64(0), FNV_START
    inside = False
    for position in range(start, end + 1):
        byte = content[position] if position < end else np.uint8(32)
        if 65 <= byte <= 90:
            byte = np.uint8(byte + 32)
        if byte >= 128 or 97 <= byte <= 122 or 48 <= byte <= 57:
            current = (current ^ np.uint64(byte)) * FNV_PRIME  # FNV-1a
            inside = True
        elif inside:
            word = murmur_mix(current)
            for pair in range(2 if seen else 1):
                feature = murmur_mix(previous * FNV_PRIME + word) if pair else word
                bucket = np.int64(feature & within)
                if counts[bucket] == 0:
                    touched[found] = bucket
                    found += 1
                counts[bucket] += 1
            previous, current, inside = word, FNV_START, False
            seen += 1
            if seen == words:
                break
    return found


@compiled
def logits_of(content: np.ndarray, places: np.ndarray, words: int, weights: np.ndarray, bias: float) -> np.ndarray:
    """Logits float64 [texts]; arguments as in `hashed_features`, weights float32 [buckets]."""
    counts = np.zeros(len(weights), dtype=np.int32)
    touched = np.zeros(2 * words, dtype=np.int64)
    logits = np.zeros(len(places) - 1)
    for text in range(len(places) - 1):
        found = hashed_features(content, places[text], places[text + 1], words, counts, touched)
        total, squares = 0.0, 0.0
        for bucket in touched[:found]:
            value = 1.0 + np.log(counts[bucket])
            total += value * weights[bucket]
            squares += value * value
            counts[bucket] = 0
        logits[text] = bias + (total / np.sqrt(squares) if found else 0.0)
    return logits


def sigmoid(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """1 / (1 + exp(-logits)), without overflow."""
    result: npt.NDArray[np.float64] = np.exp(-np.logaddexp(0.0, -logits))
    return result


@functools.lru_cache(maxsize=4)
def load_weights(folder: str, checksum: str) -> np.ndarray:
    """Weights of a classifier, float32 [buckets]; the checksum is that of the file the caller means."""
    weights: np.ndarray = load_file(verified(Path(folder) / WEIGHTS))["weights"]
    return weights


class ClassifierFilter(Filter):
    """Filter by a classifier of `main.py classifier`; subclasses say which side of the threshold is dropped.

    Attributes:
        folder: of the classifier.
        threshold: probability at which documents are dropped.
        words: looked at of each document.
        bias: of the logit.
        checksum: of the weights, so that a classifier trained again makes the documents again.
    """

    LOCATIONS = ("folder",)
    measure: str
    """Name of the measurement."""

    def __init__(self, folder: str, threshold: float | None) -> None:
        path = Path(folder)
        if not (path / DESCRIPTION).is_file():
            raise InputError(f"folder={folder} holds no {DESCRIPTION}: train one with main.py classifier")
        description = json.loads(verified(path / DESCRIPTION).read_text(encoding="utf-8"))
        self.folder = folder
        self.threshold = description["threshold"] if threshold is None else threshold
        if not 0 <= self.threshold <= 1:
            raise InputError(f"threshold {self.threshold} of {folder}: a probability lies between 0 and 1")
        self.words, self.bias = description["words"], description["bias"]
        self.checksum = json.loads((path / CHECKSUMS).read_text(encoding="utf-8"))[WEIGHTS]
        load_weights(folder, self.checksum)

    def measures(self, text: Expression) -> dict[str, Expression]:
        """The probability that a text is of the positive class; null for no text."""
        folder, digest, words, bias = self.folder, self.checksum, self.words, self.bias

        @daft.func.batch(return_dtype=DataType.float64())
        def score(texts: Series) -> list[float | None]:
            content, places = utf8_buffers(texts)
            scores = sigmoid(logits_of(content, places, words, load_weights(folder, digest), bias)).tolist()
            return [None if absent else value for absent, value in zip(texts.is_null(), scores, strict=True)]

        return {self.measure: score(text)}


class QualityClassifier(ClassifierFilter):
    """Keeps what a classifier finds like its positive examples (DCLM: Li et al. 2024, section 4.4).

    Measures `quality_score`, by which the best of several duplicates is chosen as well.

    Args:
        folder: of a classifier that `main.py classifier` trained.
        min_score: documents scored lower are dropped; null takes the threshold chosen in training.

    Raises:
        InputError: when there is no classifier, it is damaged, or `min_score` is no probability.
    """

    summary = "quality by a trained classifier (DCLM: Li et al. 2024, section 4.4)"

    measure = "quality_score"

    def __init__(self, folder: str, min_score: float | None = None) -> None:
        super().__init__(folder, min_score)

    def thresholds(self) -> dict[str, Threshold]:
        """`low_quality`."""
        return {"low_quality": Threshold(self.measure, "<", self.threshold)}

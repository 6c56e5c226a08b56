"""Training of the quality classifier: logistic regression with L2, to its optimum.

The loss is convex, so full-batch L-BFGS finds the one optimum there is: no learning rate, no order of samples, no
seed. It wants the features of all documents in memory, about 4 kB each, which is why their number is bounded.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from common.compute.compiled import compiled
from datamodules.curation.filters.quality_classifier import hashed_features, sigmoid


@dataclass
class Features:
    """Sparse rows of unit length.

    Attributes:
        begins: int64 [documents + 1], where each row begins and the last one ends.
        buckets: int32 [values], the columns.
        values: float32 [values].
    """

    begins: np.ndarray
    buckets: np.ndarray
    values: np.ndarray


@compiled
def _row(content: np.ndarray, words: int, counts: np.ndarray, touched: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = hashed_features(content, 0, len(content), words, counts, touched)
    buckets, values = np.zeros(found, dtype=np.int32), np.zeros(found, dtype=np.float32)
    squares = 0.0
    for index in range(found):
        value = 1.0 + np.log(counts[touched[index]])
        buckets[index], values[index] = touched[index], value
        squares += value * value
        counts[touched[index]] = 0
    return buckets, values / np.float32(np.sqrt(squares)) if found else values


def featurize(texts: list[str], buckets: int, words: int) -> Features:
    """The features that `logits_of` computes on the way, for all texts."""
    counts, touched = np.zeros(buckets, dtype=np.int32), np.zeros(2 * words, dtype=np.int64)
    rows = [
        _row(np.frombuffer(text.encode(), dtype=np.uint8), words, counts, touched)
        for text in tqdm(texts, desc="features", unit=" documents", leave=False)
    ]
    begins = np.cumsum([0, *(len(columns) for columns, _ in rows)], dtype=np.int64)
    columns = np.concatenate([columns for columns, _ in rows])
    return Features(begins, columns, np.concatenate([values for _, values in rows]))


@compiled
def _products(begins: np.ndarray, buckets: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    result = np.zeros(len(begins) - 1)
    for row in range(len(result)):
        for index in range(begins[row], begins[row + 1]):
            result[row] += values[index] * weights[buckets[index]]
    return result


@compiled
def _transposed_products(
    begins: np.ndarray, buckets: np.ndarray, values: np.ndarray, residuals: np.ndarray, size: int
) -> np.ndarray:
    result = np.zeros(size)
    for row in range(len(residuals)):
        for index in range(begins[row], begins[row + 1]):
            result[buckets[index]] += values[index] * residuals[row]
    return result


def fit_logistic_regression(
    features: Features, labels: np.ndarray, buckets: int, l2: float, iterations: int
) -> tuple[np.ndarray, float]:
    """Weights and bias that minimize mean(log(1 + exp(-y z))) + l2 / 2 |w|^2, where z = x w + b and y = +-1.

    Args:
        features: a row per document.
        labels: float64 [documents], 1 for positive and 0 for negative.
        buckets: of the features.
        l2: weight of the penalty; the bias has none.
        iterations: of L-BFGS at most; it ends when the gradient vanishes.

    Returns:
        weights float32 [buckets], bias.
    """
    point = torch.zeros(buckets + 1, dtype=torch.float64)
    point.grad = torch.zeros_like(point)
    optimizer = torch.optim.LBFGS(
        [point], max_iter=iterations, tolerance_grad=1e-7, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )
    parts = (features.begins, features.buckets, features.values)
    signs = 2 * labels - 1
    with tqdm(desc="fitting", unit=" passes") as progress:

        def closure() -> float:
            weights, bias = point[:-1].numpy(), float(point[-1])
            logits = _products(*parts, weights) + bias
            loss = float(np.mean(np.logaddexp(0.0, -signs * logits)) + l2 / 2 * weights @ weights)
            residuals = (sigmoid(logits) - labels) / len(labels)
            gradient = _transposed_products(*parts, residuals, buckets) + l2 * weights
            assert point.grad is not None
            point.grad.copy_(torch.from_numpy(np.append(gradient, residuals.sum())))
            progress.update()
            progress.set_postfix(loss=f"{loss:.5f}")
            return loss

        step: Callable[[Callable[[], float]], object] = optimizer.step
        step(closure)
    return point[:-1].numpy().astype(np.float32), float(point[-1])

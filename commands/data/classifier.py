"""`classifier`: trains a text classifier for the filters `QualityClassifier` and `ToxicityClassifier`."""

import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import daft
import numpy as np
import torch
import xxhash
from safetensors.numpy import save_file
from torchmetrics.functional.classification import binary_accuracy, binary_auroc, binary_calibration_error
from tqdm import tqdm

from commands.mistakes import require_at_least
from common.artifacts import write_checksums
from common.errors import InputError
from common.path_lists import PathList, path_list
from datamodules.curation.filters.quality_classifier import DESCRIPTION, WEIGHTS, logits_of, sigmoid
from datamodules.curation.filters.quality_classifier_training import featurize, fit_logistic_regression
from datamodules.curation.words.utf8_buffers import utf8_buffers
from datamodules.readers import Files, Reader

VALIDATION_EVERY = 10
"""One text in ten is validation text, by its hash, so that copies of a text are on one side."""
BINS = 10
"""Of the calibration, equally wide."""


def train_classifier(
    positive: Reader | PathList,
    negative: Reader | PathList,
    output: str,
    sample: Reader | PathList | None = None,
    kept_share: float = 0.1,
    documents: int = 50_000,
    bucket_bits: int = 18,
    words: int = 2000,
    l2: float = 1e-5,
    iterations: int = 200,
    text_key: str = "text",
) -> None:
    """Train a text classifier: hashed words and pairs of words, logistic regression.

    Args:
        positive: a file or folder of examples to find more of, or a list of them; or a reader, by class_path.
        negative: a file, folder, list or reader of ordinary text.
        output: folder for the weights and their description.
        sample: text that the threshold is chosen on; null takes the validation examples of both kinds.
        kept_share: share of the sample scored above the threshold; DCLM keeps 0.1.
        documents: most documents of each kind, in the order of the reader.
        bucket_bits: features are hashed into 2 to this power.
        words: number of words read of each document, from its beginning.
        l2: weight of the penalty on large weights.
        iterations: most iterations of the optimizer.
        text_key: key of the text in JSON objects, column of the text in Parquet.
    """
    if not 0 < kept_share < 1:
        raise InputError(f"kept_share={kept_share}: must lie between 0 and 1")
    require_at_least(documents=(documents, 1), words=(words, 1), iterations=(iterations, 1))
    if not 8 <= bucket_bits <= 24:
        raise InputError(f"bucket_bits={bucket_bits}: must lie between 8 and 24")
    if not l2 > 0:
        raise InputError(f"l2={l2}: must be above 0")
    folder = Path(output)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"output={output}: already exists: choose a new folder")
    train: list[str] = []
    validation: list[str] = []
    labels: dict[str, list[float]] = {"train": [], "validation": []}
    seen: dict[int, str] = {}
    for label, kind, given in ((1.0, "positive", positive), (0.0, "negative", negative)):
        for text in read_texts(given, kind, documents, text_key):
            key = xxhash.xxh3_64_intdigest(text.encode())
            if (other := seen.setdefault(key, kind)) != kind:
                raise InputError(f"{kind}: a text is among the {other} ones too ({text[:40]!r}), leave it out of one")
            into = validation if key % VALIDATION_EVERY == 0 else train
            into.append(text)
            labels["validation" if into is validation else "train"].append(label)
    for side, values in labels.items():
        if len(set(values)) < 2:
            raise InputError(
                f"{side}: {int(sum(values))} positive and {len(values) - int(sum(values))} negative texts (one in "
                f"{VALIDATION_EVERY} is for validation), give more of both"
            )
    chosen_on = read_texts(sample, "sample", documents, text_key) if sample is not None else validation

    buckets = 2**bucket_bits
    weights, bias = fit_logistic_regression(
        featurize(train, buckets, words), np.array(labels["train"]), buckets, l2, iterations
    )
    scores = score(validation, words, weights, bias)
    threshold = float(np.quantile(score(chosen_on, words, weights, bias), 1 - kept_share))
    description: dict[str, Any] = {
        "words": words,
        "buckets": buckets,
        "bias": bias,
        "threshold": threshold,
        "kept_share": kept_share,
        "chosen_on": "sample" if sample is not None else "validation examples",
        "l2": l2,
        "trained_on": {"positive": int(sum(labels["train"])), "negative": labels["train"].count(0.0)},
        "validation": measure(scores, np.array(labels["validation"]), threshold),
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"weights": weights}, folder / WEIGHTS)
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    write_checksums(folder, WEIGHTS, DESCRIPTION)
    print(summary(description, folder))


def read_texts(given: Reader | PathList, kind: str, documents: int, text_key: str) -> list[str]:
    """Texts in canonical form, as rules see them.

    Raises:
        InputError: when there is none.
    """
    reader = given if isinstance(given, Reader) else Files(path_list(given), text_key=text_key)

    def texts() -> Iterator[str]:
        for file in reader.files():
            for document in reader.read(file):
                if document.text is not None and document.text.strip():
                    yield unicodedata.normalize("NFC", document.text)

    found: list[str] = []
    with tqdm(desc=f"reading {kind}", unit=" documents", leave=False) as progress:
        for text in texts():
            if len(found) == documents:
                break
            found.append(text)
            progress.update()
    if not found:
        raise InputError(f"{kind}: no text can be read there, name other files")
    return found


def score(texts: list[str], words: int, weights: np.ndarray, bias: float) -> np.ndarray:
    """Probabilities float64 [texts], as the rule computes them."""
    content, places = utf8_buffers(daft.Series.from_pylist(texts))
    return sigmoid(logits_of(content, places, words, weights, bias))


def measure(scores: np.ndarray, labels: np.ndarray, threshold: float) -> dict[str, Any]:
    """What the validation examples say of a classifier."""
    probabilities, truth = torch.from_numpy(scores), torch.from_numpy(labels).long()
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    return {
        "positive": int(labels.sum()),
        "negative": int((1 - labels).sum()),
        "accuracy": binary_accuracy(probabilities, truth).item(),
        "auc": binary_auroc(probabilities, truth).item(),
        "calibration_error": binary_calibration_error(probabilities, truth, n_bins=BINS).item(),
        "calibration": [
            {
                "scores": f"{index / BINS:.1f} to {(index + 1) / BINS:.1f}",
                "documents": int((bins == index).sum()),
                "mean_score": float(scores[bins == index].mean()),
                "positive_share": float(labels[bins == index].mean()),
            }
            for index in range(BINS)
            if (bins == index).any()
        ],
        "positive_kept": float((scores[labels == 1] >= threshold).mean()),
        "negative_kept": float((scores[labels == 0] >= threshold).mean()),
    }


def summary(description: dict[str, Any], folder: Path) -> str:
    """A page for the terminal."""
    validation, trained = description["validation"], description["trained_on"]
    lines = [
        f"classifier: {folder}",
        f"trained on {trained['positive']:,} positive and {trained['negative']:,} negative texts, validated on "
        f"{validation['positive']:,} and {validation['negative']:,}",
        f"validation accuracy {validation['accuracy']:.4f}, AUC {validation['auc']:.4f}, "
        f"calibration error {validation['calibration_error']:.4f}",
        f"threshold {description['threshold']:.4f} keeps {description['kept_share']:.0%} of the "
        f"{description['chosen_on']}; {validation['positive_kept']:.1%} of the positive validation texts and "
        f"{validation['negative_kept']:.1%} of the negative ones",
        "",
        f"{'scores':<14}{'documents':>12}{'mean score':>14}{'positive':>12}",
    ]
    rows = (
        f"{row['scores']:<14}{row['documents']:>12,}{row['mean_score']:>14.3f}{row['positive_share']:>12.3f}"
        for row in validation["calibration"]
    )
    return "\n".join([*lines, *rows])

"""The learned classifier against a naive one in float64, and the command that trains it."""

import itertools
import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import daft
import numpy as np
import pytest
from daft import col
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from datamodules.curation.filters.quality_classifier import DESCRIPTION, WEIGHTS, QualityClassifier, logits_of, sigmoid
from datamodules.curation.filters.quality_classifier_training import featurize, fit_logistic_regression
from datamodules.curation.filters.toxicity import ToxicityClassifier
from main import main

ALL_BITS = 2**64 - 1


def naive_mixed(value: int) -> int:
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value = ((value ^ (value >> 33)) * factor) & ALL_BITS
    return value ^ (value >> 33)


def naive_features(text: str, buckets: int, words: int) -> dict[int, float]:
    """Bucket -> value, of a vector of unit length."""
    found = []
    for word in re.findall(rb"[a-z0-9\x80-\xff]+", text.encode().lower())[:words]:
        value = 0xCBF29CE484222325
        for byte in word:
            value = ((value ^ byte) * 0x100000001B3) & ALL_BITS
        found.append(naive_mixed(value))
    pairs = [naive_mixed((first * 0x100000001B3 + second) & ALL_BITS) for first, second in itertools.pairwise(found)]
    counts = Counter(feature % buckets for feature in found + pairs)
    length = math.sqrt(sum((1 + math.log(count)) ** 2 for count in counts.values()))
    return {bucket: (1 + math.log(count)) / length for bucket, count in counts.items()}


texts_of_any_kind = st.lists(
    st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), st.just("The cat and the Cat 42 é")),
    max_size=6,
)


@settings(max_examples=80, deadline=None)
@given(texts=texts_of_any_kind, words=st.integers(1, 8))
def test_scores_equal_a_naive_version_in_float64(texts: list[str], words: int) -> None:
    weights = np.random.default_rng(0).normal(size=256).astype(np.float32)
    content = np.frombuffer("".join(texts).encode(), dtype=np.uint8)
    places = np.cumsum([0, *(len(text.encode()) for text in texts)], dtype=np.int64)
    found = logits_of(content, places, words, weights, 0.5)
    expected = [
        0.5 + sum(value * float(weights[bucket]) for bucket, value in naive_features(text, 256, words).items())
        for text in texts
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    if texts:
        features = featurize(texts, 256, words)
        for row, text in enumerate(texts):
            inside = slice(features.begins[row], features.begins[row + 1])
            mine = dict(zip(features.buckets[inside].tolist(), features.values[inside].tolist(), strict=True))
            assert mine == pytest.approx(naive_features(text, 256, words), rel=1e-5)


def test_training_ends_where_the_gradient_vanishes() -> None:
    generator = np.random.default_rng(1)
    vocabulary = [f"w{i}" for i in range(40)]
    chances = {1.0: np.linspace(1, 3, 40), 0.0: np.linspace(3, 1, 40)}
    labels = (np.arange(120) % 2).astype(np.float64)
    texts = [" ".join(generator.choice(vocabulary, 30, p=chances[y] / chances[y].sum())) for y in labels]
    weights, bias = fit_logistic_regression(featurize(texts, 512, 100), labels, 512, 1e-3, 500)
    rows = np.zeros((120, 512))
    for row, text in enumerate(texts):
        for bucket, value in naive_features(text, 512, 100).items():
            rows[row, bucket] = value
    residuals = 1 / (1 + np.exp(-(rows @ weights.astype(np.float64) + bias))) - labels
    assert np.abs(rows.T @ residuals / 120 + 1e-3 * weights).max() < 1e-6
    assert abs(residuals.mean()) < 1e-6
    assert ((residuals < 0.5) & (residuals > -0.5)).mean() > 0.9


def write_examples(folder: Path) -> tuple[Path, Path]:
    """Small functions with docstrings, and paragraphs of licenses, told apart by words alone."""
    verbs, nouns = ["Return", "Compute", "Raise", "Parse", "Yield"], ["value", "array", "path", "token", "list", "mask"]
    terms = ["license", "software", "warranty", "liability", "copyright", "redistribution", "damages"]
    generator = np.random.default_rng(2)
    paths = folder / "docstrings.jsonl", folder / "licenses.jsonl"
    with paths[0].open("w") as file:
        for i in range(150):
            a, b = generator.choice(nouns, 2)
            text = f"{generator.choice(verbs)} the {a} of the {b} {i}.\n\nArgs:\n    {b}: x\n"
            file.write(json.dumps({"text": text}) + "\n")
    with paths[1].open("w") as file:
        for i in range(150):
            a, b, c = generator.choice(terms, 3)
            text = f"The {a} and the {b} of the {c}, section {i}, are provided as is.\n"
            file.write(json.dumps({"text": text}) + "\n")
    return paths


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    positive, negative = write_examples(folder)
    for name, examples in (("first", f"[{positive}]"), ("second", str(positive))):
        main(["classifier", "--positive", examples, "--negative", f"[{negative}]",
              "--output", str(folder / name), "--kept_share", "0.4", "--bucket_bits", "14"])  # fmt: skip
    return folder


@pytest.mark.end_to_end
def test_the_command_learns_and_says_how_well(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    description: dict[str, Any] = json.loads((trained / "first" / DESCRIPTION).read_text())
    validation = description["validation"]
    assert validation["auc"] > 0.99
    assert validation["accuracy"] > 0.95
    assert validation["positive"] + validation["negative"] + sum(description["trained_on"].values()) == 300
    assert sum(row["documents"] for row in validation["calibration"]) == validation["positive"] + validation["negative"]
    kept = validation["positive_kept"] * validation["positive"] + validation["negative_kept"] * validation["negative"]
    assert kept / (validation["positive"] + validation["negative"]) == pytest.approx(0.4, abs=0.05)
    for name in (WEIGHTS, DESCRIPTION):
        assert (trained / "first" / name).read_bytes() == (trained / "second" / name).read_bytes()


@pytest.mark.end_to_end
def test_the_rule_scores_alike_in_any_batch(trained: Path) -> None:
    texts = ["Return the array of the path.", "The warranty and the liability of the software.", None, "", "x " * 5000]
    rule, toxic = QualityClassifier(str(trained / "first")), ToxicityClassifier(str(trained / "first"), 0.9)

    def scores(chosen: list[str | None]) -> list[float | None]:
        df = daft.from_pydict({"text": daft.Series.from_pylist(chosen, dtype=daft.DataType.string())})
        scored = df.select(rule.measures(col("text"))["quality_score"].alias("score")).to_pydict()
        return list(scored["score"])

    together = scores(texts)
    assert together == [scores([text])[0] for text in texts] == scores([*texts, *texts])[5:]
    assert together[0] is not None
    assert together[1] is not None
    assert together[0] > 0.9
    assert together[1] < 0.1
    assert together[2] is None
    description = json.loads((trained / "first" / DESCRIPTION).read_text())
    weights = load_file(trained / "first" / WEIGHTS)["weights"]
    naive = naive_features(str(texts[0]), len(weights), description["words"])
    logit = description["bias"] + sum(value * float(weights[bucket]) for bucket, value in naive.items())
    assert together[0] == pytest.approx(float(sigmoid(np.array([logit]))[0]), abs=1e-9)
    assert rule.thresholds()["low_quality"].threshold == description["threshold"]
    assert toxic.thresholds()["toxic"].threshold == 0.9
    json.dumps(vars(rule))


@pytest.mark.end_to_end
def test_what_cannot_be_learned_from_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    positive, negative = trained / "docstrings.jsonl", trained / "licenses.jsonl"
    empty, few = trained / "empty.jsonl", trained / "few.jsonl"
    empty.write_text("\n")
    few.write_text(json.dumps({"text": "alone"}))
    for arguments, words in [
        (["--positive", f"[{empty}]", "--negative", f"[{negative}]"], "positive: no text"),
        (["--positive", f"[{few}]", "--negative", f"[{negative}]"], "give more of both"),
        (["--positive", f"[{positive}]", "--negative", f"[{positive}]"], "is among the positive ones too"),
        (["--positive", f"[{positive}]", "--negative", f"[{negative}]", "--kept_share", "0"], "kept_share=0"),
        (["--positive", f"[{positive}]", "--negative", f"[{trained / 'absent'}]"], "does not exist"),
    ]:
        with pytest.raises(SystemExit) as raised:
            main(["classifier", *arguments, "--output", str(trained / "refused")])
        assert raised.value.code == 2
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert words in line
        assert line.startswith("error: ")
        assert not (trained / "refused").exists()
    with pytest.raises(SystemExit):
        main(["classifier", "--positive", f"[{positive}]", "--negative", f"[{negative}]", "--output", str(trained)])
    assert "choose a new folder" in capsys.readouterr().err


@pytest.mark.end_to_end
def test_a_damaged_or_missing_classifier_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="main.py classifier"):
        QualityClassifier(str(tmp_path))
    for name in (WEIGHTS, DESCRIPTION, "checksums.json"):
        (tmp_path / name).write_bytes((trained / "first" / name).read_bytes())
    with pytest.raises(ValueError, match="probability"):
        QualityClassifier(str(tmp_path), 1.5)
    raw = bytearray((tmp_path / WEIGHTS).read_bytes())
    raw[-1] ^= 1
    (tmp_path / WEIGHTS).write_bytes(raw)
    with pytest.raises(ValueError, match="damaged"):
        QualityClassifier(str(tmp_path / "."))

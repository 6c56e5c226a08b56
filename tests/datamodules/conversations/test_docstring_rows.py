"""Pairs of docstrings: real ones, no one's own as the wrong one, and nothing of validation known from training."""

from collections import Counter
from typing import Any

import pytest

from datamodules import DocstringRows
from datamodules.conversations.example_store import split_of

FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.8)


@pytest.fixture(scope="module", params=[1, 2, 4])
def rows(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    made = DocstringRows(["jsonargparse", "lightning"], max_megabytes=6, negatives=request.param).rows()
    return [row for row in made if isinstance(row, dict)]


def pairs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if "chosen" in row]


def test_pairs_are_real_and_no_one_gets_their_own(rows: list[dict[str, Any]]) -> None:
    assert len(rows) > 400
    assert len(pairs(rows)) > 0.9 * len(rows)
    assert all(row["chosen"] != row["rejected"] for row in pairs(rows))
    assert {row["chosen"] for row in pairs(rows)} == {row["rejected"] for row in pairs(rows)}
    assert Counter(row["chosen"] for row in pairs(rows)) == Counter(row["rejected"] for row in pairs(rows))
    assert all(row["response"] == row.get("chosen", row["response"]) for row in rows)
    assert all(row["prompt"].startswith(("def ", "async def ", "@")) for row in rows)
    assert not any(row["response"] in " ".join(row["prompt"].split()) for row in rows)


def test_no_pair_is_there_twice_and_a_prompt_has_one_answer(rows: list[dict[str, Any]]) -> None:
    assert len({(row["prompt"], row["rejected"]) for row in pairs(rows)}) == len(pairs(rows))
    assert len({row["prompt"] for row in rows}) == len({row["response"] for row in rows})


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_nothing_of_validation_is_known_from_training(rows: list[dict[str, Any]], seed: int) -> None:
    """Neither right nor wrong docstrings, for any fraction and any seed of the split."""
    for fraction in FRACTIONS:
        train = [row for row in pairs(rows) if split_of(row["group"], fraction, seed) == "train"]
        validated = [row for row in pairs(rows) if split_of(row["group"], fraction, seed) == "validation"]
        seen = {row[side] for row in train for side in ("chosen", "rejected")}
        leaked = sum(row[side] in seen for row in validated for side in ("chosen", "rejected"))
        assert leaked == 0, (fraction, leaked)
        assert not {row["prompt"] for row in train} & {row["prompt"] for row in validated}


def test_a_memorizer_of_the_training_labels_is_at_chance(rows: list[dict[str, Any]]) -> None:
    """It prefers the docstring chosen more often than rejected in training, and guesses where it knows none."""
    for fraction in FRACTIONS:
        train = [row for row in pairs(rows) if split_of(row["group"], fraction, 0) == "train"]
        validated = [row for row in pairs(rows) if split_of(row["group"], fraction, 0) == "validation"]
        liked = Counter(row["chosen"] for row in train)
        liked.subtract(row["rejected"] for row in train)
        liked.update({row["chosen"]: 1 for row in train[: len(train) // 2]})  # an epoch that is not over
        margins = [liked[row["chosen"]] - liked[row["rejected"]] for row in validated]
        hits = sum(1 if margin > 0 else 0.5 if margin == 0 else 0 for margin in margins)
        if validated:
            assert hits / len(validated) == pytest.approx(0.5, abs=0.05)


def test_the_share_of_validation_is_the_fraction() -> None:
    """Also of a sample: what is read of many files is chosen by a hash, and not by that of the split."""
    rows = [row for row in DocstringRows(["lightning", "sympy"], max_megabytes=5).rows() if isinstance(row, dict)]
    for fraction in (0.05, 0.2, 0.5):
        shares = [
            sum(split_of(row["group"], fraction, seed) == "validation" for row in rows) / len(rows)
            for seed in range(5)
        ]  # fmt: skip
        assert sum(shares) / len(shares) == pytest.approx(fraction, abs=0.4 * fraction)

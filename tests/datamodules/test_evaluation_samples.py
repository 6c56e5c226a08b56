"""What is evaluated of the validation split where that is less than all of it: a sample of it, not its beginning."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules import FileRows, PreferenceData, PromptData, SFTData

COUNT, LIMIT = 400, 25


def row(number: int) -> dict[str, Any]:
    """Rows sorted by length, as a data set sorted by source or difficulty is."""
    answer = "ba " * (1 + number // 10)
    return {"prompt": f"p {number}", "response": answer, "chosen": answer, "rejected": f"{answer} no"}


@pytest.fixture
def data(tokenizer_file: Path, tmp_path: Path) -> Callable[..., Any]:
    def make(kind: Any, **settings: Any) -> Any:
        path = tmp_path / "rows.jsonl"
        if not path.exists():
            path.write_text("\n".join(json.dumps(row(number)) for number in range(COUNT)))
        made = kind(
            str(tmp_path / "data"), FileRows(str(path)), tokenizer=str(tokenizer_file), chat_template="plain",
            validation_fraction=0.5, batch_size=1, **settings,
        )  # fmt: skip
        made.setup("fit")
        return made

    return make


def evaluated(made: Any) -> list[dict[str, Any]]:
    return [batch for batch in made.val_dataloader() if int(batch["sample"][0]) >= 0]


def learned(batch: dict[str, Any]) -> int:
    return int((batch["labels"] >= 0).sum())


def test_conversations_of_any_length_are_evaluated(data: Callable[..., Any]) -> None:
    """Rows are packed with the longest conversations first."""
    every, some = (evaluated(data(SFTData, sequence_length=96, validation_rows=rows)) for rows in (None, LIMIT))
    assert len(some) == LIMIT < len(every) / 2

    def longest(batches: list[dict[str, Any]]) -> float:
        documents = [batch["document_ids"][batch["labels"] >= 0].numpy() for batch in batches]
        return float(np.mean([np.bincount(row).max() for row in documents]))

    assert longest(some) == pytest.approx(longest(every), rel=0.2)
    assert sum(map(learned, every)) == data(SFTData, sequence_length=96).examples["validation"].trained_tokens.sum()


def test_pairs_of_the_whole_split_are_evaluated(data: Callable[..., Any]) -> None:
    every, some = (evaluated(data(PreferenceData, max_tokens=256, validation_pairs=pairs)) for pairs in (None, LIMIT))
    assert (len(some), len({int(batch["example"][0]) for batch in some})) == (LIMIT, LIMIT)
    assert {int(batch["example"][0]) for batch in every} == set(range(len(every)))
    lengths = [np.mean([learned(batch) for batch in batches]) for batches in (some, every)]
    assert lengths[0] == pytest.approx(lengths[1], rel=0.25)


def test_prompts_of_the_whole_split_are_evaluated(data: Callable[..., Any]) -> None:
    every, some = (
        [int(batch["rows"][0]["prompt"].split()[1]) for batch in evaluated(data(PromptData, validation_prompts=count))]
        for count in (None, LIMIT)
    )
    assert len({*some}) == LIMIT
    assert len({*every}) == len(every)
    assert np.mean(some) == pytest.approx(np.mean(every), rel=0.25)


@pytest.mark.parametrize(
    ("kind", "name"), [(SFTData, "validation_rows"), (PreferenceData, "validation_pairs"), (PromptData,
    "validation_prompts")],
)  # fmt: skip
def test_fewer_are_among_more_and_the_order_is_no_setting_of_training(
    data: Callable[..., Any], kind: Any, name: str
) -> None:
    def seen(**settings: Any) -> list[str]:
        length = {"sequence_length": 96} if kind is SFTData else {}
        batches = evaluated(data(kind, **length, **settings))
        return [str(batch["prompts"] if kind is PromptData else batch["tokens"].tolist()) for batch in batches]

    assert {*seen(**{name: 7})} < {*seen(**{name: 20})} < {*seen()}
    assert seen(**{name: 7}) == seen(**{name: 7}, seed=3)
    assert seen(**{name: 10**6}) == seen()

"""Pairs: what is shortened, split and stored."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from datamodules import FileRows, PreferenceData, SFTData
from datamodules.conversations.chat_template import Encoded
from datamodules.mixing.samplers import DistributedBatchSampler, EpochOrder, StepBatchSampler
from datamodules.preferences import shorten
from datamodules.tokenization.files import load_tokenizer


def encoded(prompt: int, response: int, ending: int) -> Encoded:
    ids = [1, *range(100, 100 + prompt - 1), *range(1000 * ending, 1000 * ending + response - 1), 2]
    return Encoded(ids, [False] * prompt + [True] * response, prompt)


@settings(max_examples=200, deadline=None)
@given(prompt=st.integers(1, 60), first=st.integers(1, 60), second=st.integers(1, 60), most=st.integers(8, 90))
def test_the_prompt_gives_way_first(prompt: int, first: int, second: int, most: int) -> None:
    chosen, rejected = encoded(prompt, first, 1), encoded(prompt, second, 2)
    (kept, a, b), cut = shorten(chosen, rejected, most)
    whole, response = chosen.prompt_and_response()
    assert kept[0] == 1
    assert kept[1:] == whole[len(whole) - len(kept) + 1 :]
    assert a == response[: len(a)]
    assert len(kept) + max(len(a), len(b)) <= most
    if prompt + max(first, second) <= most:
        assert (len(kept), len(a), len(b)) == (prompt, first, second)
    else:
        # Not one token more than needed; responses end, but where the prompt would have less than a quarter.
        assert len(kept) + max(len(a), len(b)) == most
        assert (len(a), len(b)) == (first, second) or len(kept) == min(prompt, most // 4)
    assert cut == ("prompt",) * (len(kept) < prompt) + ("response",) * ((len(a), len(b)) != (first, second))


def data(kind: Any, tokenizer: Path, rows: list[Any], folder: Path, **settings: Any) -> Any:
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) if not isinstance(row, str) else row for row in rows))
    reader = FileRows([str(folder / "rows.jsonl")])
    return kind(
        str(folder / "data"),
        reader,
        tokenizer=str(tokenizer),
        chat_template="chatml",
        validation_fraction=0.3,
        **settings,
    )


def test_every_row_is_kept_or_counted(tokenizer_file: Path, tmp_path: Path) -> None:
    rows: list[Any] = [{"prompt": f"p {i}", "chosen": f"c{i}", "rejected": "r"} for i in range(30)]
    rows += [{"prompt": "x", "chosen": "same", "rejected": "same"}, {"prompt": "x"}, "{broken", "[1]"]
    rows += [{"prompt": "y", "chosen": "z" * 500, "rejected": "z" * 501}]  # equal once cut
    rows += [{"prompt": "long " * 200, "chosen": "yes", "rejected": "no"}]
    rows += [{"prompt": "m", "chosen": "a", "rejected": "b", "margin": margin} for margin in (10**400, 1e39, "1")]
    rows += [{"prompt": "s", "chosen": "a", "rejected": "b", "score_chosen": "0.9", "score_rejected": 0.1}]
    rows += [{"prompt": None, "messages": None, "chosen": "a", "rejected": "b"}]
    pairs = data(PreferenceData, tokenizer_file, rows, tmp_path, max_tokens=64)
    pairs.setup("fit")
    summary = pairs.summary()
    assert summary["rows"] == 41
    assert sum(summary["kept"].values()) == 31
    assert summary["dropped"] == {
        "equal_responses": 1, "missing_keys": 1, "invalid_json": 1, "no_object": 1, "responses_truncated_to_equal": 1,
        "invalid_margin": 4, "no_transcript": 1,
    }  # fmt: skip
    assert summary["cut"] == {"prompt": 1}
    assert "same" in summary["excerpts"]["equal_responses"][0]
    tokenizer = load_tokenizer(tokenizer_file)
    for split in ("train", "validation"):
        for number in range(len(pairs.examples[split])):
            prompt, chosen, rejected = (tokens.tolist() for tokens, _ in pairs.examples[split].segments(number))
            assert [*prompt, *chosen].count(tokenizer.bos) == 1
            assert prompt[0] == tokenizer.bos
            assert (chosen[-1], rejected[-1]) == (tokenizer.eos, tokenizer.eos)


def test_soft_labels_come_with_their_pairs(tokenizer_file: Path, tmp_path: Path) -> None:
    rows: list[Any] = [
        {"prompt": f"p {i}", "chosen": "c" * (1 + i), "rejected": "r", "preference_probability": 0.5 + i / 80}
        for i in range(40)
    ]
    pairs = data(PreferenceData, tokenizer_file, rows, tmp_path)
    pairs.setup("fit")
    by_response = {}
    for batch in pairs.val_dataloader():
        for number, probability in zip(batch["example"].tolist(), batch["probabilities"].tolist(), strict=True):
            if number >= 0:
                response = tuple(pairs.examples["validation"].segments(number)[1][0].tolist())
                by_response[response] = probability
    assert len(by_response) == len(pairs.validation_dataset)
    tokenizer = load_tokenizer(tokenizer_file)
    for response, probability in by_response.items():
        assert probability == pytest.approx(0.5 + (len(tokenizer.decode(response)) - 1) / 80)
    hard = data(PreferenceData, tokenizer_file, [row | {"preference_probability": 1} for row in rows], tmp_path)
    hard.setup("fit")
    assert "probabilities" not in next(iter(hard.val_dataloader()))


def spelled(number: int, form: str) -> dict[str, Any]:
    """One of six pairs on one of ten prompts."""
    prompt = f"p {number % 10}"
    if form == "transcript":
        head = f"\n\nHuman: {prompt}\n\nAssistant: "
        return {"chosen": f"{head}c{number}", "rejected": f"{head}r"}
    if form == "messages":
        head = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": prompt}]
        return {
            side: [*head, {"role": "assistant", "content": response}]
            for side, response in (("chosen", f"c{number}"), ("rejected", "r"))
        }
    return {"prompt": prompt, "chosen": f"c{number}", "rejected": "r"}


@pytest.mark.parametrize("form", ["prompt", "transcript", "messages"])
def test_prompts_never_part(tokenizer_file: Path, tmp_path: Path, form: str) -> None:
    rows = [spelled(i, form) for i in range(60)]
    pairs = data(PreferenceData, tokenizer_file, rows, tmp_path)
    pairs.setup("fit")
    prompts = [
        {tuple(pairs.examples[split].segments(i)[0][0].tolist()) for i in range(len(pairs.examples[split]))}
        for split in ("train", "validation")
    ]
    assert prompts[0]
    assert prompts[1]
    assert not prompts[0] & prompts[1]


def test_packed_conversations_hold_every_label_once(tokenizer_file: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"p {i}", "response": "reply " * (1 + i % 7)} for i in range(40)]
    conversations = data(SFTData, tokenizer_file, rows, tmp_path, sequence_length=96)
    conversations.setup("fit")
    packed, examples = conversations.train_rows, conversations.examples["train"]
    found: list[int] = []
    for row in range(len(packed)):
        labels = packed.row(row)["labels"]
        assert (labels >= 0).sum() == packed.labels[row]
        found += labels[labels >= 0].tolist()
    expected = [int(t) for i in range(len(examples)) for t in examples.segments(i)[0][0][examples.segments(i)[0][1]]]
    assert sorted(found) == sorted(expected)
    assert len(packed) < len(examples) / 2


def test_orders_and_steps() -> None:
    order = EpochOrder(7, seed=3)
    epochs = [[order[7 * epoch + i] for i in range(7)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    # Two ranks, batches of 2, 3 of them accumulated, from sample 5 on.
    keys = [
        iter(StepBatchSampler(DistributedBatchSampler(lambda: 5, lambda: itertools.repeat(2), rank, 2), 12))
        for rank in range(2)
    ]
    for step in range(2):
        seen = []
        for _ in range(3):
            for rank in keys:
                key = next(rank)
                assert key.step == list(range(5 + 12 * step, 17 + 12 * step))
                seen += key.samples
        assert sorted(seen) == key.step


def test_batches_bring_the_log_probabilities_of_their_pairs(tokenizer_file: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"p {i}", "chosen": f"c{i}", "rejected": "r"} for i in range(30)]
    pairs = data(PreferenceData, tokenizer_file, rows, tmp_path)
    pairs.setup("fit")
    values = {split: torch.randn(len(pairs.examples[split]), 2).numpy() for split in ("train", "validation")}
    pairs.attach_reference(values)
    batch = next(iter(pairs.val_dataloader()))
    expected = values["validation"][batch["example"].numpy()].reshape(-1)
    assert batch["reference"].tolist() == expected.tolist()


def test_a_common_system_message_makes_no_common_group(tokenizer_file: Path, tmp_path: Path) -> None:
    system = {"role": "system", "content": "Be kind."}
    rows = [
        {"messages": [system, {"role": "user", "content": f"q {i}"}, {"role": "assistant", "content": f"a {i}"}]}
        for i in range(30)
    ]
    conversations = data(SFTData, tokenizer_file, rows, tmp_path, sequence_length=96)
    conversations.setup("fit")
    assert all(conversations.summary()["kept"].values())


def test_an_unrelated_response_is_another_prompts_and_fits(
    tokenizer_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two pairs per prompt, one after the other, share the chosen response."""
    rows = [
        {"prompt": f"p {i} " * (1 + i % 12), "chosen": f"reply {i} " * 9, "rejected": f"r{i}{k}"}
        for i in range(40)
        for k in range(2)
    ]
    pairs = data(PreferenceData, tokenizer_file, rows, tmp_path, max_tokens=64)
    pairs.setup("fit")
    pairs.use_unrelated_responses()
    cut = 0
    for number in range(len(pairs.train_pairs)):
        prompt, chosen, _ = (tokens.tolist() for tokens, _ in pairs.examples["train"].segments(number))
        unrelated = pairs.train_pairs.responses(number)[2].tolist()
        assert 1 <= len(unrelated) <= 64 - len(prompt)
        assert unrelated != chosen
        cut += unrelated[-1] != chosen[-1]
    assert cut
    monkeypatch.setattr(pairs.examples["train"], "segments", lambda number: [(np.ones(3), np.ones(3))] * 3)
    with pytest.raises(InputError, match="share one"):
        pairs.train_pairs.unrelated_response(0)

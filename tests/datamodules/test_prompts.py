"""Prompts: which are kept, which are for validation, what comes with them, and where a killed run goes on."""

import json
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from common.errors import InputError
from datamodules import FileRows, PreferenceData, PromptData
from datamodules.conversations.example_store import Example, Examples, split_of, write_examples
from datamodules.conversations.messages import Unusable
from datamodules.conversations.row_formats import question
from datamodules.tokenization.files import load_tokenizer

ASK, SAY = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}


def data(tokenizer: Path, rows: list[Any], folder: Path, kind: Any = PromptData, **further: Any) -> Any:
    text = "\n".join(json.dumps(row) if not isinstance(row, str) else row for row in rows)
    if not (folder / "rows.jsonl").exists():  # a file that changed is other data
        (folder / "rows.jsonl").write_text(text)
    arguments = {"chat_template": "chatml", "validation_fraction": 0.3, "batch_size": 4} | further
    return kind(str(folder / "data"), FileRows([str(folder / "rows.jsonl")]), tokenizer=str(tokenizer), **arguments)


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"prompt": "Why?"}, [ASK]),
        ({"prompt": [ASK, SAY, ASK], "response": "So."}, [ASK, SAY, ASK]),
        ({"messages": [ASK, SAY]}, [ASK]),
        ({"messages": [ASK, SAY, ASK]}, [ASK, SAY, ASK]),
        ({"prompt": "Why?", "chosen": "a", "rejected": "a"}, [ASK]),
        ({"chosen": [ASK, SAY], "rejected": [ASK, SAY]}, [ASK]),
        ({"chosen": "\n\nHuman: Why?\n\nAssistant: Because.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."}, [ASK]),
        ({"chosen": "\n\nHuman: Why?\n\nAssistant: Because."}, [ASK]),
    ],
)
def test_questions(row: dict[str, Any], messages: list[Any]) -> None:
    assert question(row) == messages


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "a"}, "no_prompt"),
        ({"prompt": None}, "no_prompt"),
        ({"prompt": " \n"}, "empty_prompt"),
        ({"messages": [SAY]}, "empty_prompt"),
        ({"prompt": 3}, "invalid_messages"),
        ({"prompt": []}, "invalid_messages"),
        ({"prompt": [ASK, SAY]}, "prompt_ends_with_a_response"),
        ({"messages": [ASK, SAY, SAY]}, "prompt_ends_with_a_response"),
        ({"chosen": "no turns"}, "no_transcript"),
        ({"chosen": [ASK, SAY], "rejected": [SAY, SAY]}, "different_prompts"),
    ],
)
def test_rows_without_a_question_have_a_reason(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unusable, match=f"^{reason}$"):
        question(row)


def test_every_row_is_kept_or_counted(tokenizer_file: Path, tmp_path: Path) -> None:
    good = [{"prompt": f"p {i}", "answer": str(i), "extra": {"é": [i, None]}} for i in range(30)]
    bad = [{"prompt": "long " * 200}, {"answer": "x"}, "{broken", {"prompt": ""}, {"prompt": [ASK, SAY]}]
    prompts = data(tokenizer_file, good + bad, tmp_path, max_prompt_tokens=40)
    prompts.setup("fit")
    summary = prompts.summary()
    assert summary["rows"] == 35
    assert sum(summary["kept"].values()) == 30
    assert summary["dropped"] == {
        "prompt_too_long": 1, "no_prompt": 1, "invalid_json": 1, "empty_prompt": 1, "prompt_ends_with_a_response": 1,
    }  # fmt: skip
    rows = list(prompts.every_row())
    assert sorted(rows, key=lambda row: int(row["answer"])) == good
    tokenizer = load_tokenizer(tokenizer_file)
    batch = next(iter(prompts.train_dataloader()))
    assert set(batch) == {"prompts", "rows", "sample", "source"}
    assert (batch["source"], batch["sample"].tolist(), batch["sample"].dtype) == ("prompts", [0, 1, 2, 3], torch.int64)
    for ids, row in zip(batch["prompts"], batch["rows"], strict=True):
        assert ids == prompts.template.encode_prompt([{"role": "user", "content": row["prompt"]}])
        assert ids.count(tokenizer.bos) == 1
        assert row in good
    with pytest.raises(InputError, match="max_prompt_tokens=0"):
        data(tokenizer_file, good, tmp_path, max_prompt_tokens=0)


def test_an_epoch_holds_every_prompt_once_and_evaluation_too(tokenizer_file: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"p {i}", "answer": i, "group": f"g {i // 3}"} for i in range(90)]
    prompts = data(tokenizer_file, rows, tmp_path, batch_size=3)
    prompts.setup("fit")
    train = len(prompts.train_prompts)
    batches = iter(prompts.train_dataloader())
    drawn = [next(batches) for _ in range(3 * train)]
    numbers = [number for batch in drawn for number in batch["sample"].tolist()]
    answers = [row["answer"] for batch in drawn for row in batch["rows"]]
    assert numbers == list(range(9 * train))
    epochs = [answers[epoch * train : (epoch + 1) * train] for epoch in range(9)]
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    validation = list(prompts.val_dataloader())
    real = [
        row["answer"] for batch in validation for row, n in zip(batch["rows"], batch["sample"], strict=True) if n >= 0
    ]
    assert sorted(real + epochs[0]) == list(range(90))
    assert all(len(batch["prompts"]) == len(batch["rows"]) == len(batch["sample"]) == 3 for batch in validation)
    assert {answer // 3 for answer in real}.isdisjoint(answer // 3 for answer in epochs[0])
    few = data(tokenizer_file, rows, tmp_path, validation_prompts=5)
    few.setup("fit")
    assert sum(int((batch["sample"] >= 0).sum()) for batch in few.val_dataloader()) == 5


def test_validation_pairs_are_validation_prompts(tokenizer_file: Path, tmp_path: Path) -> None:
    head = "\n\nHuman: p {}\n\nAssistant: "
    rows = [{side: head.format(i) + side for side in ("chosen", "rejected")} for i in range(60)]
    kinds = [data(tokenizer_file, rows, tmp_path, kind) for kind in (PromptData, PreferenceData)]
    for kind in kinds:
        kind.setup("fit")
    validation = [
        {tuple(kind.examples["validation"].segments(i)[0][0].tolist()) for i in range(len(kind.examples["validation"]))}
        for kind in kinds
    ]
    assert validation[0] == validation[1]
    assert len(validation[0]) > 5


def test_damaged_rows_are_refused(tokenizer_file: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"p {i}"} for i in range(40)]
    prompts = data(tokenizer_file, rows, tmp_path)
    file = prompts.run_stages() / "train-rows.jsonl"
    file.write_bytes(file.read_bytes().replace(b"p 1", b"p 2"))
    with pytest.raises(InputError, match="damaged"):
        prompts.setup("fit")


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3))


@settings(max_examples=30, deadline=None)
@given(
    made=st.lists(
        st.tuples(
            st.lists(st.lists(st.integers(0, 399), max_size=6), min_size=2, max_size=2),
            st.dictionaries(st.text(), JSON, max_size=3),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_what_is_written_is_read_again(made: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("examples")

    def convert(row: Any) -> Example:
        segments, kept = made[row["number"]]
        trained = [[token % 2 == 0 for token in segment] for segment in segments]
        return Example(segments, trained, str(row["number"]), margin=row["number"] / 2, row=kept)

    rows: list[Any] = [{"number": number} for number in range(len(made))]
    if len({split_of(str(number), 0.5, 0) for number in range(len(made))}) < 2:
        with pytest.raises(InputError, match="leave no example for"):
            write_examples(folder, rows, convert, 0.5, 0, 400)
        return
    write_examples(folder, rows, convert, 0.5, 0, 400)
    found = []
    for split in ("train", "validation"):
        examples = Examples(folder, split)
        for number in range(len(examples)):
            segments = examples.segments(number)
            margin = float(examples.margins[number])
            found.append((margin, [tokens.tolist() for tokens, _ in segments], examples.row(number)))
            assert all((marks == (tokens % 2 == 0)).all() for tokens, marks in segments)
        assert examples.lengths.shape == (len(examples), 2)
    expected = [(number / 2, segments, kept) for number, (segments, kept) in enumerate(made)]
    assert sorted(found, key=lambda one: one[0]) == expected


class Learner(lightning.LightningModule):
    """Learns from each batch in a number of steps that it does not know before, as PPO does."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.layer = torch.nn.Linear(1, 1)
        self.seen: list[tuple[int, str]] = []

    def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def training_step(self, batch: dict[str, Any], batch_index: int) -> None:
        optimizer: Any = self.optimizers()
        for _ in range(1 + int(batch["sample"][0]) % 3):
            optimizer.zero_grad()
            self.layer(torch.ones(1)).sum().backward()
            optimizer.step()
        self.seen += [(int(n), row["prompt"]) for n, row in zip(batch["sample"], batch["rows"], strict=True)]


class Saved(lightning.pytorch.callbacks.Callback):
    """Saves after the third batch, as `callbacks.Checkpoints` does."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 2 and not self.path.exists():
            trainer.save_checkpoint(self.path)


@pytest.mark.end_to_end
@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_goes_on_with_the_first_prompt_not_learned_from(
    tokenizer_file: Path, tmp_path: Path, workers: int
) -> None:
    rows = [{"prompt": f"p {i}"} for i in range(40)]

    def fit(batches: int, checkpoint: Path | None = None, batch_size: int = 4) -> list[tuple[int, str]]:
        learner = Learner()
        trainer = lightning.Trainer(
            accelerator="cpu", devices=1, max_epochs=1, limit_train_batches=batches, limit_val_batches=0.0,
            logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
            default_root_dir=tmp_path, callbacks=[Saved(tmp_path / "saved.ckpt")],
        )  # fmt: skip
        prompts = data(tokenizer_file, rows, tmp_path, workers=workers, batch_size=batch_size)
        trainer.fit(learner, datamodule=prompts, ckpt_path=checkpoint, weights_only=False)
        return learner.seen

    whole = fit(8)
    assert [number for number, _ in whole] == list(range(32))
    assert fit(8, tmp_path / "saved.ckpt") == whole[12:]
    # The position is a sample, whatever the batches were before.
    assert [number for number, _ in fit(8, tmp_path / "saved.ckpt", batch_size=2)] == list(range(12, 22))


def test_batches_go_through_the_trainer_as_they_are(tokenizer_file: Path, tmp_path: Path) -> None:
    """Rows hold nothing to move to a device, but none of it may be lost on the way."""
    rows = [{"prompt": f"p {i}", "tests": ["a", {"b": None}], "number": i} for i in range(40)]
    prompts = data(tokenizer_file, rows, tmp_path)
    prompts.setup("fit")
    batch = next(iter(prompts.train_dataloader()))
    moved = lightning.Trainer(accelerator="cpu", logger=False, barebones=True).strategy.batch_to_device(batch)
    assert moved["rows"] == batch["rows"]
    assert moved["prompts"] == batch["prompts"]
    assert isinstance(prompts.train_dataloader(), DataLoader)

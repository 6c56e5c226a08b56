"""Likelihoods of answers and of text against one full, naive pass a sequence; rows as public benchmarks have them."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml

from datamodules.conversations.chat_template import ChatTemplate
from datamodules.conversations.multiple_choice import encode, question
from datamodules.conversations.row_formats import Unusable
from datamodules.tokenization.base import Tokenizer
from datamodules.tokenization.files import find_tokenizer, load_tokenizer
from main import main
from models.decoder import Decoder
from models.initialization import materialize
from models.weights.source import WeightSource

HELLASWAG = {
    "activity_label": "Baking", "ctx_a": "A cook stirs.", "ctx_b": "the dough", "label": "1",
    "endings": ["flies [away] now.", "is ready [title] Then it  rests."],
}  # fmt: skip
ARC = {"question": "Bade kiro?", "answerKey": "C", "choices": {"text": ["ba", "ki", "do do"], "label": ["A", "B", "C"]}}
BLIMP = {"sentence_good": "Bader kiro bas.", "sentence_bad": "Bader kiro bas bas."}
PLAIN = {"context": "Kiro bade  ", "choices": ["ba da", "ki"], "gold": 1}


@pytest.fixture(scope="module")
def tokenizer(base_run: Path) -> Tokenizer:
    return load_tokenizer(find_tokenizer(base_run))


@pytest.fixture(scope="module")
def decoder(base_run: Path) -> Decoder:
    stored = WeightSource(base_run)
    with torch.device("meta"):
        decoder = Decoder(stored.whole_config())
    materialize(decoder, torch.device("cpu"), 0, stored=stored)
    return decoder.double()


@torch.no_grad()
def naive(decoder: Decoder, context: list[int], answer: list[int]) -> float:
    logits = decoder.output(decoder(torch.tensor([[*context, *answer]])))[0].log_softmax(-1)
    return sum(float(logits[len(context) + i - 1, token]) for i, token in enumerate(answer))


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    main(["evaluate", *arguments])
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.end_to_end
def test_questions_are_answered_by_the_likeliest_choice(
    base_run: Path, tokenizer: Tokenizer, decoder: Decoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[Any] = [HELLASWAG, ARC, BLIMP, PLAIN, {"nothing": 1}, [1]] * 3
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    expected: dict[str, list[bool]] = {"accuracy": [], "accuracy_norm": []}
    for row in rows:
        if not isinstance(row, dict) or "nothing" in row:
            continue
        asked = question(row)
        values = [naive(decoder, context, answer) for context, answer in encode(asked, tokenizer)]
        by_character = [value / length for value, length in zip(values, asked.lengths, strict=True)]
        expected["accuracy"].append(values.index(max(values)) == asked.gold)
        expected["accuracy_norm"].append(by_character.index(max(by_character)) == asked.gold)
    output = tmp_path / "found.json"
    arguments = ["--input", str(base_run), f"--questions=[{path}]", "--output", str(output), "--batch_tokens=40"]
    found = evaluated(capsys, *arguments)[str(path)]
    assert found["questions"] == 12
    assert found["left_out"] == {"no_question": 3, "no_object": 3}
    for name, hits in expected.items():
        assert found[name] == pytest.approx(sum(hits) / len(hits))
    assert json.loads(output.read_text())[str(path)] == found
    assert evaluated(capsys, *arguments, "--limit=4")[str(path)]["questions"] == 4


@pytest.mark.end_to_end
def test_likelihoods_equal_naive_ones(base_run: Path, tokenizer: Tokenizer, decoder: Decoder) -> None:
    from datamodules.conversations.multiple_choice import question_batches
    from models.inference.likelihood import log_likelihoods

    encoded = [encode(question(row), tokenizer) for row in (HELLASWAG, ARC, BLIMP, PLAIN)]
    for tokens in (8, 10_000):
        found = log_likelihoods(decoder, question_batches(encoded, tokens, tokenizer.pad, 500), 9)
        expected = [naive(decoder, context, answer) for pairs in encoded for context, answer in pairs]
        assert found == pytest.approx(expected, abs=1e-9)
    # Too long: the context loses its beginning.
    context, answer = encoded[0][0]
    (found,) = log_likelihoods(decoder, question_batches([[(context, answer)]], 99, tokenizer.pad, len(answer) + 3), 1)
    assert found == pytest.approx(naive(decoder, context[-3:], answer), abs=1e-9)


@pytest.mark.end_to_end
def test_text_is_scored_token_by_token_over_windows(
    base_run: Path, tokenizer: Tokenizer, decoder: Decoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["Bader kiro. " * 12, "Kas!", ""]
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    nats, tokens, size, window = 0.0, 0, sum(len(text.encode()) for text in texts), 16
    for text in texts[:2]:
        ids = [*tokenizer.beginning, *tokenizer.encode(text)]
        for start in range(1, len(ids), window - 1):
            end = min(start + window - 1, len(ids))
            # What is left at the end has a whole window, as in the harness.
            nats -= naive(decoder, ids[max(end - window, 0) : start], ids[start:end])
            tokens += end - start
    found = evaluated(capsys, "--input", str(base_run), f"--text=[{path}]", f"--window={window}")[str(path)]
    assert found["tokens"] == tokens
    assert found["documents"] == 2
    assert found["left_out"] == {"empty": 1}
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, abs=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(nats / tokens), rel=1e-4)


def test_shapes_of_public_benchmarks() -> None:
    asked = question(HELLASWAG)
    assert asked.context == "Baking: A cook stirs. The dough"
    assert asked.choices == [" flies  now.".replace("  ", " "), " is ready. Then it rests."]
    assert asked.gold == 1
    assert question(ARC).context == "Question: Bade kiro?\nAnswer:"
    assert (question(ARC).choices[2], question(ARC).gold) == (" do do", 2)
    # The harness's delimiter stands before a choice even where there is no context.
    assert question(BLIMP).choices == [" " + BLIMP["sentence_good"], " " + BLIMP["sentence_bad"]]
    assert question(BLIMP).lengths == [len(BLIMP["sentence_good"]), len(BLIMP["sentence_bad"])]
    for row in ({}, {"context": "a", "choices": ["b"], "gold": 0}, {"context": "a", "choices": ["b", ""], "gold": 0}):
        with pytest.raises(Unusable, match="no_question"):
            question(row)
    with pytest.raises(Unusable, match="no_right_answer"):
        question({"context": "a", "choices": ["b", "c"], "gold": 2})


@pytest.mark.peer
@pytest.mark.parametrize("writes_it", [True, False])
def test_a_beginning_that_is_only_named_is_not_put_before_texts(
    writes_it: bool, hugging_face_tokenizer: Path, tmp_path: Path
) -> None:
    described = json.loads((hugging_face_tokenizer / "tokenizer.json").read_text())
    if writes_it:  # Llama's
        described["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [],
            "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}},
        }
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"}  # SmolLM2's
    settings |= {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(find_tokenizer(tmp_path))
    ids = transformers.AutoTokenizer.from_pretrained(tmp_path)("Kiro bade").input_ids
    assert [*tokenizer.beginning, *tokenizer.encode("Kiro bade")] == ids
    assert (ids[0] == tokenizer.bos == 1) is writes_it
    for context in ("Kiro bade", "", " "):
        (before, answer), _ = encode(question({"context": context, "choices": ["a", "b"], "gold": 0}), tokenizer)
        assert before == (ids if context.strip() else [1])
        assert tokenizer.decode(answer) == context[9:] + " " * context.isspace() + " a"
    prompt = ChatTemplate("chatml", tokenizer).encode_prompt([{"role": "user", "content": "a"}])
    assert prompt.count(1) == 2  # the user's turn and the answer's


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name files"),
        (["--questions=[nowhere.jsonl]"], "--questions nowhere.jsonl does not exist"),
        (["--text=[nowhere]", "--window=1"], "window=1"),
        (["--questions=[EMPTY]"], "holds nothing to score"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, base_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("{}\n")
    given = [argument.replace("EMPTY", str(empty)) for argument in arguments]
    with pytest.raises(SystemExit) as raised:
        main(["evaluate", "--input", str(base_run), *given])
    assert raised.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]

"""Talking with a model: a conversation piped in, text streamed in whole characters, and an end at the turn's."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands.models.chat_model import ChatModel, TextStream
from datamodules.conversations.chat_template import ChatTemplate
from datamodules.tokenization.base import Tokenizer, TokenizerSettings
from datamodules.tokenization.sentencepiece import train_tokenizer
from main import main
from models.inference.sampling import Sampling
from tests.helpers.command_line import refused
from tests.helpers.corpus import sentences

CHARACTERS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = [sentences(i, 20) for i in range(5)] + ["élan naïve 你好 мир"]
    return train_tokenizer(iter(texts), TokenizerSettings(vocabulary_size=320))


def test_streamed_text_is_the_whole_text(tokenizer: Tokenizer) -> None:
    @settings(max_examples=200, deadline=None, derandomize=True)
    @given(CHARACTERS)
    def check(text: str) -> None:
        pieces: list[str] = []
        stream = TextStream(tokenizer, pieces.append)
        ids = tokenizer.encode(text)
        for token in ids:
            stream.add(token)
        stream.end()
        assert "".join(pieces) == tokenizer.decode_continuation(ids)
        assert all(pieces)

    check()
    pieces: list[str] = []
    stream = TextStream(tokenizer, pieces.append)
    for token in tokenizer.encode("你")[:-1]:  # a character that is never finished
        stream.add(token)
    assert pieces == []
    stream.end()
    assert "".join(pieces).strip("\ufffd") == ""


@pytest.fixture
def talker(base_run: Path, tmp_path: Path) -> Path:
    """The tiny model as a Hugging Face folder with ChatML as its own template."""
    folder = tmp_path / "talker"
    main(["convert", "--input", str(base_run), "--output", str(folder)])
    source = Path("datamodules/conversations/templates/chatml.jinja").read_text(encoding="utf-8")
    (folder / "chat_template.jinja").write_text(source, encoding="utf-8")
    return folder


def piped(lines: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    main(["chat", *arguments])


@pytest.mark.end_to_end
def test_a_conversation_is_that_of_the_template(
    talker: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = "Bado kiro\n\n/system Bedi\nMore\n/undo\nMore\n/reset\nBado kiro\n/nothing\n/quit\nnever read\n"
    capsys.readouterr()
    piped(lines, monkeypatch, "--input", str(talker), "--temperature", "0", "--max_new_tokens", "8")
    written = capsys.readouterr().out
    model = ChatModel(str(talker))
    assert isinstance(model.template, ChatTemplate)

    def response(messages: list[dict[str, Any]]) -> str:
        return model.text_of(model.respond(messages, 8, Sampling(temperature=0)))

    user, system = {"role": "user", "content": "Bado kiro"}, {"role": "system", "content": "Bedi"}
    first = response([user])
    more = response([system, user, {"role": "assistant", "content": first}, {"role": "user", "content": "More"}])
    # The help follows the unknown command; what /undo took back is said once more the same.
    start = f"{first}\n{more}\n{more}\n{response([system, user])}\n/reset forgets"
    assert written.startswith(start)
    assert "never" not in written


@pytest.mark.end_to_end
def test_the_oldest_turns_are_left_out_where_the_context_ends(
    talker: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    described = json.loads((talker / "config.json").read_text())
    (talker / "config.json").write_text(json.dumps(described | {"max_position_embeddings": 60}))
    piped("Bado\n" * 4, monkeypatch, "--input", str(talker), "--temperature", "0", "--max_new_tokens", "16")
    assert "turns left out: the context is 60 tokens)" in capsys.readouterr().err


@pytest.mark.end_to_end
def test_generate_ends_where_the_template_ends_a_turn(talker: Path) -> None:
    model = ChatModel(str(talker))
    assert model.stop == {model.tokenizer.eos, model.tokenizer.control_ids()["<|im_end|>"]}
    said = model.respond([{"role": "user", "content": "Bado"}], 8, Sampling(temperature=0))
    model.stop = {said.tokens[0]}
    response = model.respond([{"role": "user", "content": "Bado"}], 8, Sampling(temperature=0))
    assert (response.finish, response.tokens, model.text_of(response)) == ("stop", said.tokens[:1], "")


@pytest.mark.end_to_end
def test_mistakes_are_one_line(base_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "does not exist: train that run first" in refused(["chat", "--input", str(tmp_path / "no")], capsys)
    line = refused(["chat", "--input", str(base_run)], capsys)
    assert "the model has no chat template of its own" in line
    assert "temperature=-1" in refused(["chat", "--input", str(base_run), "--temperature", "-1"], capsys)
    assert "max_new_tokens=0" in refused(["chat", "--input", str(base_run), "--max_new_tokens", "0"], capsys)
    line = refused(["generate", "--input", str(base_run), "--prompt", "x", "--chat", "true"], capsys)
    assert "the model has no chat template of its own" in line


@pytest.mark.end_to_end
def test_a_converted_gguf_file_says_the_same(
    base_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "model.gguf"
    main(["convert", "--input", str(base_run), "--output", str(file)])
    capsys.readouterr()
    for path in (base_run, file):
        main(
            ["generate", "--input", str(path), "--prompt", "Bado kiro", "--temperature", "0", "--max_new_tokens", "12"]
        )
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert first == second
    line = refused(["convert", "--input", str(file), "--output", str(tmp_path / "x"), "--dtype", "q8_0"], capsys)
    assert "dtype=q8_0: of GGUF files alone" in line

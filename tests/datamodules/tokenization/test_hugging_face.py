"""Tokenizers of a Hugging Face folder: the ends of text that `generation_config.json` lists stop a response."""

import json
import shutil
from pathlib import Path

import pytest

from common.errors import InputError
from common.stop_tokens import stop_tokens
from datamodules.conversations.chat_template import ChatTemplate
from datamodules.tokenization.files import load_tokenizer


@pytest.fixture
def folder(hugging_face_tokenizer: Path, tmp_path: Path) -> Path:
    shutil.copytree(hugging_face_tokenizer, tmp_path / "model")
    return tmp_path / "model"


def write(folder: Path, ends: object) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends, "temperature": 0.6}))


def test_listed_ends_stop_a_response_and_are_kept(folder: Path, tmp_path: Path) -> None:
    plain = load_tokenizer(folder / "tokenizer.json")
    assert plain.stops == ()
    end, turn = plain.eos, plain.control_ids()["<|im_end|>"]
    for ends, expected in ((end, ()), ([end], ()), ([end, turn, turn], (turn,)), ([turn, end], (turn,)), (None, ())):
        write(folder, ends)
        tokenizer = load_tokenizer(folder / "tokenizer.json")
        assert tokenizer.stops == expected
        assert tokenizer.model == plain.model  # no other tokens, so no other data
        assert stop_tokens(tokenizer, None) == {end, *expected}
        copy = tmp_path / f"{ends}"
        copy.mkdir()
        tokenizer.write(copy)
        assert load_tokenizer(copy / "tokenizer.json").stops == expected
    assert stop_tokens(tokenizer, ChatTemplate("chatml", tokenizer)) == {end, turn}


@pytest.mark.parametrize("ends", ["</s>", [2.5], [10**6], -1])
def test_ends_that_the_tokenizer_does_not_have_are_refused(folder: Path, ends: object) -> None:
    write(folder, ends)
    with pytest.raises(InputError, match=r"generation_config.json: eos_token_id=.* the tokenizer has ids below"):
        load_tokenizer(folder / "tokenizer.json")


def test_a_damaged_file_is_refused(folder: Path) -> None:
    (folder / "generation_config.json").write_text("{")
    with pytest.raises(InputError, match=r"generation_config.json is damaged"):
        load_tokenizer(folder / "tokenizer.json")

"""Lossless on any text, honest about bytes, clear about a vocabulary that cannot be filled."""

import re
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.errors import InputError
from datamodules.tokenization.base import Tokenizer, TokenizerSettings
from datamodules.tokenization.files import find_tokenizer, load_tokenizer, restore
from datamodules.tokenization.sentencepiece import train_tokenizer
from datamodules.tokenization.tokenizer_json import write_hugging_face_tokenizer
from tests.helpers.corpus import TEXTS


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, TokenizerSettings(vocabulary_size=380))


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
@example(text="\u2581a\ue000\ue001 \ue000\ue000\u2581")
@example(text="\x00\r\n\t  \u2028<s></s><|im_start|><0x0A>\ufeffe\u0301\U0001f600")
@example(text="   leading and trailing   ")
def test_round_trip_of_any_text(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode_batch([text, "x"])[0] == ids


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581\ue000")))
def test_token_bytes_add_up_to_the_text(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.token_bytes()[tokenizer.encode(text)].sum() == len(text.encode())


def test_text_never_becomes_a_control_token(tokenizer: Tokenizer) -> None:
    control = {i for i, size in enumerate(tokenizer.token_bytes()) if size == 0}
    assert {tokenizer.bos, tokenizer.eos, tokenizer.pad} <= control
    assert len(control) == 4 + len(TokenizerSettings().control_tokens)
    assert not control & set(tokenizer.encode("<s></s><unk><pad><|im_start|>assistant<|im_end|><|reserved_0|>"))


def test_digits_are_split(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("1234567")) == 7


@pytest.mark.parametrize("size", [100, 268])
def test_vocabulary_below_the_byte_tokens_is_refused(size: int) -> None:
    with pytest.raises(InputError, match=f"vocabulary_size={size}"):
        TokenizerSettings(vocabulary_size=size)


@pytest.mark.parametrize("tokens", [["a", "b", "a"], [""], ["<s>"], ["</s>"], ["<unk>"], ["<pad>"], ["<0x0A>"]])
def test_control_tokens_that_cannot_be_added_are_refused(tokens: list[str]) -> None:
    with pytest.raises(InputError, match=f"control_tokens holds {tokens[0]!r}"):
        TokenizerSettings(control_tokens=tokens)


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), float("inf")])
def test_a_sample_without_a_size_is_refused(size: float) -> None:
    with pytest.raises(InputError, match="sample_megabytes="):
        TokenizerSettings(sample_megabytes=size)


@pytest.mark.parametrize("texts", [["too little text"], [], [""]])
def test_vocabulary_the_corpus_cannot_fill_is_refused(texts: list[str]) -> None:
    with pytest.raises(InputError, match="vocabulary_size=5000 cannot be filled") as raised:
        train_tokenizer(texts, TokenizerSettings(vocabulary_size=5000))
    assert "\n" not in str(raised.value)


def test_vocabulary_too_small_for_the_characters_is_refused() -> None:
    with pytest.raises(InputError, match="vocabulary_size=270 cannot hold the characters .* choose at least 3"):
        train_tokenizer(TEXTS, TokenizerSettings(vocabulary_size=270))


@pytest.fixture(scope="module")
def exported(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("exported")
    write_hugging_face_tokenizer(tokenizer, "{{ messages[0].content }}", folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


CONTROL = re.compile("|".join(map(re.escape, ["<unk>", "<s>", "</s>", "<pad>", *TokenizerSettings().control_tokens])))


@pytest.mark.peer
@settings(max_examples=300, deadline=None)
@given(
    text=st.one_of(
        st.text(st.characters(exclude_categories=["Cs"])),
        st.lists(st.sampled_from([*TEXTS[7], "function", "  ", "\n\n", "aa", "\u2581", "\ue000", "\ue001", "é"])).map(
            "".join
        ),
    )
)
@example(text=TEXTS[3] * 3)
@example(text="\u2581a\ue000\ue001 \ue000\ue000\u2581")
def test_the_exported_tokenizer_gives_the_same_ids(tokenizer: Tokenizer, exported: Any, text: str) -> None:
    text = CONTROL.sub("", text)
    ids = exported(text).input_ids
    assert ids == [tokenizer.bos, *tokenizer.encode(text)]
    if "\ufdd0" not in text:
        assert exported.decode(ids, skip_special_tokens=True) == text


@pytest.mark.peer
def test_the_exported_tokenizer_knows_its_control_tokens_and_template(tokenizer: Tokenizer, exported: Any) -> None:
    assert (exported.bos_token_id, exported.eos_token_id, exported.pad_token_id) == (
        tokenizer.bos,
        tokenizer.eos,
        tokenizer.pad,
    )
    assert len(exported) == len(tokenizer)
    name, number = "<|im_end|>", tokenizer.control_ids()["<|im_end|>"]
    assert exported.convert_tokens_to_ids(name) == number
    rendered = exported.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False)
    assert rendered == "hello"


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
@example(text="<|endoftext|><|im_start|> \U0001f600 é\n")
def test_a_hugging_face_tokenizer_is_lossless_and_counts_bytes(byte_level: Tokenizer, text: str) -> None:
    ids = byte_level.encode(text)
    assert byte_level.decode(ids) == text
    assert byte_level.encode_batch([text, "x"])[0] == ids
    assert byte_level.token_bytes()[ids].sum() == len(text.encode())
    assert not set(ids) & set(byte_level.control_ids().values())


@pytest.fixture(scope="module")
def byte_level(hugging_face_tokenizer: Path) -> Tokenizer:
    return load_tokenizer(find_tokenizer(hugging_face_tokenizer))


def test_every_tokenizer_is_restored_from_its_bytes_and_from_its_files(
    tokenizer: Tokenizer, byte_level: Tokenizer, tmp_path: Path
) -> None:
    text = "def function_3(x): return  x"
    for number, one in enumerate((tokenizer, byte_level)):
        folder = tmp_path / str(number)
        folder.mkdir()
        one.write(folder)
        for again in (restore(one.model), load_tokenizer(find_tokenizer(folder))):
            assert again.encode(text) == one.encode(text)
            assert (again.bos, again.eos, again.pad) == (one.bos, one.eos, one.pad)
    assert byte_level.bos is None
    assert byte_level.beginning == []


def test_a_tokenizer_without_an_end_or_unreadable_is_refused(hugging_face_tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((hugging_face_tokenizer / "tokenizer.json").read_bytes())
    with pytest.raises(InputError, match="names no eos_token"):
        load_tokenizer(find_tokenizer(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    assert load_tokenizer(find_tokenizer(tmp_path)).eos == 0
    (tmp_path / "tokenizer.json").write_text('{"added_tokens": [{"content": "<|endoftext|>", "id": 0}]}')
    with pytest.raises(InputError, match="cannot be read"):
        load_tokenizer(find_tokenizer(tmp_path))


def test_a_sentencepiece_model_that_rewrites_text_gives_way_to_its_json(
    hugging_face_tokenizer: Path, tmp_path: Path
) -> None:
    model = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=model, vocab_size=380, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,
    )  # fmt: skip
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())  # as Llama 2 and Mistral have it: a space in front
    with pytest.raises(InputError, match="was not trained here"):
        load_tokenizer(find_tokenizer(tmp_path))
    for path in hugging_face_tokenizer.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert find_tokenizer(tmp_path).name == "tokenizer.json"


def test_damaged_tokenizers_are_refused(hugging_face_tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"abc")
    with pytest.raises(InputError, match=r"tokenizer.model is no SentencePiece model"):
        load_tokenizer(find_tokenizer(tmp_path))
    for path in hugging_face_tokenizer.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for name, content in (("tokenizer_config.json", "{"), ("tokenizer_config.json", "[]"), ("tokenizer.json", "{")):
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match="is damaged"):
            load_tokenizer(find_tokenizer(tmp_path))

"""Tokenizers in GGUF files: the same ids as before, from any text, and refusals by name."""

from pathlib import Path
from typing import Any

import gguf
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, trainers

from common.errors import InputError
from datamodules.tokenization.base import Tokenizer, TokenizerSettings
from datamodules.tokenization.files import find_tokenizer, load_tokenizer, own_template
from datamodules.tokenization.gguf_export import gguf_tokenizer_keys
from datamodules.tokenization.gguf_tokenizer import SPLITTERS
from datamodules.tokenization.hugging_face import HuggingFaceTokenizer
from datamodules.tokenization.sentencepiece import train_tokenizer
from datamodules.tokenization.tokenizer_json import tokenizer_json
from tests.helpers.corpus import sentences

TEXTS = [sentences(i, 20) + f" {i} x+{i * 37} don't\n\n  a\tb" for i in range(20)]
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581\ue000\ue001\x00"), max_size=40)


def stored(path: Path, keys: dict[str, Any]) -> Path:
    """A GGUF file with nothing but these keys."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in keys.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        else:
            getattr(writer, f"add_{ {int: 'uint32', str: 'string', list: 'array'}[type(value)] }")(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def byte_level(rule: str, folder: Path, post: Any = None) -> HuggingFaceTokenizer:
    """A byte-level tokenizer as a family has it."""
    found = tokenizers.Tokenizer(models.BPE())
    if rule == "smollm":  # as SmolLM's own file spells it
        parts: list[Any] = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    elif rule == "gpt-2":
        parts = [pre_tokenizers.ByteLevel(add_prefix_space=False)]
    else:
        pattern = tokenizers.Regex(SPLITTERS[rule][0])
        parts = [pre_tokenizers.Split(pattern, "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    found.pre_tokenizer = pre_tokenizers.Sequence(parts)
    found.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    found.train_from_iterator(TEXTS, trainer)
    found.add_tokens(["<think>"])
    if post is not None:
        found.post_processor = post
    found.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        '{"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}'
    )
    return HuggingFaceTokenizer.load(folder / "tokenizer.json")


def written_and_read(tokenizer: Tokenizer, path: Path, rows: int | None = None) -> Tokenizer:
    keys = gguf_tokenizer_keys(tokenizer, "{{ messages }}", rows or len(tokenizer))
    found = find_tokenizer(stored(path, keys))
    assert own_template(found) == str(path)
    return load_tokenizer(found)


@pytest.mark.parametrize("rule", SPLITTERS)
def test_byte_level_tokenizers_keep_their_ids(tmp_path: Path, rule: str) -> None:
    before = byte_level(rule, tmp_path)
    after = written_and_read(before, tmp_path / "model.gguf", len(before) + 7)
    assert after.control_ids() == before.control_ids()
    assert (after.bos, after.eos, after.pad, after.beginning) == (before.bos, before.eos, before.pad, [])
    assert (after.token_bytes()[: len(before)] == before.token_bytes()).all()

    @settings(max_examples=150, deadline=None, derandomize=True)
    @given(TEXT)
    def check(text: str) -> None:
        assert after.encode(text) == before.encode(text)
        assert after.decode(after.encode(text)) == text

    check()
    for text in [*TEXTS, "12 345\n\r\n x", "don't WE'LL <think> <|im_end|>"]:
        assert after.encode(text) == before.encode(text)


@pytest.fixture(scope="module")
def own() -> Tokenizer:
    return train_tokenizer(iter(TEXTS), TokenizerSettings(vocabulary_size=340))


def test_this_projects_tokenizer_keeps_its_ids(tmp_path: Path, own: Tokenizer) -> None:
    after = written_and_read(own, tmp_path / "model.gguf")
    assert after.control_ids().items() >= own.control_ids().items()
    assert (after.bos, after.eos, after.pad, after.beginning) == (own.bos, own.eos, own.pad, own.beginning)
    sizes = after.token_bytes()
    assert (sizes == own.token_bytes()).all()

    @settings(max_examples=200, deadline=None, derandomize=True)
    @given(TEXT)
    def check(text: str) -> None:
        assert after.encode(text) == own.encode(text)
        assert after.decode(own.encode(text)) == text

    check()
    for text in TEXTS:
        assert after.encode(text) == own.encode(text)


def test_a_prefix_space_is_kept(tmp_path: Path, own: Tokenizer) -> None:
    """As Llama 2's `tokenizer.json` has it: a space is put before a text and taken off again."""
    described = tokenizer_json(own)  # type: ignore[arg-type]
    described["normalizer"]["normalizers"] = [
        {"type": "Prepend", "prepend": "\u2581"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
    ]
    described["decoder"]["decoders"] = [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ]
    import json

    before = HuggingFaceTokenizer(
        json.dumps({"tokenizer": json.dumps(described), "bos": own.bos, "eos": own.eos, "pad": own.pad}).encode()
    )
    after = written_and_read(before, tmp_path / "model.gguf")
    for text in [*TEXTS, "a", " a", "\na b"]:
        assert after.encode(text) == before.encode(text)
        assert after.encode_continuation(text) == before.encode_continuation(text)
        assert after.decode(after.encode(text)) == before.decode(before.encode(text)) == text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "t5"}, "tokenizer.ggml.model=t5, gpt2 and llama are read here"),
        ({"pre": "chameleon"}, "tokenizer.ggml.pre=chameleon: how it splits text is not known here"),
        ({"merges": None}, "lacks tokenizer.ggml.merges"),
        ({"eos_token_id": None}, "lacks tokenizer.ggml.eos_token_id"),
        ({"eos_token_id": 10**6}, "but names others: it is damaged"),
        ({"token_type": [1, 1]}, "it is damaged"),
    ],
)
def test_what_is_not_known_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    keys = gguf_tokenizer_keys(byte_level("gpt-2", tmp_path), None, 403)
    changed = keys | {f"tokenizer.ggml.{name}": value for name, value in changes.items()}
    path = stored(tmp_path / "model.gguf", {name: value for name, value in changed.items() if value is not None})
    assert own_template(path) is None
    with pytest.raises(InputError, match=message):
        load_tokenizer(path)


def test_a_splitting_rule_without_a_name_is_refused(tmp_path: Path) -> None:
    tokenizer = byte_level("gpt-2", tmp_path)
    described = tokenizer.described()
    described["pre_tokenizer"] = {"type": "Whitespace"}
    tokenizer.described = lambda: described  # type: ignore[method-assign]
    with pytest.raises(InputError, match=r"Whitespace.*has no name in GGUF files"):
        gguf_tokenizer_keys(tokenizer, None, 403)

"""Tokenizer of a GGUF file, as `tokenizer.json`, both ways.

The file holds tokens, merges or scores, and the name of a rule that splits text into words. llama.cpp keeps these rules
in its source, so that they are a table here; a name that is not in it is refused, for a guess would split differently.
"""

import json
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.stored_models.gguf_metadata import gguf_metadata
from datamodules.tokenization.base import SPACE_MARK
from datamodules.tokenization.hugging_face import HuggingFaceTokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
"""`tokenizer.ggml.token_type`, llama.cpp's LLAMA_TOKEN_TYPE_*."""

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace("{1,3}", "")
_GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
SPLITTERS: dict[str, tuple[str, ...]] = {
    "gpt-2": (_GPT2,),
    "llama-bpe": (_LLAMA3,),
    "qwen2": (_QWEN2,),
    "smollm": (r"\p{N}", _GPT2),
}
"""`tokenizer.ggml.pre` to the patterns that cut a text into words, one after the other (llama.cpp, llama-vocab.cpp)."""
_BEGINS = ("llama-bpe",)
"""Rules of byte-level tokenizers that put a beginning-of-text token before a text, where the file does not say."""


def tokenizer_of_gguf(path: Path) -> HuggingFaceTokenizer:
    """The tokenizer in a GGUF file.

    Args:
        path: of the file.

    Raises:
        InputError: when it holds none, or one of a kind that is not read here.
    """
    metadata = gguf_metadata(path)
    given = {key.removeprefix("tokenizer.ggml."): value for key, value in metadata.items()}
    try:
        kind, tokens, types = given["model"], given["tokens"], given["token_type"]
        eos = given["eos_token_id"]
        bos, pad = given.get("bos_token_id"), given.get("padding_token_id", eos)
        if len(tokens) != len(types) or not all(0 <= number < len(tokens) for number in (eos, pad, bos or 0)):
            raise InputError(f"{path}: its tokenizer has {len(tokens)} tokens, but names others: it is damaged")
        if kind == "gpt2":
            described = _byte_level(given)
        elif kind == "llama":
            described = _sentencepiece(given)
        else:
            raise InputError(f"{path}: tokenizer.ggml.model={kind}, gpt2 and llama are read here")
    except KeyError as error:
        raise InputError(f"{path} lacks tokenizer.ggml.{error.args[0]}: it holds no whole tokenizer") from error
    except InputError as error:
        raise error if str(path) in str(error) else InputError(f"{path}: {error}") from error
    begins = given.get("add_bos_token", kind == "llama" or given.get("pre") in _BEGINS)
    if begins and bos is not None:
        described["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": tokens[bos], "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {tokens[bos]: {"id": tokens[bos], "ids": [bos], "tokens": [tokens[bos]]}},
        }
    text = json.dumps(described, ensure_ascii=False)
    tokenizer = HuggingFaceTokenizer(json.dumps({"tokenizer": text, "bos": bos, "eos": eos, "pad": pad}).encode())
    ends = [given[key] for key in ("eot_token_id", "eom_token_id") if key in given]
    tokenizer.stops = tuple(number for number in ends if number != eos and 0 <= number < len(tokens))
    return tokenizer


def _byte_level(given: dict[str, Any]) -> dict[str, Any]:
    """Byte-level BPE, as GPT-2 has it."""
    rule = given.get("pre", "gpt-2")
    if rule not in SPLITTERS:
        raise InputError(
            f"tokenizer.ggml.pre={rule}: how it splits text is not known here, only {', '.join(SPLITTERS)}"
        )
    splits = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in SPLITTERS[rule]
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return _whole(
        given,
        pre_tokenizer={"type": "Sequence", "pretokenizers": [*splits, byte_level]},
        decoder=byte_level,
        model=_bpe(given, [merge.split(" ") for merge in given["merges"]]),
    )


def _sentencepiece(given: dict[str, Any]) -> dict[str, Any]:
    """SentencePiece's BPE with a fallback to bytes, as Llama 2 and Mistral have it."""
    tokens, types = given["tokens"], given["token_type"]
    order = sorted((number for number, kind in enumerate(types) if kind == NORMAL), key=lambda i: -given["scores"][i])
    normal = {tokens[number] for number in order}
    merges = [
        [tokens[number][:cut], tokens[number][cut:]]
        for number in order
        for cut in range(1, len(tokens[number]))
        if tokens[number][:cut] in normal and tokens[number][cut:] in normal
    ]
    has_prefix = given.get("add_space_prefix", True)
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE_MARK}
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": SPACE_MARK}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if has_prefix:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    unknown = tokens[given.get("unknown_token_id", 0)]
    return _whole(
        given,
        normalizer={
            "type": "Sequence",
            "normalizers": [{"type": "Prepend", "prepend": SPACE_MARK}, spaces] if has_prefix else [spaces],
        },
        decoder={"type": "Sequence", "decoders": decoders},
        model=_bpe(given, merges) | {"byte_fallback": True, "fuse_unk": True, "unk_token": unknown},
    )


def _bpe(given: dict[str, Any], merges: list[list[str]]) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": given.get("pre") == "llama-bpe",
        "vocab": {token: number for number, token in enumerate(given["tokens"])},
        "merges": merges,
    }


def _whole(given: dict[str, Any], **parts: Any) -> dict[str, Any]:
    """A `tokenizer.json` with control tokens and tokens of the user's that text may spell."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": number, "content": given["tokens"][number], **flags, "special": kind in (CONTROL, UNKNOWN)}
        for number, kind in enumerate(given["token_type"])
        if kind in (UNKNOWN, CONTROL, USER_DEFINED)
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        **parts,
    }

"""Export of a tokenizer as the metadata of a GGUF file.

llama.cpp knows byte-level BPE by the name of a rule that splits text, and SentencePiece's BPE by scores. What it has no
name for is refused. Text that spells this project's mark of a space (U+2581) is encoded otherwise there.
"""

import json
from typing import Any

from common.errors import InputError
from datamodules.tokenization.base import SPACE_MARK, Tokenizer
from datamodules.tokenization.gguf_tokenizer import BYTE, CONTROL, NORMAL, SPLITTERS, UNKNOWN, USER_DEFINED
from datamodules.tokenization.hugging_face import HuggingFaceTokenizer
from datamodules.tokenization.sentencepiece import SentencePieceTokenizer
from datamodules.tokenization.tokenizer_json import tokenizer_json

UNUSED = 5
"""Type of rows of the embedding that no token has."""
_DIGITS = {"type": "Digits", "individual_digits": True}


def gguf_tokenizer_keys(tokenizer: Tokenizer, template: str | None, rows: int) -> dict[str, Any]:
    """Keys of a GGUF file that hold a tokenizer and its chat template.

    Args:
        tokenizer: of the model.
        template: Jinja source; None for none.
        rows: of the embedding, at least the tokenizer's size.

    Raises:
        InputError: for a tokenizer that llama.cpp has no rule for.
    """
    if isinstance(tokenizer, SentencePieceTokenizer):
        described = tokenizer_json(tokenizer)
    elif isinstance(tokenizer, HuggingFaceTokenizer):
        described = tokenizer.described()
    else:
        raise InputError(f"a tokenizer of {type(tokenizer).__name__} has no form in GGUF files: write a folder")
    model, added = described["model"], {one["id"]: one for one in described.get("added_tokens", [])}
    if model.get("type", "BPE") != "BPE":
        raise InputError(f"a tokenizer of type {model['type']} has no form in GGUF files: write a Hugging Face folder")
    names = {number: name for name, number in model["vocab"].items()} | {n: one["content"] for n, one in added.items()}
    tokens = [names.get(number, f"[UNUSED{number}]") for number in range(rows)]
    is_sentencepiece = bool(model.get("byte_fallback"))
    unknown = model["vocab"].get(model.get("unk_token"))

    def kind_of(number: int) -> int:
        if number not in names:
            return UNUSED
        if number == unknown and is_sentencepiece:
            return UNKNOWN
        if number in added:
            return CONTROL if added[number]["special"] else USER_DEFINED
        is_byte = is_sentencepiece and len(names[number]) == 6 and names[number].startswith("<0x")
        return BYTE if is_byte else NORMAL

    merges = [merge.split(" ") if isinstance(merge, str) else list(merge) for merge in model["merges"]]
    keys: dict[str, Any] = {
        "model": "llama" if is_sentencepiece else "gpt2",
        "tokens": tokens,
        "token_type": [kind_of(number) for number in range(rows)],
        "eos_token_id": tokenizer.eos,
        "padding_token_id": tokenizer.pad,
        "add_bos_token": bool(tokenizer.beginning),
        "add_eos_token": False,
    }
    keys |= dict(zip(("eot_token_id", "eom_token_id"), tokenizer.stops, strict=False))  # the format has no more
    if tokenizer.bos is not None:
        keys["bos_token_id"] = tokenizer.bos
    if is_sentencepiece:
        rank: dict[str, int] = {}
        for left, right in merges:
            rank.setdefault(left + right, len(rank))
        keys |= {
            # A piece that nothing merges into is found by no pair either: its score is never looked at.
            "scores": [-float(rank.get(token, len(rank))) for token in tokens],
            "unknown_token_id": unknown,
            "add_space_prefix": _puts_space(described),
        }
    else:
        keys |= {"pre": _rule_of(described), "merges": [" ".join(merge) for merge in merges]}
    found = {f"tokenizer.ggml.{key}": value for key, value in keys.items() if value is not None}
    return found if template is None else found | {"tokenizer.chat_template": template}


def _puts_space(described: dict[str, Any]) -> bool:
    """Whether a space is put before a text.

    Raises:
        InputError: where something else is done to it that the format has no key for.
    """
    normalizer = described.get("normalizer") or {}
    parts = normalizer.get("normalizers", [normalizer] if normalizer else [])
    kinds = [(part["type"], part.get("content", part.get("prepend"))) for part in parts]
    splitter = described.get("pre_tokenizer")
    if splitter is not None and splitter["type"] == "Metaspace":
        return bool(splitter.get("prepend_scheme", "always") != "never")
    if splitter is not None or any(kind not in ("Prepend", "Replace") for kind, _ in kinds):
        raise InputError("the tokenizer changes text in ways that GGUF has no key for: write a Hugging Face folder")
    return ("Prepend", SPACE_MARK) in kinds


def _rule_of(described: dict[str, Any]) -> str:
    """Name of the rule that splits text as a `tokenizer.json` does.

    Raises:
        InputError: for one that is not among `SPLITTERS`.
    """
    splitter = described.get("pre_tokenizer") or {}
    parts = splitter.get("pretokenizers", [splitter])
    found = [part["pattern"].get("Regex") for part in parts if part.get("type") == "Split"]
    byte_level = next((part for part in parts if part.get("type") == "ByteLevel"), None)
    others = [part for part in parts if part.get("type") not in ("Split", "ByteLevel") and part != _DIGITS]
    rules = {_spelled(patterns): name for name, patterns in SPLITTERS.items()}
    if byte_level is not None and not others and not byte_level.get("add_prefix_space"):
        if _DIGITS in parts:
            found.insert(0, SPLITTERS["smollm"][0])
        if byte_level.get("use_regex", True):
            found.append(SPLITTERS["gpt-2"][0])
        if (name := rules.get(_spelled(found))) is not None:
            return name
    raise InputError(
        f"how the tokenizer splits text ({json.dumps(splitter, ensure_ascii=False)[:200]}) has no name in GGUF files "
        "that is known here: write a Hugging Face folder"
    )


def _spelled(patterns: Any) -> tuple[str, ...]:
    """Patterns as they are compared: Llama 3's is spelled in two ways that mean the same."""
    return tuple(
        pattern.replace(r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", "(?i:'s|'t|'re|'ve|'m|'ll|'d)")
        for pattern in patterns
    )

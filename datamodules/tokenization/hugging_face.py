"""Hugging Face tokenizers, read from `tokenizer.json`.

Text that spells a control token stays text here, as with this project's own tokenizer; transformers would turn it into
the control token. `tokenizer_config.json` beside it names the tokens that begin, end and pad a text; the post-processor
says whether texts have the first.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import InputError
from datamodules.tokenization.base import SPACE_MARK, Tokenizer

JSON, SETTINGS, GENERATION = "tokenizer.json", "tokenizer_config.json", "generation_config.json"


_BEFORE = ("\u0001", "\n", ".", "a")
"""Texts that are before a continuation: one that merges with nothing is the first, one that is a token the last."""

_PROBE = "a  b \ufb01\u2460\u3000A\n\t\u00e9\U0001f642\n    x\n"
"""What one normalizer or another rewrites or has no token for: spaces, compatible characters, capitals, emoji. It is in
Unicode's form C, into which Qwen's brings text, and begins with no space, which Llama 2's drops there."""


class HuggingFaceTokenizer(Tokenizer):
    """A tokenizer of the `tokenizers` library.

    Args:
        model: JSON of `tokenizer`, the text of `tokenizer.json`, and the ids `bos`, `eos`, `pad`.

    Raises:
        InputError: when the library is not installed or the text is none of its tokenizers.
    """

    def __init__(self, model: bytes) -> None:
        try:
            import tokenizers
        except ImportError as error:
            raise InputError(f"{JSON} needs the tokenizers package: pip install -e '.[huggingface]'") from error
        self.model = model
        described = json.loads(model)
        self._json: str = described["tokenizer"]
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(self._json)
        except Exception as error:  # the library raises nothing more particular
            raise InputError(f"{JSON} cannot be read ({error})") from error
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.bos, self.eos, self.pad = described["bos"], described["eos"], described["pad"]
        self._puts_space = _puts_space(json.loads(self._json))
        self._before = [text for text in _BEFORE if self.decode(self.encode(text)) == text]
        self._begins = self.bos in self._tokenizer.encode("", add_special_tokens=True).ids

    @classmethod
    def load(cls, path: Path) -> "HuggingFaceTokenizer":
        """From `tokenizer.json` and what lies beside it: settings, and the ends of text of `generation_config.json`.

        Raises:
            InputError: when a file is damaged, no end-of-text token is named, or text does not come back from its
                tokens, as with BERT's (lower case) and T5's (no token for many characters).
        """
        settings = path.with_name(SETTINGS)
        try:
            text = path.read_text(encoding="utf-8")
            named = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
            added = {token["content"]: token["id"] for token in json.loads(text).get("added_tokens", [])}
            bos, eos, pad = (_id(named.get(f"{name}_token"), added) for name in ("bos", "eos", "pad"))
        except (UnicodeError, json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
            raise InputError(f"{path} or {SETTINGS} beside it is damaged ({error})") from error
        if eos is None:
            raise InputError(f"{settings} names no eos_token that {path.name} holds: add it")
        ids = {"bos": bos, "eos": eos, "pad": eos if pad is None else pad}
        found = cls(json.dumps({"tokenizer": text, **ids}).encode())
        if (decoded := found.decode(found.encode(_PROBE))) != _PROBE:
            raise InputError(
                f"{path} loses text ({_PROBE!r} comes back as {decoded!r}): it changes case, spaces or characters, or "
                "has no token for some, so that bits per byte would mean nothing; take a byte-level tokenizer or one "
                "with byte fallback"
            )
        found.stops = _stops(path.with_name(GENERATION), eos, len(found))
        return found

    def described(self) -> dict[str, Any]:
        """Content of `tokenizer.json`."""
        found: dict[str, Any] = json.loads(self._json)
        return found

    @property
    def beginning(self) -> list[int]:
        """The beginning-of-text token where the tokenizer writes it; SmolLM's and GPT-2's only name one."""
        return super().beginning if self._begins else []

    def __len__(self) -> int:
        return int(max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def encode_continuation(self, text: str, behind_control: bool = False) -> list[int]:
        if text and self._puts_space != "never" and not (behind_control and self._puts_space == "always"):
            for before in self._before:
                ids, whole = self.encode(before), self.encode(before + text)
                if whole[: len(ids)] == ids:
                    return whole[len(ids) :]
        return self.encode(text)

    def decode_continuation(self, ids: Iterable[int]) -> str:
        before = self._before[-1] if self._before and self._puts_space != "never" else ""
        return self.decode([*self.encode(before), *ids])[len(before) :]

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch(texts, add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def control_ids(self) -> dict[str, int]:
        added = self._tokenizer.get_added_tokens_decoder()
        return {token.content: number for number, token in added.items() if token.special}

    def token_bytes(self) -> np.ndarray:
        sizes = np.zeros(len(self), dtype=np.int32)
        is_byte_level = "ByteLevel" in _types(json.loads(self._json).get("decoder"))
        control, added = set(self.control_ids().values()), self._tokenizer.get_added_tokens_decoder()
        for token, number in self._tokenizer.get_vocab(with_added_tokens=True).items():
            if number in control:
                continue
            if is_byte_level:
                # A token that was learned has a character for each byte, one that was added is its text.
                sizes[number] = len(token.encode()) if number in added else len(token)
            elif len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
                sizes[number] = 1
            else:
                sizes[number] = len(token.replace(SPACE_MARK, " ").encode())
        return sizes

    def write(self, folder: Path) -> None:
        (folder / JSON).write_text(self._json, encoding="utf-8")
        ids = {f"{name}_token": getattr(self, name) for name in ("bos", "eos", "pad")}
        described = {
            name: str(self._tokenizer.id_to_token(number)) for name, number in ids.items() if number is not None
        }
        (folder / SETTINGS).write_text(json.dumps(settings_of(described), indent=2) + "\n", encoding="utf-8")
        if self.stops:
            # Of a model's folder it holds more than this, and is written with the model.
            ends = {"eos_token_id": [self.eos, *self.stops]}
            if not (folder / GENERATION).exists():
                (folder / GENERATION).write_text(json.dumps(ends, indent=2) + "\n", encoding="utf-8")


def settings_of(special: dict[str, str], template: str | None = None) -> dict[str, Any]:
    """Content of `tokenizer_config.json` beside a complete `tokenizer.json`."""
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        **special,
    }
    return settings if template is None else settings | {"chat_template": template}


def _stops(path: Path, eos: int, size: int) -> tuple[int, ...]:
    """Ends of text that a `generation_config.json` lists beside the tokenizer's own.

    Raises:
        InputError: for a file that is damaged, or ids that the tokenizer does not have.
    """
    if not path.is_file():
        return ()
    try:
        listed = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    except (UnicodeError, json.JSONDecodeError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({error}): download it again, or remove it") from error
    found = listed if isinstance(listed, list) else [] if listed is None else [listed]
    for number in found:
        if not isinstance(number, int) or not 0 <= number < size:
            raise InputError(f"{path}: eos_token_id={listed}, the tokenizer has ids below {size}: not of this model")
    return tuple(number for number in dict.fromkeys(found) if number != eos)


def _id(token: Any, ids: dict[str, int]) -> int | None:
    """A special token is named by its text, or by an object that holds it."""
    return ids.get(token["content"] if isinstance(token, dict) else token) if token else None


def _puts_space(described: Any) -> str:
    """Where a tokenizer puts a space in front of a text: `never`, at the `first` character of all, or `always`, behind
    control tokens too."""
    normalizers, splitters = _parts(described.get("normalizer")), _parts(described.get("pre_tokenizer"))
    schemes = [
        part.get("prepend_scheme") or ("always" if part.get("add_prefix_space", True) else "never")
        for part in splitters
        if part.get("type") in ("Metaspace", "ByteLevel")
    ]
    if any(part.get("type") == "Prepend" for part in normalizers) or "always" in schemes:
        return "always"
    return "first" if "first" in schemes else "never"


def _parts(part: Any) -> list[dict[str, Any]]:
    """A description and all that are within it."""
    if isinstance(part, dict):
        return [part, *(inner for value in part.values() for inner in _parts(value))]
    return [inner for value in part for inner in _parts(value)] if isinstance(part, list) else []


def _types(part: Any) -> set[str]:
    """Types of all parts of a description."""
    return {one.get("type", "") for one in _parts(part)}

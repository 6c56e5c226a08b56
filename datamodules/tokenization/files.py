"""Tokenizer files: finding a tokenizer and loading it."""

import json
from pathlib import Path

from common.errors import InputError
from common.stored_models.gguf_metadata import gguf_metadata, is_gguf
from common.stored_models.names import is_model_name, model_path
from datamodules.tokenization.base import TOKENIZER, Tokenizer, TokenizerSettings
from datamodules.tokenization.hugging_face import JSON, SETTINGS, HuggingFaceTokenizer
from datamodules.tokenization.sentencepiece import SentencePieceTokenizer

TEMPLATE = "chat_template.jinja"
"""Name of a tokenizer's own template, in the folder of the tokenizer."""


def restore(model: bytes) -> Tokenizer:
    """The tokenizer of `Tokenizer.model`."""
    return HuggingFaceTokenizer(model) if model[:1] == b"{" else SentencePieceTokenizer(model)


def load_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer from its file, or from the metadata of a GGUF file."""
    if is_gguf(path):
        # Imported where it is used: few models are such a file.
        from datamodules.tokenization.gguf_tokenizer import tokenizer_of_gguf

        return tokenizer_of_gguf(path)
    return HuggingFaceTokenizer.load(path) if path.suffix == ".json" else SentencePieceTokenizer(path.read_bytes())


def unused_code(tokenizer: Tokenizer | TokenizerSettings) -> tuple[str, ...]:
    """Modules that read tokenizers of the other kind than this one, or than one to be trained: they decide nothing."""
    is_foreign = isinstance(tokenizer, HuggingFaceTokenizer)
    return (f"datamodules.tokenization.{'sentencepiece' if is_foreign else 'hugging_face'}",)


def find_tokenizer(path: Path) -> Path:
    """The tokenizer's file that belongs to a path or name: itself, or the one in or beside a run, checkpoint or export.

    Llama 2 and Mistral bring a SentencePiece model that is not this project's beside their `tokenizer.json`.

    Raises:
        InputError: when there is none.
    """
    if is_model_name(path):
        path = model_path(path, "tokenizer")
    files = [path] if path.suffix in (".model", ".gguf") or path.name.endswith(JSON) else []
    if not files:
        folders = (
            path.with_suffix(".tokenizer"),
            path,
            path.parent,
            path.parent.parent,
        )  # the first as `convert` names it
        files = [folder / name for folder in folders for name in (TOKENIZER, JSON)]
    for file in files:
        if file.is_file() and not (file.name == TOKENIZER and file.with_name(JSON).is_file() and not _is_own(file)):
            return file
    raise InputError(
        f"tokenizer={path}: no {TOKENIZER} or {JSON} there, name a run's folder, a file that convert wrote, or the "
        "tokenizer's own file"
    )


def _is_own(file: Path) -> bool:
    try:
        load_tokenizer(file)
    except InputError:
        return False
    return True


def own_template(tokenizer: Path) -> str | None:
    """The file that holds a tokenizer's own chat template: one beside it, its settings, or the GGUF file that holds
    both; None where there is none."""
    if is_gguf(tokenizer):
        return str(tokenizer) if gguf_metadata(tokenizer).get("tokenizer.chat_template") else None
    beside, settings = tokenizer.with_name(TEMPLATE), tokenizer.with_name(SETTINGS)
    if beside.is_file():
        return str(beside)
    if settings.is_file() and json.loads(settings.read_text(encoding="utf-8")).get("chat_template"):
        return str(settings)
    return None

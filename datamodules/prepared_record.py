"""Record of prepared data: which artifacts some settings gave, kept beside them.

Names of artifacts are made from the content of the raw text, which has to be there to be read. The record needs
none of it: for training after the raw text was deleted or left behind, and for all ranks of a node but the first, which
would list every file of it again. It holds names alone; what it names is checked like any other artifact.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import xxhash

from common.files import write_text_atomically
from datamodules.curation.config import CurationConfig, TextSource
from datamodules.curation.deduplication.minhash import NearDuplicates
from datamodules.tokenization.base import Tokenizer, TokenizerSettings

FOLDER = ".prepared"


def settings_key(
    sources: Mapping[str, TextSource],
    near_duplicates: NearDuplicates | None,
    validation_fraction: float,
    tokenizer: TokenizerSettings | Tokenizer,
    seed: int,
    curation: CurationConfig,
) -> str:
    """Key of all settings that decide prepared data, as YAML gives them; arguments as for `prepare.prepare`.

    Inputs and code do not count: of several preparations with the same settings the last one is recorded.
    """
    described = {
        name: [_described(part) for part in (source.reader, *source.steps, *source.repetitions.values())]
        for name, source in sorted(sources.items())
    }
    parts = [*curation.steps, curation.url_duplicates, curation.personal_data]
    tokens = (
        tokenizer.to_dict() if isinstance(tokenizer, TokenizerSettings) else xxhash.xxh3_64_hexdigest(tokenizer.model)
    )
    whole = [described, _described(near_duplicates), [_described(part) for part in parts], tokens]
    text = json.dumps([*whole, validation_fraction, seed, curation.chunk_megabytes], sort_keys=True, default=repr)
    return xxhash.xxh3_64_hexdigest(text.encode("utf-8", "surrogatepass"))


def _described(part: Any) -> Any:
    """Class and simple attributes."""
    if part is None:
        return None
    return [type(part).__name__, {name: _place(value) for name, value in vars(part).items() if _is_simple(value)}]


def _place(value: Any) -> Any:
    """A value with its paths below the working directory relative to it, so that a project that was moved is known."""
    if isinstance(value, list | tuple):
        return [_place(item) for item in value]
    here = os.getcwd()
    is_below = isinstance(value, str) and os.path.isabs(value) and value.startswith(here + os.sep)
    return os.path.relpath(value, here) if is_below else value


def _is_simple(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_simple, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_simple(item) for key, item in value.items())
    return value is None or isinstance(value, str | int | float | bool)


def write_record(root: Path, key: str, names: dict[str, str | None]) -> None:
    """Note the names of the artifacts that settings gave; a folder that cannot be written keeps what it has."""
    path = root / FOLDER / f"{key}.json"
    if read_record(root, key) != names:
        with suppress(OSError):
            write_text_atomically(path, json.dumps(names, indent=1))


def read_record(root: Path, key: str) -> dict[str, str | None] | None:
    """Names of the artifacts that settings gave, or None where nothing is noted."""
    try:
        found = json.loads((root / FOLDER / f"{key}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None

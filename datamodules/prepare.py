"""Data preparation: documents, tokenizer and shards, each reused when nothing it depends on changed.

Documents (collected and curated) -> tokenizer -> shards. Separate artifacts cost a copy of the curated text on disk; in
return a change of the vocabulary does not repeat curation.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from common.artifacts import artifact_files, build_artifact, verified, verified_files, write_checksums
from common.console import announce, is_local_rank_zero
from common.content_checksums import checksum_cache
from common.errors import InputError
from common.fingerprint import class_fingerprint, code_fingerprint, fingerprint
from datamodules.curation.config import CurationConfig, TextSource
from datamodules.curation.deduplication.minhash import NearDuplicates
from datamodules.curation.passes.write import DOCUMENTS
from datamodules.curation.pipeline import SUMMARY, TIMINGS, curate, curation_fingerprint, list_inputs
from datamodules.curation.reports.summary import format_table
from datamodules.prepared_record import read_record, settings_key, write_record
from datamodules.readers.base import InputFile
from datamodules.shards.parquet_tokens import ParquetTokens, TokenFile
from datamodules.shards.write import DocumentFile, write_shards
from datamodules.tokenization.base import Tokenizer, TokenizerSettings
from datamodules.tokenization.files import find_tokenizer, load_tokenizer, unused_code
from datamodules.tokenization.sentencepiece import train_tokenizer
from datamodules.tokenization.training_sample import sample_texts

TRAINING_CODE = ("datamodules.tokenization.sentencepiece", "datamodules.tokenization.training_sample")


@dataclass(frozen=True)
class Prepared:
    """Folders of the three artifacts; `documents` is None where every source is pre-tokenized, or where the folder was
    deleted and only what was made of it is left."""

    documents: Path | None
    tokenizer: Path
    shards: Path

    def summary(self) -> dict[str, Any]:
        """Counts of curation."""
        return read_summary(self.documents) if self.documents else {}

    def load_tokenizer(self) -> Tokenizer:
        """The tokenizer of the shards."""
        return load_verified(self.tokenizer)


def load_verified(folder: Path) -> Tokenizer:
    """The tokenizer of an artifact, compared with its checksum."""
    for file in folder.glob("tokenizer*"):
        verified(file)
    return load_tokenizer(find_tokenizer(folder))


def prepare(
    folder: Path,
    sources: Mapping[str, TextSource],
    near_duplicates: NearDuplicates | None,
    validation_fraction: float,
    tokenizer: TokenizerSettings | Tokenizer,
    seed: int,
    curation: CurationConfig | None = None,
) -> Prepared:
    """Make the artifacts that are not on disk yet.

    Args:
        folder: root of all artifacts.
        sources: readers, curation steps and weights by name.
        near_duplicates: near-duplicate removal, or None for exact removal only.
        validation_fraction: share of each source's bytes in the validation split.
        tokenizer: settings of training one, or an existing one.
        seed: seed of the validation split.
        curation: settings of curation for all sources; by default `CurationConfig()`.

    Where the raw text cannot be listed any more, as it was deleted, what was prepared from it with the same settings is
    used, which is said.

    Raises:
        InputError: for a missing path, an empty corpus, a vocabulary the corpus cannot fill, a full disk or a damaged
            artifact.
    """
    curation, folder = curation or CurationConfig(), Path(os.path.abspath(folder))
    key = settings_key(sources, near_duplicates, validation_fraction, tokenizer, seed, curation)
    recorded = _recorded(folder, key)
    if recorded is not None and not is_local_rank_zero():
        return recorded  # the first process of this node has just made or found it
    try:
        with checksum_cache(folder):
            inputs = list_inputs(sources)
    except InputError as error:
        if recorded is None:
            raise
        announce(f"raw text is not there ({error}): taking {recorded.shards}, prepared from it with these settings")
        return recorded
    found = _prepare(folder, sources, inputs, near_duplicates, validation_fraction, tokenizer, seed, curation)
    documents = found.documents.name if found.documents else None
    names = (documents, found.tokenizer.name, found.shards.name)
    write_record(folder, key, dict(zip(ARTIFACTS, names, strict=True)))
    return found


ARTIFACTS = ("documents", "tokenizer", "shards")


def _recorded(folder: Path, key: str) -> Prepared | None:
    """What some settings gave, if its tokenizer and shards are still there."""
    names = read_record(folder, key) or {}
    documents, tokenizer, shards = (folder / str(names.get(name)) for name in ARTIFACTS)
    if not (tokenizer.is_dir() and shards.is_dir()):
        return None
    return Prepared(documents if documents.is_dir() else None, tokenizer, shards)


def _prepare(
    folder: Path,
    sources: Mapping[str, TextSource],
    inputs: Mapping[str, list[InputFile]],
    near_duplicates: NearDuplicates | None,
    validation_fraction: float,
    tokenizer: TokenizerSettings | Tokenizer,
    seed: int,
    curation: CurationConfig,
) -> Prepared:
    """See `prepare`; the files of each source are known."""
    tokens = {name: source for name, source in sources.items() if isinstance(source.reader, ParquetTokens)}
    text = {name: source for name, source in sources.items() if name not in tokens}
    token_files = _token_files(tokens, inputs, validation_fraction, tokenizer, seed)
    documents = None
    if text:
        of_text = {name: inputs[name] for name in text}
        documents = _documents(folder, text, of_text, near_duplicates, validation_fraction, seed, curation)
    documents_key = documents.name.removeprefix(f"{DOCUMENTS}-") if documents else None
    tokenizer_key = tokenizer_fingerprint(documents_key, tokenizer)
    shards_key = shards_fingerprint(tokenizer_key, tokenizer, token_files)

    def make_tokenizer(into: Path) -> None:
        made = tokenizer
        if isinstance(made, TokenizerSettings):
            assert documents is not None
            sample = sample_texts(document_files(documents), made.weights, int(made.sample_megabytes * 1e6))
            announce(f"tokenizer: learning {made.vocabulary_size} tokens from {made.sample_megabytes} MB of text")
            made = train_tokenizer(sample, made)
        made.write(into)
        write_checksums(into, *(file.name for file in sorted(into.iterdir())))

    def make_shards(into: Path) -> None:
        load_verified(tokenizer_folder)
        found = document_files(documents) if documents else []
        whole = [DocumentFile(path, path.stat().st_size) for path in found]
        files: list[DocumentFile | TokenFile] = [*whole, *token_files]
        write_shards(files, into, tokenizer_folder, curation.engine)

    tokenizer_folder = build_artifact(folder, "tokenizer", tokenizer_key, make_tokenizer)
    shards = build_artifact(folder, "shards", shards_key, make_shards, resumable=True)
    if documents is not None:
        # Read again only when training ends: better refused before it begins.
        verified(documents / SUMMARY)
    return Prepared(documents, tokenizer_folder, shards)


def tokenizer_fingerprint(documents_key: str | None, tokenizer: TokenizerSettings | Tokenizer) -> str:
    """Fingerprint of the tokenizer; arguments as for `prepare`."""
    if isinstance(tokenizer, Tokenizer):
        model = xxhash.xxh3_64_hexdigest(tokenizer.model)
        return fingerprint(documents_key, model, class_fingerprint(type(tokenizer)))
    return fingerprint(documents_key, tokenizer.to_dict(), code_fingerprint(*TRAINING_CODE))


def shards_fingerprint(
    tokenizer_key: str, tokenizer: TokenizerSettings | Tokenizer, token_files: Sequence[TokenFile]
) -> str:
    """Fingerprint of the shards; other arguments as for `prepare`."""
    described = [
        [part.source, part.file.identity, part.column, part.validation_fraction, part.seed] for part in token_files
    ]
    return fingerprint(
        tokenizer_key, described, code_fingerprint("datamodules.shards.write", without=unused_code(tokenizer))
    )


def _token_files(
    sources: Mapping[str, TextSource],
    inputs: Mapping[str, list[InputFile]],
    validation_fraction: float,
    tokenizer: TokenizerSettings | Tokenizer,
    seed: int,
) -> list[TokenFile]:
    """Files of pre-tokenized sources."""
    files = []
    for name, source in sources.items():
        reader = source.reader
        assert isinstance(reader, ParquetTokens)
        if isinstance(tokenizer, TokenizerSettings):
            raise InputError(
                f"sources.{name} holds token ids and the tokenizer is to be trained: set `tokenizer` to the folder of "
                "the one they were made with"
            )
        for setting in (*(["steps"] if source.steps else []), *source.repetitions):
            raise InputError(f"sources.{name} holds token ids, which no step can change: leave its `{setting}` out")
        files += [TokenFile(name, file, reader.column, validation_fraction, seed) for file in inputs[name]]
    return files


def prepare_documents(
    folder: Path,
    sources: Mapping[str, TextSource],
    near_duplicates: NearDuplicates | None,
    validation_fraction: float,
    seed: int,
    curation: CurationConfig | None = None,
) -> Path:
    """Folder of the documents alone, made if it is not there; arguments as for `prepare`."""
    curation, folder = curation or CurationConfig(), Path(os.path.abspath(folder))
    with checksum_cache(folder):
        inputs = list_inputs(sources)
    return _documents(folder, sources, inputs, near_duplicates, validation_fraction, seed, curation)


def _documents(
    folder: Path,
    sources: Mapping[str, TextSource],
    inputs: Mapping[str, list[InputFile]],
    near_duplicates: NearDuplicates | None,
    validation_fraction: float,
    seed: int,
    curation: CurationConfig,
) -> Path:
    """See `prepare_documents`; the files of each source are known."""
    key = curation_fingerprint(sources, dict(inputs), near_duplicates, validation_fraction, seed, curation)

    def make_documents(into: Path) -> None:
        summary = curate(sources, dict(inputs), into, near_duplicates, validation_fraction, seed, curation)
        announce(format_table(summary))

    return build_artifact(folder, DOCUMENTS, key, make_documents, resumable=True)


def read_summary(documents: Path) -> dict[str, Any]:
    """Counts of curation, and its timings."""
    counted: dict[str, Any] = json.loads(verified(documents / SUMMARY).read_text(encoding="utf-8"))
    timings: dict[str, Any] = json.loads((documents / TIMINGS).read_text(encoding="utf-8"))
    return counted | timings


def document_files(documents: Path) -> list[Path]:
    """Files of curated documents, in order, each compared with its checksum.

    Raises:
        InputError: when one is damaged.
    """
    names = artifact_files(documents)
    return verified_files(documents, (name for name in names if name.startswith(f"{DOCUMENTS}/")))

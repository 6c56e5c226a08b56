"""From raw sources to shards of tokens, in three stages that are each reused when nothing they depend on changed.

documents (collected and cleaned) -> tokenizer -> shards. Separate stages cost a copy of the clean text on disk and
buy that changing the vocabulary does not clean again.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet
import xxhash
from lightning.pytorch.utilities import rank_zero_info
from tqdm import tqdm

from datamodules.cleaning.finishing import DOCUMENTS
from datamodules.cleaning.minhash import NearDuplicates
from datamodules.cleaning.pipeline import (
    SUMMARY,
    TIMINGS,
    Curation,
    Source,
    clean,
    cleaning_fingerprint,
    list_inputs,
)
from datamodules.cleaning.summary import format_table
from datamodules.shards import ShardWriter, write_manifest
from datamodules.stages import checksummed, fingerprint, run_stage, source_fingerprint, verified, write_checksums
from datamodules.tokenizer import Tokenizer, TokenizerSettings, train_tokenizer
from datamodules.tokenizer_files import find_tokenizer, load_tokenizer

SPLITS = ("train", "validation")

_TOKENIZER_SOURCES = ("tokenizer.py", "hugging_face_tokenizer.py", "prepare.py")


@dataclass(frozen=True)
class Prepared:
    """Folders of the three stages."""

    documents: Path
    tokenizer: Path
    shards: Path

    def summary(self) -> dict[str, Any]:
        """What cleaning counted."""
        return read_summary(self.documents)

    def load_tokenizer(self) -> Tokenizer:
        """The tokenizer of the shards."""
        return load_verified(self.tokenizer)


def load_verified(folder: Path) -> Tokenizer:
    """The tokenizer of a stage's folder."""
    for file in folder.glob("tokenizer*"):
        verified(file)
    return load_tokenizer(find_tokenizer(folder))


def prepare(
    folder: Path,
    sources: Mapping[str, Source],
    near_duplicates: NearDuplicates | None,
    validation_fraction: float,
    tokenizer: TokenizerSettings | Tokenizer,
    seed: int,
    curation: Curation | None = None,
) -> Prepared:
    """Run the stages that are not on disk yet.

    Args:
        folder: root of all stages.
        sources: readers, cleaning steps and weights by name.
        near_duplicates: near-duplicate removal, or None for exact removal only.
        validation_fraction: share of each source's bytes held out.
        tokenizer: how the tokenizer is trained, or one that there is.
        seed: of the validation split.
        curation: what cleaning does to all sources alike; by default `Curation()`.

    Raises:
        InputError: for a missing path, an empty corpus, a vocabulary the corpus cannot fill, a full disk or a damaged
            stage.
    """
    documents = prepare_documents(folder, sources, near_duplicates, validation_fraction, seed, curation)
    weights = {name: source.weight for name, source in sources.items()}
    chosen: Any = xxhash.xxh3_64_hexdigest(tokenizer.model) if isinstance(tokenizer, Tokenizer) else tokenizer.to_dict()
    documents_key = documents.name.removeprefix(f"{DOCUMENTS}-")
    tokenizer_key = fingerprint(documents_key, chosen, weights, source_fingerprint(*_TOKENIZER_SOURCES))
    shards_key = fingerprint(tokenizer_key, source_fingerprint("shards.py"))

    def make_tokenizer(into: Path) -> None:
        made = tokenizer
        if isinstance(made, TokenizerSettings):
            sample = weighted_sample(document_files(documents), weights, int(made.sample_megabytes * 1e6))
            made = train_tokenizer(sample, made)
        made.write(into)
        write_checksums(into, *(file.name for file in sorted(into.iterdir())))

    def make_shards(into: Path) -> None:
        write_shards(document_files(documents), into, load_verified(tokenizer_folder))

    tokenizer_folder = run_stage(folder, "tokenizer", tokenizer_key, make_tokenizer)
    shards = run_stage(folder, "shards", shards_key, make_shards)
    # Read again only when training ends: better refused before it begins.
    verified(documents / SUMMARY)
    return Prepared(documents, tokenizer_folder, shards)


def prepare_documents(
    folder: Path,
    sources: Mapping[str, Source],
    near_duplicates: NearDuplicates | None,
    validation_fraction: float,
    seed: int,
    curation: Curation | None = None,
) -> Path:
    """Folder of the first stage alone, made if it is not there; arguments as for `prepare`."""
    inputs, curation = list_inputs(sources), curation or Curation()
    key = cleaning_fingerprint(sources, inputs, near_duplicates, validation_fraction, seed, curation)

    def make_documents(into: Path) -> None:
        summary = clean(sources, inputs, into, near_duplicates, validation_fraction, seed, curation)
        rank_zero_info(format_table(summary))

    return run_stage(folder, DOCUMENTS, key, make_documents, resumable=True)


def read_summary(documents: Path) -> dict[str, Any]:
    """What cleaning counted, and how long it took."""
    counted: dict[str, Any] = json.loads(verified(documents / SUMMARY).read_text(encoding="utf-8"))
    timings: dict[str, Any] = json.loads((documents / TIMINGS).read_text(encoding="utf-8"))
    return counted | timings


def document_files(documents: Path) -> list[Path]:
    """Files of clean documents of a stage's folder, in order, each compared with its checksum.

    Raises:
        InputError: when one is damaged.
    """
    names = checksummed(documents)
    return [verified(documents / name, documents) for name in names if name.startswith(f"{DOCUMENTS}/")]


def read_documents(files: Sequence[Path]) -> Iterator[dict[str, list[Any]]]:
    """Batches of clean documents as columns, in the order of the files."""
    for path in files:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(1024, columns=["id", "source", "split", "bytes", "text"]):
                yield batch.to_pydict()


def weighted_sample(files: Sequence[Path], weights: Mapping[str, float], size: int) -> Iterator[str]:
    """Training texts of about `size` bytes, each source giving its weight's share as far as it has it."""
    total = sum(weights.values())
    left = {name: size * weight / total for name, weight in weights.items()}
    for batch in read_documents(files):
        for source, split, length, text in zip(
            batch["source"], batch["split"], batch["bytes"], batch["text"], strict=True
        ):
            if split == "train" and left[source] > 0:
                left[source] -= length
                yield text


def write_shards(files: Sequence[Path], into: Path, tokenizer: Tokenizer) -> None:
    """Encode every clean document into the shards of its split and source."""
    writers: dict[tuple[str, str], ShardWriter] = {}
    with tqdm(desc="tokenising", unit="B", unit_scale=True) as progress:
        for batch in read_documents(files):
            for key in sorted({*zip(batch["split"], batch["source"], strict=True)}):
                rows = [
                    row for row, pair in enumerate(zip(batch["split"], batch["source"], strict=True)) if pair == key
                ]
                if key not in writers:
                    writers[key] = ShardWriter(into, *key, tokenizer)
                writers[key].write([batch["id"][row] for row in rows], [batch["text"][row] for row in rows])
            progress.update(sum(batch["bytes"]))
    for writer in writers.values():
        writer.close()
    write_manifest(into, [record for key in sorted(writers) for record in writers[key].records], tokenizer)

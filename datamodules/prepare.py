"""From raw sources to shards of tokens, in three stages that are each reused when nothing they depend on changed.

documents (collected and cleaned) -> tokenizer -> shards. Separate stages cost a copy of the clean text on disk and
buy that changing the vocabulary does not clean again.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.dataset
import xxhash
from lightning.pytorch.utilities import rank_zero_info
from tqdm import tqdm

from datamodules.cleaning.minhash import NearDuplicates
from datamodules.cleaning.pipeline import DOCUMENTS, SUMMARY, Source, clean, cleaning_fingerprint, list_inputs
from datamodules.cleaning.summary import format_table
from datamodules.shards import ShardWriter, write_manifest
from datamodules.stages import fingerprint, run_stage, source_fingerprint, verified, write_checksums
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
        loaded: dict[str, Any] = json.loads(verified(self.documents / SUMMARY).read_text(encoding="utf-8"))
        return loaded

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
) -> Prepared:
    """Run the stages that are not on disk yet.

    Args:
        folder: root of all stages.
        sources: readers, cleaning steps and weights by name.
        near_duplicates: near-duplicate removal, or None for exact removal only.
        validation_fraction: share of each source's bytes held out.
        tokenizer: how the tokenizer is trained, or one that there is.
        seed: of the validation split.

    Raises:
        InputError: for a missing path, an empty corpus, a vocabulary the corpus cannot fill or a damaged stage.
    """
    inputs = list_inputs(sources)
    documents_key = cleaning_fingerprint(sources, inputs, near_duplicates, validation_fraction, seed)
    weights = {name: source.weight for name, source in sources.items()}
    chosen: Any = xxhash.xxh3_64_hexdigest(tokenizer.model) if isinstance(tokenizer, Tokenizer) else tokenizer.to_dict()
    tokenizer_key = fingerprint(documents_key, chosen, weights, source_fingerprint(*_TOKENIZER_SOURCES))
    shards_key = fingerprint(tokenizer_key, source_fingerprint("shards.py"))

    def make_documents(into: Path) -> None:
        summary = clean(sources, inputs, into, near_duplicates, validation_fraction, seed)
        rank_zero_info(format_table(summary))

    def make_tokenizer(into: Path) -> None:
        made = tokenizer
        if isinstance(made, TokenizerSettings):
            sample = weighted_sample(verified(documents / DOCUMENTS), weights, int(made.sample_megabytes * 1e6))
            made = train_tokenizer(sample, made)
        made.write(into)
        write_checksums(into, *(file.name for file in sorted(into.iterdir())))

    def make_shards(into: Path) -> None:
        write_shards(verified(documents / DOCUMENTS), into, load_verified(tokenizer_folder))

    documents = run_stage(folder, "documents", documents_key, make_documents)
    tokenizer_folder = run_stage(folder, "tokenizer", tokenizer_key, make_tokenizer)
    shards = run_stage(folder, "shards", shards_key, make_shards)
    # Read again only when training ends: better refused before it begins.
    verified(documents / SUMMARY)
    return Prepared(documents, tokenizer_folder, shards)


def read_documents(path: Path) -> Iterator[dict[str, list[Any]]]:
    """Batches of clean documents as columns, in the order of their ids."""
    dataset = pyarrow.dataset.dataset(path)
    for batch in dataset.to_batches(columns=["id", "source", "split", "bytes", "text"], batch_size=1024):
        yield batch.to_pydict()


def weighted_sample(documents: Path, weights: Mapping[str, float], size: int) -> Iterator[str]:
    """Training texts of about `size` bytes, each source giving its weight's share as far as it has it."""
    total = sum(weights.values())
    left = {name: size * weight / total for name, weight in weights.items()}
    for batch in read_documents(documents):
        for source, split, length, text in zip(
            batch["source"], batch["split"], batch["bytes"], batch["text"], strict=True
        ):
            if split == "train" and left[source] > 0:
                left[source] -= length
                yield text


def write_shards(documents: Path, into: Path, tokenizer: Tokenizer) -> None:
    """Encode every clean document into the shards of its split and source."""
    writers: dict[tuple[str, str], ShardWriter] = {}
    with tqdm(desc="tokenising", unit="B", unit_scale=True) as progress:
        for batch in read_documents(documents):
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

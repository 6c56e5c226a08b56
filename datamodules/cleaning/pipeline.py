"""Collects the documents of all sources, cleans them, and says of every one what became of it.

One lazy Daft plan a source (read, rewrite, measure, decide) and one pass over all sources together (duplicates,
split, masking). Decisions about pairs are made on the driver from row numbers alone, so that they are deterministic;
texts stay in Daft.
"""

import itertools
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("DAFT_ANALYTICS_ENABLED", "0")

import daft
import numpy as np
import pyarrow
import pyarrow.parquet
from daft import DataFrame, DataType, Expression, col, lit
from daft.functions import coalesce, hash, left, length, regexp, regexp_replace, when
from lightning.pytorch.utilities import rank_zero_info

from datamodules.cleaning.dedup import NearDuplicates, best_of_components, connected_components, pairs_in_buckets
from datamodules.cleaning.length import bytes_of
from datamodules.cleaning.normalize import Normalize
from datamodules.cleaning.pii import KINDS, MaskPersonalData
from datamodules.cleaning.split import choose_validation
from datamodules.cleaning.step import CleaningStep, Rule
from datamodules.cleaning.summary import summarise
from datamodules.document import Document
from datamodules.readers import InputFile, Reader, provenance_name, stable_hash
from datamodules.stages import fingerprint, source_fingerprint, write_checksums
from errors import InputError

CODE = (
    "document.py", "readers.py", "cleaning/pipeline.py", "cleaning/step.py", "cleaning/normalize.py",
    "cleaning/buffers.py", "cleaning/measuring.py", "cleaning/characters.py", "cleaning/english.py",
    "cleaning/words.py", "cleaning/repeats.py", "cleaning/length.py", "cleaning/gopher.py", "cleaning/c4.py",
    "cleaning/fineweb.py", "cleaning/code_quality.py", "cleaning/pii.py", "cleaning/dedup.py", "cleaning/split.py",
    "cleaning/summary.py",
)  # fmt: skip
EXCERPT_CHARACTERS = 200
MASKING_MARGIN = 320
"""Characters kept behind an excerpt until it is masked, so that the cut halves no address: the longest e-mail."""
SOURCE_NAME = re.compile(r"[A-Za-z0-9_-]+")
DOCUMENTS, DROPPED, SUMMARY = "documents.parquet", "dropped.parquet", "cleaning.json"


@dataclass
class Source:
    """A named source of text, as an entry of `sources` in YAML.

    Args:
        reader: where its documents come from.
        steps: rules and rewrites in order; normalisation is always first and need not be named.
        weight: share of training samples drawn from it, on any positive scale.

    Raises:
        InputError: for a weight that is not positive.
    """

    reader: Reader
    steps: list[CleaningStep] = field(default_factory=list)
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise InputError(f"weight={self.weight}: must be above 0, or leave the source out")


DOCUMENT_FIELDS = {
    "id": DataType.uint64(),
    "path": DataType.string(),
    "group": DataType.string(),
    "bytes": DataType.int64(),
    "text": DataType.string(),
    "reason": DataType.string(),
}


class Clock:
    """Seconds and bytes of each stage, and a line on the console as each ends."""

    def __init__(self) -> None:
        self.stages: list[dict[str, Any]] = []
        self._start = time.perf_counter()

    def stage(self, name: str, size: int) -> None:
        """Close the stage that began where the last one ended."""
        seconds = time.perf_counter() - self._start
        rate = size / 1e6 / seconds
        self.stages.append(
            {"stage": name, "seconds": round(seconds, 3), "bytes": size, "megabytes_per_second": round(rate, 2)}
        )
        rank_zero_info(f"  {name}: {size / 1e6:.1f} MB in {seconds:.1f} s")
        self._start = time.perf_counter()


def list_inputs(sources: Mapping[str, Source]) -> dict[str, list[InputFile]]:
    """Files of every source.

    Raises:
        InputError: when a path is missing or a source has no file, or a name that files and metrics cannot bear.
    """
    for name in sources:
        if not SOURCE_NAME.fullmatch(name) or name == "all":
            raise InputError(
                f"sources.{name!r}: files and metrics are named after a source and 'all' means every one, "
                "give a name of ASCII letters, digits, '_' and '-'"
            )
    inputs = {name: source.reader.files() for name, source in sources.items()}
    for name, files in inputs.items():
        if not files:
            raise InputError(f"source {name}: its reader found no file to read: widen its settings or leave it out")
    return inputs


def cleaning_fingerprint(
    sources: Mapping[str, Source],
    inputs: Mapping[str, list[InputFile]],
    near_duplicates: NearDuplicates | None,
    validation_fraction: float,
    seed: int,
) -> str:
    """Fingerprint of all that decides the clean documents: input files, settings and the rules' own source code."""
    described = {
        name: [
            source.reader.settings(),
            [[type(step).__name__, vars(step)] for step in source.steps],
            [[provenance_name(file.name), file.size, file.changed] for file in inputs[name]],
        ]
        for name, source in sources.items()
    }
    near = near_duplicates.settings() if near_duplicates else None
    return fingerprint(described, near, validation_fraction, seed, source_fingerprint(*CODE), daft.__version__)


def clean(
    sources: Mapping[str, Source],
    inputs: Mapping[str, list[InputFile]],
    folder: Path,
    near_duplicates: NearDuplicates | None,
    validation_fraction: float,
    seed: int,
) -> dict[str, Any]:
    """Collect and clean into `documents.parquet`, `dropped.parquet` and `cleaning.json`.

    Args:
        sources: readers and steps by name.
        inputs: files of each source, from `list_inputs`.
        folder: empty; the caller makes the result appear at once.
        near_duplicates: near-duplicate removal over all sources, or None.
        validation_fraction: share of each source's bytes held out.
        seed: of the split.

    Returns:
        The summary, as written to `cleaning.json`.

    Raises:
        InputError: when no document is left.
    """
    clock = Clock()
    judged = []
    for name, source in sources.items():
        judged.append(judge(name, source, inputs[name]).collect())
        clock.stage(f"collect and judge {name}", _total(judged[-1], "bytes"))
    everything = judged[0]
    for more in judged[1:]:
        everything = everything.concat(more)
    # Sorted by id: an order that depends on nothing but the documents, and mixes files of all kinds.
    everything = everything.sort("id").collect()
    kept = everything.where(col("reason").is_null()).with_column("size", bytes_of(col("text"))).collect()
    size = _total(kept, "size")
    facts = {key: np.array(values) for key, values in kept.select("id", "source", "group", "size").to_pydict().items()}
    if not len(facts["id"]):
        reasons = everything.groupby("reason").agg(col("id").count()).to_pydict()["reason"]
        raise InputError(f"no document is left after cleaning; dropped as: {', '.join(sorted(reasons)) or 'none read'}")

    near = near_duplicates
    signatures = kept.select("id", near.signature(col("text")).alias("signature")).collect() if near else None
    clock.stage("signatures", size)
    duplicates = find_duplicates(kept, signatures, near, facts)
    clock.stage("find duplicates", size)
    related = relate(kept, signatures, near, facts)
    alive = duplicates == ""
    held_out = choose_validation(facts["source"], facts["size"] * alive, related, validation_fraction, seed)
    clock.stage("split", size)

    verdicts = daft.from_pydict(
        {
            "id": facts["id"],
            "duplicate": [reason or None for reason in duplicates.tolist()],
            "split": np.where(held_out, "validation", "train").tolist(),
        }
    )
    # Without a single duplicate the column would have no type.
    verdicts = verdicts.with_column("duplicate", col("duplicate").cast(DataType.string()))
    decided = kept.join(verdicts, on="id").collect()
    masker = MaskPersonalData()
    final = (
        decided.where(col("duplicate").is_null())
        .with_column("masked", masker.masked(col("text")))
        .with_columns({"text": col("masked").get("text"), **{kind: col("masked").get(kind) for kind in KINDS}})
        .with_column("bytes", bytes_of(col("text")))
        .sort("id")
        .collect()
    )
    clock.stage("mask personal data", size)
    copies = decided.where(~col("duplicate").is_null()).with_column("reason", col("duplicate"))
    columns = ("id", "source", "path", "reason", "bytes", "excerpt")
    dropped = everything.where(~col("reason").is_null()).select(*columns).concat(copies.select(*columns))
    # Dropped documents are shown to people, in reports as well: they are masked like the kept ones.
    dropped = dropped.with_column("excerpt", masked_excerpt(masker, col("excerpt"))).sort("id").collect()
    write_parquet(final.select("id", "source", "path", "group", "split", "bytes", "text"), folder / DOCUMENTS)
    write_parquet(dropped, folder / DROPPED)
    clock.stage("write", _total(final, "bytes"))
    summary = summarise(list(sources), everything, dropped, final, clock.stages)
    (folder / SUMMARY).write_text(json.dumps(summary, indent=1), encoding="utf-8")
    write_checksums(folder, DOCUMENTS, DROPPED, SUMMARY)
    return summary


def masked_excerpt(masker: MaskPersonalData, excerpt: Expression) -> Expression:
    """What may be shown of an excerpt that was cut with a margin."""
    masked = masker.rewrite(excerpt)
    # Placeholders are shorter: the end, where the cut may have halved an address, can move into view.
    is_cut = length(excerpt) == lit(EXCERPT_CHARACTERS + MASKING_MARGIN)
    whole = when(is_cut, regexp_replace(masked, rf"\S{{0,{MASKING_MARGIN}}}\z", "")).otherwise(masked)
    return left(whole, EXCERPT_CHARACTERS)


def judge(name: str, source: Source, files: list[InputFile]) -> DataFrame:
    """Lazily read and judge one source.

    Returns:
        One row a document: `id` uint64, `source`, `path`, `group`, `bytes` (as read), `excerpt` (unmasked, with a
        margin), `text` (null once dropped) and `reason` (null while kept).
    """
    reader = source.reader

    @daft.func(return_dtype=DataType.struct(DOCUMENT_FIELDS))
    def read(index: int) -> Iterator[dict[str, Any]]:
        yield from read_file(reader, name, files[index])

    # Daft gets file numbers: a path need not be text.
    documents = daft.from_pydict({"index": list(range(len(files)))}).select(read(col("index")).alias("document"))
    df = documents.select(*(col("document").get(field).alias(field) for field in DOCUMENT_FIELDS)).where(
        ~col("id").is_null()
    )
    df = df.with_columns({"source": lit(name), "excerpt": left(col("text"), EXCERPT_CHARACTERS + MASKING_MARGIN)})
    df = df.with_column("text", Normalize().rewrite(col("text")))
    df = df.with_column("reason", coalesce(col("reason"), when(~regexp(col("text"), r"\S"), lit("empty"))))
    df = df.with_column("text", when(col("reason").is_null(), col("text")))
    for step in source.steps:
        if isinstance(step, Rule):
            df = df.with_columns({f"measured_{key}": value for key, value in step.measures(col("text")).items()})
            measured = {key: col(f"measured_{key}") for key in step.measures(col("text"))}
            reason: Expression = coalesce(
                col("reason"), *(when(drop, lit(why)) for why, drop in step.drops(measured).items())
            )
            df = df.with_column("reason", reason)
            # A dropped text is let go: what follows has nothing to compute on it.
            df = df.with_column("text", when(col("reason").is_null(), col("text")))
        else:
            df = df.with_column("text", step.rewrite(col("text")))
    return df.select("id", "source", "path", "group", "bytes", "excerpt", "text", "reason")


def read_file(reader: Reader, source: str, file: InputFile) -> Iterator[dict[str, Any]]:
    """The documents of a file as rows; a file that the system will not give is one dropped document."""
    path, documents = provenance_name(file.name), reader.read(file)
    for ordinal in itertools.count():
        try:
            document = next(documents)
        except StopIteration:
            return
        except OSError:
            document = Document(None, reason="unreadable_file")
            documents = iter(())
        yield {
            "id": stable_hash(f"{source}\0{path}\0{ordinal}"),
            "path": path,
            "group": document.group or f"{path}#{ordinal}",
            "bytes": 0 if document.text is None else len(document.text.encode()),
            "text": document.text,
            "reason": document.reason,
        }


def find_duplicates(
    kept: DataFrame, signatures: DataFrame | None, near: NearDuplicates | None, facts: dict[str, np.ndarray]
) -> np.ndarray:
    """For each kept document, in the order of ids: `exact_duplicate`, `near_duplicate` or an empty string.

    A component keeps its longest document, the lowest id among equals.
    """
    reasons = np.full(len(facts["id"]), "", dtype="<U16")
    exact = pairs_in_buckets(kept.select("id", hash(col("text")).alias("key")))
    reasons[~_best_of(exact, facts)] = "exact_duplicate"
    if near is not None and signatures is not None:
        similar = np.concatenate((near.edges(signatures, near.rows), exact))
        reasons[(reasons == "") & ~_best_of(similar, facts)] = "near_duplicate"
    return reasons


def relate(
    kept: DataFrame, signatures: DataFrame | None, near: NearDuplicates | None, facts: dict[str, np.ndarray]
) -> np.ndarray:
    """Label of the component of documents that must not part: one group, or similar in the looser banding."""
    edges = [pairs_in_buckets(kept.select("id", hash(col("group")).alias("key")))]
    if near is not None and signatures is not None:
        edges.append(near.edges(signatures, near.rows // 2))
    return connected_components(_positions(np.concatenate(edges), facts), len(facts["id"]))


def _best_of(edges: np.ndarray, facts: dict[str, np.ndarray]) -> np.ndarray:
    components = connected_components(_positions(edges, facts), len(facts["id"]))
    return best_of_components(components, facts["size"])


def _positions(edges: np.ndarray, facts: dict[str, np.ndarray]) -> np.ndarray:
    """Ids to positions: the ids are sorted."""
    return np.searchsorted(facts["id"], edges)


def write_parquet(df: DataFrame, path: Path) -> None:
    """One file in the order of the rows; Daft's own writer names its files at random."""
    schema = df.schema().to_pyarrow_schema()
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in df.to_arrow_iter():
            writer.write_table(pyarrow.Table.from_batches([batch]).cast(schema), row_group_size=4096)


def _total(df: DataFrame, column: str) -> int:
    return int(df.sum(column).to_pydict()[column][0] or 0)

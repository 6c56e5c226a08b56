"""Curation pipeline: collect the documents of all sources, filter, deduplicate, split and write them.

Passes over chunks of bounded size: read (`passes.collect`), filter each document by itself (`passes.filter`), compare
all of them as columns of numbers (`passes.deduplicate`), and write each text (`passes.write`). Chunks cost a copy of
the text on disk between the passes; in return only those columns grow with the corpus in memory, and a killed run
continues.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("DAFT_ANALYTICS_ENABLED", "0")

import pyarrow.compute
import pyarrow.parquet
from tqdm import tqdm

from common.artifacts import write_checksums
from common.compute.daft_engine import use_engine, workers
from common.console import announce
from common.errors import InputError
from common.fingerprint import class_fingerprint, code_fingerprint, fingerprint
from datamodules.curation.config import CurationConfig, TextSource, check_languages, step_settings
from datamodules.curation.deduplication.minhash import NearDuplicates
from datamodules.curation.filters.base import CurationStep
from datamodules.curation.filters.length import Length
from datamodules.curation.passes.collect import Chunk, chunk_files, collect
from datamodules.curation.passes.deduplicate import deduplicate_and_split
from datamodules.curation.passes.filter import describe_steps, write_filtered
from datamodules.curation.passes.write import (
    DOCUMENTS,
    DROPPED,
    MIN_CHARACTERS_LEFT,
    FilteredPiece,
    find_repetitions,
    write_piece,
)
from datamodules.curation.reports.nothing_left import nothing_left
from datamodules.curation.reports.step_throughput import step_rates
from datamodules.curation.reports.stopwatch import Stopwatch
from datamodules.curation.reports.summary import summarize
from datamodules.readers.base import InputFile, with_contents

SOURCE_NAME = re.compile(r"[A-Za-z0-9_-]+")
SUMMARY, TIMINGS = "curation.json", "timings.json"
WORK = "work"
"""Folder of intermediate files, inside an unfinished artifact."""


OBSERVERS = tuple(
    f"datamodules.curation.reports.{name}" for name in ("explain", "nothing_left", "stopwatch", "step_throughput")
)
"""Modules that only watch: an edit of one changes no document."""


def list_inputs(sources: Mapping[str, TextSource]) -> dict[str, list[InputFile]]:
    """Files of every source, their contents known.

    Raises:
        InputError: when a path is missing or a source has no file, or a name is no name of files and metrics.
    """
    for name in sources:
        if not SOURCE_NAME.fullmatch(name) or name == "all":
            raise InputError(
                f"sources.{name!r}: files and metrics are named after a source and 'all' means every one, "
                "give a name of ASCII letters, digits, '_' and '-'"
            )
    inputs = {name: with_contents(source.reader.files()) for name, source in sources.items()}
    for name, files in inputs.items():
        if not files:
            raise InputError(f"source {name}: its reader found no file to read: widen its settings or leave it out")
    return inputs


def curation_fingerprint(
    sources: Mapping[str, TextSource],
    inputs: Mapping[str, list[InputFile]],
    near_duplicates: NearDuplicates | None,
    validation_fraction: float,
    seed: int,
    curation: CurationConfig,
) -> str:
    """Fingerprint of all that decides the documents: input files, settings and the steps' source code."""
    described = {
        name: [
            source.reader.settings(),
            step_settings(source.steps),
            {cut: step_settings([finder]) for cut, finder in source.repetitions.items()},
            sorted(file.identity for file in inputs[name]),
        ]
        for name, source in sources.items()
    }
    near = near_duplicates.settings() if near_duplicates else None
    parts: list[Any] = [near_duplicates, curation.url_duplicates, curation.personal_data]
    for source in sources.values():
        parts += [source.reader, *source.steps, *source.repetitions.values()]
    classes = {type(part) for part in [*parts, *curation.steps] if part is not None}
    classes_in_order = sorted(classes, key=lambda cls: (cls.__module__, cls.__qualname__))
    code = [code_fingerprint(__name__, without=OBSERVERS), class_fingerprint(*classes_in_order, without=OBSERVERS)]
    return fingerprint(described, near, validation_fraction, seed, curation.settings(), code)


def curate(
    sources: Mapping[str, TextSource],
    inputs: Mapping[str, list[InputFile]],
    folder: Path,
    near_duplicates: NearDuplicates | None,
    validation_fraction: float,
    seed: int,
    curation: CurationConfig | None = None,
) -> dict[str, Any]:
    """Run curation into `documents/NNNNN.parquet`, `dropped/NNNNN.parquet` and `curation.json`.

    Args:
        sources: readers and steps by name.
        inputs: files of each source, from `list_inputs`.
        folder: folder of the result, empty or left by an interrupted run with the same fingerprint.
        near_duplicates: near-duplicate removal over all sources, or None.
        validation_fraction: share of each source's bytes in the validation split.
        seed: seed of the split.
        curation: settings for all sources; by default `CurationConfig()`.

    Returns:
        The summary, as written to `curation.json`, with the seconds of `timings.json`.

    Raises:
        InputError: when no document is left, two steps share a measurement, a step drops a chosen language or Ray is
            not installed.
    """
    curation = curation or CurationConfig()
    clock, work = Stopwatch(), folder / WORK
    steps = {name: [*sources[name].steps, *curation.steps] for name in sorted(sources)}
    for own in steps.values():
        check_languages(own)
    described = {name: describe_steps(name, own) for name, own in steps.items()}
    repetitions = {name: sources[name].repetitions for name in steps}
    named = sorted({cut for own in repetitions.values() for cut in own})
    use_engine(curation.engine)
    for path in (work / "raw", work / "filtered", folder / DOCUMENTS, folder / DROPPED):
        path.mkdir(parents=True, exist_ok=True)

    key = curation_fingerprint(sources, inputs, near_duplicates, validation_fraction, seed, curation)
    size = int(curation.chunk_megabytes * 1e6)

    readers = {name: source.reader for name, source in sources.items()}

    def read_ahead(some: Sequence[Chunk]) -> None:
        """Read one chunk per worker."""
        unread = [chunk for chunk in some if chunk.pieces(work / "filtered") is None]
        with clock.measure("collect", sum(chunk.size for chunk in unread)):
            collect(unread, readers, work / "raw", size)

    rates: dict[str, list[dict[str, Any]]] = {}

    def filter_pieces(chunk: Chunk) -> list[Path]:
        """Filtered pieces of a chunk, made if they are not there."""
        filtered = chunk.pieces(work / "filtered")
        if filtered is not None:
            return filtered
        name, raw = chunk.source, chunk.pieces(work / "raw") or []
        filtered = [chunk.piece(work / "filtered", number) for number in range(len(raw))]
        for before, after in zip(raw, filtered, strict=True):
            with clock.measure(f"filter {name}", _text_bytes(before)):
                write_filtered(before, after, name, steps[name], near=near_duplicates, urls=curation.url_duplicates)
        if raw and name not in rates:
            rates[name] = step_rates(raw[0], steps[name])
        chunk.mark_done(work / "filtered", len(raw))
        for path in [*raw, work / "raw" / f"{chunk.name}.json"]:
            path.unlink()
        return filtered

    chunks = chunk_files(inputs, size, key)
    by_chunk: list[list[Path]] = []
    with _progress("filtering", sum(chunk.size for chunk in chunks)) as progress:
        for start in range(0, len(chunks), workers()):
            some = chunks[start : start + workers()]
            read_ahead(some)
            for chunk in some:
                by_chunk.append(filter_pieces(chunk))
                progress.update(chunk.size)
    filtered = [path for paths in by_chunk for path in paths]
    owners = [chunk.source for chunk, paths in zip(chunks, by_chunk, strict=True) for _ in paths]
    total = sum(map(_text_bytes, filtered))
    crawls = {name for name, reader in readers.items() if reader.IS_CRAWL}
    with clock.measure("duplicates and split", total):
        result = deduplicate_and_split(filtered, owners, near_duplicates, validation_fraction, seed, crawls)
    if result is None:
        raise InputError(nothing_left(filtered, described))

    pieces = [
        FilteredPiece(n, source, path, result) for n, (source, path) in enumerate(zip(owners, filtered, strict=True))
    ]
    with clock.measure("repetitions", total):
        least = {name: min_characters_left(own) for name, own in steps.items()}
        cuts = find_repetitions(pieces, repetitions, work, crawls, least)

    with _progress("writing", total) as progress:
        for piece in pieces:
            size = _text_bytes(piece.filtered)
            with clock.measure("mask and write", size):
                write_piece(piece, folder, curation.personal_data, cuts, least[piece.source])
            progress.update(size)
    with clock.measure("summary", total):
        summary = summarize(described, pieces, folder, curation.masked_kinds, named)
    for warning in summary["warnings"]:
        announce(f"warning: {warning}")
    (folder / SUMMARY).write_text(json.dumps(summary, indent=1), encoding="utf-8")
    timings = clock.summary() | {"step_rates": rates}
    (folder / TIMINGS).write_text(json.dumps(timings, indent=1), encoding="utf-8")
    shutil.rmtree(work)
    for leftover in folder.glob("*/.*.partial"):
        leftover.unlink()
    written = sorted(path.relative_to(folder).as_posix() for path in folder.glob("d*/*.parquet"))
    write_checksums(folder, *written, SUMMARY)
    return summary | timings


def min_characters_left(steps: Sequence[CurationStep]) -> int:
    """Characters that must be left of a document that was cut: as many as its source asks of every document."""
    return max([MIN_CHARACTERS_LEFT, *(step.min_characters for step in steps if isinstance(step, Length))])


def _progress(name: str, size: int) -> tqdm:
    return tqdm(desc=name, total=size, unit="B", unit_scale=True, disable=None)


def _text_bytes(path: Path) -> int:
    """Bytes of the texts of a piece as they were read."""
    return int(pyarrow.compute.sum(pyarrow.parquet.read_table(path, columns=["bytes"]).column(0)).as_py() or 0)

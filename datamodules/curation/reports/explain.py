"""Explanation of one document: why it was kept or dropped, read from finished curation.

Measurements are stored beside each document and thresholds in the summary, so the explanation is that of the run that
dropped it, whatever the configuration says now. No document is read or filtered again.
"""

import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from common.errors import InputError
from datamodules.curation.passes.deduplicate import NEAR
from datamodules.curation.passes.filter import EXCERPT_CHARACTERS, READING
from datamodules.curation.passes.write import DOCUMENTS, DROPPED, REPEATED
from datamodules.curation.reports.histograms import PREFIX
from datamodules.curation.reports.sampled_documents import EXAMPLES, Examples
from datamodules.readers.base import stable_hash

KEPT = "kept"
SHOWN = 160
"""Characters of a text that fit on a line or two."""
LISTED = 20
"""Documents of one file that are listed."""
Row = dict[str, Any]


def explain(stage: Path, summary: Mapping[str, Any], wanted: str) -> str:
    """Explanation of why a document was kept or dropped.

    Args:
        stage: folder of kept and dropped documents.
        summary: its summary.
        wanted: id, decimal or hexadecimal; or its path in provenance, with `#N` for the Nth document of a file,
            counted from 0.

    Raises:
        InputError: when there is no such document.
    """
    rows = list(_by_path(stage, wanted)) or list(_by_id(stage, _identities(wanted, summary)))
    if not rows:
        raise InputError(
            f"why={wanted}: no document has this id or path, take one from `inspect` or from {stage / DROPPED}"
        )
    if len(rows) > 1:
        listed = [f"{row['id']}  {row.get('reason') or KEPT}" for row in rows[:LISTED]]
        more = [f"... and {len(rows) - LISTED:,} more"] if len(rows) > LISTED else []
        return "\n".join([f"{wanted} holds {len(rows):,} documents, ask for one by its id:", *listed, *more])
    return "\n".join([*_document_lines(rows[0]), *_verdict(rows[0], stage, summary), *_measured(rows[0], summary)])


def _identities(wanted: str, summary: Mapping[str, Any]) -> list[int]:
    """Ids that a text may mean."""
    path, _, ordinal = wanted.rpartition("#")
    if path and ordinal.isdecimal():
        return [stable_hash(f"{source}\0{path}\0{int(ordinal)}") for source in summary["sources"]]
    digits = wanted.lower().removeprefix("0x")
    found = [int(wanted)] if wanted.isdecimal() else []
    if digits and set(digits) <= set(string.hexdigits):
        found.append(int(digits, 16))
    return [identity for identity in found if identity < 2**64]


def _by_id(stage: Path, identities: list[int]) -> Iterator[Row]:
    yield from _where(stage, "id", pyarrow.array(identities, pyarrow.uint64()))


def _by_path(stage: Path, path: str) -> Iterator[Row]:
    # What a terminal gave may be no UTF-8: no stored path is.
    name = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    yield from _where(stage, "path", pyarrow.array([name], pyarrow.large_string()))


def _where(stage: Path, column: str, values: pyarrow.Array) -> Iterator[Row]:
    """Rows of kept and dropped documents, each with its `file` and `row` in it."""
    for file in sorted([*(stage / DOCUMENTS).glob("*.parquet"), *(stage / DROPPED).glob("*.parquet")]):
        found = pyarrow.parquet.read_table(file, columns=[column]).column(0)
        places = np.flatnonzero(pyarrow.compute.is_in(found.cast(values.type), value_set=values).to_numpy())
        if len(places):
            rows = pyarrow.parquet.read_table(file).take(places).to_pylist()
            for place, row in zip(places.tolist(), rows, strict=True):
                yield row | {"file": f"{file.parent.name}/{file.name}", "row": place}


def documents_by_id(stage: Path, ids: Sequence[int]) -> dict[int, Row]:
    """Source, path and URL of kept documents; the ids of all are read through, their texts are not.

    Args:
        stage: folder of kept and dropped documents.
        ids: of the documents wanted.
    """
    found: dict[int, Row] = {}
    wanted = pyarrow.array(ids, pyarrow.uint64())
    for file in sorted((stage / DOCUMENTS).glob("*.parquet")):
        column = pyarrow.parquet.read_table(file, columns=["id"]).column(0)
        places = np.flatnonzero(pyarrow.compute.is_in(column, value_set=wanted).to_numpy())
        if len(places):
            rows = pyarrow.parquet.read_table(file, columns=["id", "source", "path", "url"]).take(places).to_pylist()
            found |= {row["id"]: row for row in rows}
    return found


def _document_lines(row: Row) -> list[str]:
    facts = [f"source {row['source']}", f"{row['bytes']:,} bytes"]
    facts += [f"{key} {row[key]}" for key in ("url", "license", "date") if row[key]]
    return [
        f"document {row['id']} (0x{row['id']:016x})",
        f"  path {row['path']}",
        f"  {', '.join(facts)}",
        _excerpt(row),
    ]


def _excerpt(row: Row) -> str:
    excerpt = row["excerpt"] if "excerpt" in row else row["text"][:EXCERPT_CHARACTERS]
    return f"  text {one_line(excerpt) if excerpt else '(none could be read)'}"


def one_line(text: str) -> str:
    """The beginning of a text on one line of a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:SHOWN]


def _verdict(row: Row, stage: Path, summary: Mapping[str, Any]) -> list[str]:
    reason = row.get("reason")
    if reason is None:
        return [f"kept: {row['file']}, row {row['row']}, {row['split']}"]
    if row["duplicate_of"] is not None:
        return list(_duplicates(row, stage))
    if reason == REPEATED:
        return [f"dropped as {reason}: too little is left when what other documents hold as well is cut"]
    if row["dropped_by"] == READING:
        return [f"dropped while reading: {reason}"]
    step = summary["steps"][row["source"]][row["dropped_by"]]
    lines = [f"dropped by {step['step']}: {reason}"]
    if limit := step["limits"].get(reason):
        value = row[PREFIX + limit["measure"]]
        lines.append(
            f"  {limit['measure']} is {_number(value)}, dropped when {limit['comparison']} {limit['threshold']:g}"
        )
    return [*lines, f"  {step['about']}"]


def _duplicates(row: Row, stage: Path) -> Iterator[str]:
    """The document kept instead, and if that one was dropped too, what it was dropped for."""
    while row.get("duplicate_of") is not None:
        (other,) = _by_id(stage, [row["duplicate_of"]])
        how = f", {row['similarity']:.0%} of their MinHash values are equal" if row["reason"] == NEAR else ""
        yield f"dropped as {row['reason']} of {other['id']}{how}"
        yield f"  path {other['path']}"
        yield _excerpt(other)
        row = other
    yield (
        f"  which is kept: {row['file']}, row {row['row']}, {row['split']}"
        if "split" in row
        else (f"  which was dropped later as {row['reason']}")
    )


def _measured(row: Row, summary: Mapping[str, Any]) -> Iterator[str]:
    """Everything that was measured, and what would have dropped it."""
    thresholds: dict[str, list[str]] = {}
    for step in summary["steps"][row["source"]]:
        for limit in step["limits"].values():
            thresholds.setdefault(limit["measure"], []).append(f"{limit['comparison']} {limit['threshold']:g}")
    for name, value in row.items():
        if name.startswith(PREFIX) and value is not None:
            measure = name.removeprefix(PREFIX)
            held = f"  (dropped when {' or '.join(thresholds[measure])})" if measure in thresholds else ""
            yield f"  {measure:<32} {_number(value):>12}{held}"


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)


def format_examples(stage: Path, summary: Mapping[str, Any], reason: str | None, samples: int) -> str:
    """Documents of one reason, of `kept`, or by default of every reason.

    Raises:
        InputError: for a reason that nothing was dropped for, or no samples.
    """
    if samples < 1:
        raise InputError(f"samples={samples}: must be at least 1")
    known = [*summary["examples"], KEPT]
    if reason is not None and reason not in known:
        raise InputError(f"reason={reason}: nothing was dropped for it, choose from {', '.join(known)}")
    chosen = {**summary["examples"], KEPT: summary["kept_examples"]}
    if samples > EXAMPLES:
        examples = Examples(samples)
        for documents in sorted((stage / DOCUMENTS).glob("*.parquet")):
            examples.add(documents, stage / DROPPED / documents.name)
        chosen = {**examples.dropped(), KEPT: examples.kept()}
    lines = []
    for name in [reason] if reason else summary["examples"]:
        total = summary["total"]["out"] if name == KEPT else summary["total"]["dropped"][name]
        lines += ["", f"{name}: {total['documents']:,} documents"]
        for row in chosen[name][:samples]:
            lines.append(f"  {row['id']}  {row['source']}: {row['path']}")
            lines += [f"      {one_line(row['excerpt'])}"] if row["excerpt"] else []
    return "\n".join(lines)

"""Summary of curation: the counts that are stored, and the table on the console.

Counts are read from the files that were written, piece by piece, and not gathered on the way, so that an interrupted
run has the same summary.
"""

import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from datamodules.curation.passes.deduplicate import EXACT, NEAR, URL
from datamodules.curation.passes.filter import READING
from datamodules.curation.passes.write import DOCUMENTS, DROPPED, REPEATED, FilteredPiece
from datamodules.curation.reports.duplicate_clusters import group_sizes, largest_clusters
from datamodules.curation.reports.histograms import Histograms
from datamodules.curation.reports.large_losses import large_losses
from datamodules.curation.reports.sampled_documents import Examples

UNKNOWN = "unknown"
"""License of a document that names none."""
Tally = dict[str, int]


def nothing() -> Tally:
    """Counts of no document."""
    return {"documents": 0, "bytes": 0}


def summarize(
    steps: Mapping[str, list[dict[str, Any]]],
    pieces: Sequence[FilteredPiece],
    folder: Path,
    masked_kinds: Sequence[str],
    cuts: Sequence[str],
) -> dict[str, Any]:
    """Everything a report says about a corpus.

    Args:
        steps: `filter.describe_steps` of each source.
        pieces: filtered pieces, with the result of deduplication.
        folder: folder of the artifact, with the files of all pieces.
        masked_kinds: kinds of personal data that were masked.
        cuts: names of the repetitions that were cut.

    Returns:
        `steps`, as given. `sources`: by name, and `total` likewise, `in`, `out`, `validation`
        ({"documents": n, "bytes": n}), `related` (of what is kept, and of validation, those that stay in one split with
        another document), `dropped` (by reason), `masked` (matches by kind), `cut` (characters by kind of
        repetition), `licenses` and `languages` of what is kept, and `waterfall`: one entry per step in order with its
        `step`, `about`, `dropped` by reason, and the documents and bytes `left` after it. `measures`: by source and
        name a histogram with its limits (see `Histograms`). `examples` and `kept_examples`: see `Examples`.
        `clusters`: the largest groups of duplicates, and `group_sizes` of all. `warnings`: see `large_losses`.
    """
    sources = {name: _Source(described, masked_kinds, cuts) for name, described in steps.items()}
    examples, histograms = Examples(), Histograms(steps)
    for piece in pieces:
        name = f"{piece.number:05}.parquet"
        documents, dropped = folder / DOCUMENTS / name, folder / DROPPED / name
        filtered = piece.read([c for c in _columns(piece.filtered) if c.startswith(("id", "size", "bytes"))])
        kept = _without_text(documents)
        related = piece.result.related[piece.here][np.isin(_numbers(filtered, "id"), _numbers(kept, "id"))]
        kept = kept.append_column("related", pyarrow.array(related))
        sources[piece.source].add(filtered, kept, _without_text(dropped))
        histograms.widen(piece)
        examples.add(documents, dropped)
    for piece in pieces:
        histograms.count(piece)
    by_source = {name: source.summary() for name, source in sources.items()}
    return {
        "steps": dict(steps),
        "sources": by_source,
        "total": add_up(list(by_source.values())),
        "measures": histograms.summary(),
        "examples": examples.dropped(),
        "kept_examples": examples.kept(),
        "clusters": largest_clusters(pieces),
        "group_sizes": group_sizes(pieces[0].result),
        "warnings": large_losses(by_source),
    }


def _columns(path: Path) -> list[str]:
    names: list[str] = pyarrow.parquet.read_schema(path).names
    return names


def _without_text(path: Path) -> pyarrow.Table:
    large = ("text", "excerpt", "group", "path", "url", "date")
    return pyarrow.parquet.read_table(path, columns=[name for name in _columns(path) if name not in large])


class _Source:
    """Adds up the pieces of one source."""

    def __init__(self, steps: list[dict[str, Any]], kinds: Sequence[str], cuts: Sequence[str]) -> None:
        self.steps = steps
        self.read, self.kept, self.validation = nothing(), nothing(), nothing()
        self.related = {"out": nothing(), "validation": nothing()}
        self.dropped: dict[tuple[int, str], Tally] = defaultdict(nothing)
        self.masked, self.cut = Counter(dict.fromkeys(kinds, 0)), Counter(dict.fromkeys(cuts, 0))
        self.licenses: dict[str, Tally] = defaultdict(nothing)
        self.languages: dict[str, Tally] = defaultdict(nothing)
        self.after_rewrite: Counter[int] = Counter()
        self.filtered = 0

    def add(self, filtered: pyarrow.Table, documents: pyarrow.Table, dropped: pyarrow.Table) -> None:
        """Count a piece."""
        _tally(self.read, _numbers(filtered, "bytes"))
        _tally(self.kept, _numbers(documents, "bytes"))
        for (split, related), count in _grouped(documents, "split", "related"):
            if related:
                _add(self.related["out"], count)
            if split == "validation":
                _add(self.validation, count)
                if related:
                    _add(self.related["validation"], count)
        for (step, reason), count in _grouped(dropped, "dropped_by", "reason"):
            _add(self.dropped[len(self.steps) if step is None else step, reason], count)
        for column in filtered.column_names:
            if column.startswith("size_"):
                self.after_rewrite[int(column.removeprefix("size_"))] += int(_numbers(filtered, column).sum())
        for kind in self.masked:
            self.masked[kind] += int(_numbers(documents, f"masked_{kind}").sum())
        for kind in self.cut:
            if f"cut_{kind}" in documents.column_names:
                self.cut[kind] += int(_numbers(documents, f"cut_{kind}").sum())
        for shares, column in ((self.licenses, "license"), (self.languages, "measured_language")):
            if column in documents.column_names:
                for (value,), count in _grouped(documents, column):
                    _add(shares[value or UNKNOWN], count)

    def summary(self) -> dict[str, Any]:
        """The entry of the source."""
        reasons: dict[str, Tally] = defaultdict(nothing)
        for (_, reason), count in self.dropped.items():
            _add(reasons[reason], count)
        return {
            "in": self.read,
            "out": self.kept,
            "validation": self.validation,
            "related": self.related,
            "dropped": dict(sorted(reasons.items())),
            "masked": dict(self.masked),
            "cut": dict(self.cut),
            "licenses": _by_size(self.licenses),
            "languages": _by_size(self.languages),
            "waterfall": self._waterfall(),
        }

    def _waterfall(self) -> list[dict[str, Any]]:
        """What each step took, from reading to masking; a document counts with the bytes it was read with."""
        left = dict(self.read)
        rows = []
        corpus = [("duplicates by URL", {URL}), ("exact duplicates", {EXACT}), ("near-duplicates", {NEAR})]
        stages = [
            (READING, "read", "", None),
            *((n, step["step"], step["about"], None) for n, step in enumerate(self.steps)),
            *((len(self.steps), name, "", reasons) for name, reasons in [*corpus, ("repetitions", {REPEATED})]),
        ]
        for number, name, about, only in stages:
            taken = {
                reason: count
                for (step, reason), count in sorted(self.dropped.items())
                if step == number and (only is None or reason in only)
            }
            for count in taken.values():
                left = {key: left[key] - count[key] for key in left}
            row = {"step": name, "about": about, "dropped": taken, "left": left}
            if number in self.after_rewrite and only is None:
                row["text_bytes"] = self.after_rewrite[number]
            rows.append(row)
        return [*rows, {"step": "written", "about": "", "dropped": {}, "left": self.kept}]


def _numbers(table: pyarrow.Table, column: str) -> np.ndarray:
    return np.asarray(table.column(column).fill_null(0).to_numpy())


def _grouped(table: pyarrow.Table, *columns: str) -> Iterator[tuple[tuple[Any, ...], Tally]]:
    """Documents and bytes by the values of columns."""
    groups = table.group_by(list(columns)).aggregate([("bytes", "sum"), ("bytes", "count")]).to_pylist()
    for row in groups:
        yield tuple(row[name] for name in columns), {"documents": row["bytes_count"], "bytes": row["bytes_sum"]}


def _tally(into: Tally, sizes: np.ndarray) -> None:
    _add(into, {"documents": len(sizes), "bytes": int(sizes.sum())})


def _add(into: Tally, more: Tally) -> None:
    for key in into:
        into[key] += more[key]


def _by_size(shares: dict[str, Tally]) -> dict[str, Tally]:
    return dict(sorted(shares.items(), key=lambda item: (-item[1]["bytes"], item[0])))


def add_up(sources: list[dict[str, Any]]) -> dict[str, Any]:
    """The entries of all sources as one; steps that sources share appear once in its waterfall, in the order met."""
    total: dict[str, Any] = {key: nothing() for key in ("in", "out", "validation")}
    for key in total:
        for source in sources:
            _add(total[key], source[key])
    for key in ("dropped", "licenses", "languages"):
        shares: dict[str, Tally] = defaultdict(nothing)
        for source in sources:
            for name, count in source[key].items():
                _add(shares[name], count)
        total[key] = dict(sorted(shares.items())) if key == "dropped" else _by_size(shares)
    total["related"] = {key: nothing() for key in ("out", "validation")}
    for source in sources:
        for key, count in total["related"].items():
            _add(count, source["related"][key])
    for key in ("masked", "cut"):
        total[key] = {kind: sum(source[key][kind] for source in sources) for kind in sources[0][key]}
    total["waterfall"] = _joined([source["waterfall"] for source in sources], total["in"])
    return total


def _joined(waterfalls: list[list[dict[str, Any]]], read: Tally) -> list[dict[str, Any]]:
    """Steps of the same name and source order become one; what is left is counted again."""
    order: dict[str, dict[str, Any]] = {}
    last: dict[str, dict[str, Any]] = {}
    for rows in waterfalls:
        for row in rows:
            # Rows after the steps of one source come after the steps of all sources.
            into = last if row["step"] in _AFTER else order
            into.setdefault(row["step"], {"step": row["step"], "about": row["about"], "dropped": defaultdict(nothing)})
            for reason, count in row["dropped"].items():
                _add(into[row["step"]]["dropped"][reason], count)
    left = dict(read)
    joined = []
    for row in [*order.values(), *last.values()]:
        for count in row["dropped"].values():
            left = {key: left[key] - count[key] for key in left}
        joined.append(row | {"dropped": dict(row["dropped"]), "left": left})
    if joined:
        joined[-1]["left"] = {key: sum(rows[-1]["left"][key] for rows in waterfalls) for key in left}
    return joined


_AFTER = ("exact duplicates", "duplicates by URL", "near-duplicates", "repetitions", "written")


def related_lines(rows: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    """Table of what part of the validation split resembles other documents, beside that part of all that is kept.

    A split that took none of these would measure what is like nothing else, and not the corpus.
    """
    lines = [f"{'in groups of related documents':<34}" + "".join(f"{name[:12]:>13}" for name, _ in rows)]
    for label, key in (("of all that is kept", "out"), ("of validation", "validation")):
        shares = (row["related"][key]["bytes"] / max(row[key]["bytes"], 1) for _, row in rows)
        lines.append(f"{label:<34}" + "".join(f"{share:>13.1%}" for share in shares))
    return lines


def format_table(summary: dict[str, Any]) -> str:
    """The summary for the console: sources, then reasons, then masked data, at most 100 columns wide."""
    rows = [*summary["sources"].items(), ("total", summary["total"])]
    lines = [
        f"{'source':<14}{'documents in':>14}{'MB in':>9}{'documents out':>15}{'MB out':>9}{'validation':>12}{'kept':>8}"
    ]
    for name, row in rows:
        share = row["out"]["bytes"] / row["in"]["bytes"] if row["in"]["bytes"] else 0.0
        lines.append(
            f"{name:<14}{row['in']['documents']:>14,}{row['in']['bytes'] / 1e6:>9.2f}{row['out']['documents']:>15,}"
            f"{row['out']['bytes'] / 1e6:>9.2f}{row['validation']['documents']:>12,}{share:>8.0%}"
        )
    lines += ["", *related_lines(rows)]
    lines += ["", f"{'dropped because':<34}" + "".join(f"{name[:12]:>13}" for name, _ in rows)]
    for reason in summary["total"]["dropped"]:
        counts = (row["dropped"].get(reason, {"documents": 0})["documents"] for _, row in rows)
        lines.append(f"{reason:<34}" + "".join(f"{count:>13,}" for count in counts))
    for heading, key in (("masked", "masked"), ("characters cut", "cut")):
        if summary["total"][key]:
            lines += ["", f"{heading:<34}" + "".join(f"{name[:12]:>13}" for name, _ in rows)]
            for kind in summary["total"][key]:
                lines.append(f"{kind:<34}" + "".join(f"{row[key][kind]:>13,}" for _, row in rows))
    lines += [line for warning in summary["warnings"] for line in ("", *textwrap.wrap(f"warning: {warning}", 100))]
    size, seconds = summary["total"]["in"]["bytes"] / 1e6, summary["seconds"]
    return "\n".join([*lines, "", f"{size:.1f} MB in {seconds:.1f} s: {size / max(seconds, 1e-9):.1f} MB/s", ""])

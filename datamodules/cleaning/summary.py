"""What cleaning did, in numbers: the summary that is stored, and the table that is shown."""

from typing import Any

from daft import DataFrame, col

from datamodules.cleaning.pii import KINDS

EXAMPLES = 3


def summarise(
    sources: list[str], everything: DataFrame, dropped: DataFrame, final: DataFrame, stages: list[dict[str, Any]]
) -> dict[str, Any]:
    """Counts by source and reason, a few dropped documents of each reason, seconds of each stage.

    Args:
        sources: names in the order to show them.
        everything: all documents read, with `source` and `bytes`.
        dropped: `id`, `source`, `path`, `reason`, `bytes`, `excerpt`.
        final: the clean documents with `split`, `bytes` and the counts of masked data.
        stages: from the pipeline's clock.

    Returns:
        {"sources": {name: {in, out, validation, dropped, masked}}, "total": ..., "stages": [...], "examples": {...}},
        where each count is {"documents": n, "bytes": n}.
    """
    read = _counts(everything, "source")
    kept, by_split = _counts(final, "source"), _counts(final, "source", "split")
    reasons = _counts(dropped, "source", "reason")
    masked = {
        row["source"]: row for row in final.groupby("source").agg(*(col(kind).sum() for kind in KINDS)).to_pylist()
    }
    nothing = {"documents": 0, "bytes": 0}
    by_source = {
        name: {
            "in": read.get((name,), nothing),
            "out": kept.get((name,), nothing),
            "validation": by_split.get((name, "validation"), nothing),
            "dropped": {key[1]: count for key, count in sorted(reasons.items()) if key[0] == name},
            "masked": {kind: int(masked.get(name, {}).get(kind) or 0) for kind in KINDS},
        }
        for name in sources
    }
    return {
        "sources": by_source,
        "total": _total(list(by_source.values())),
        "stages": stages,
        "seconds": round(sum(stage["seconds"] for stage in stages), 2),
        "examples": _examples(dropped),
    }


def _counts(df: DataFrame, *keys: str) -> dict[tuple[str, ...], dict[str, int]]:
    grouped = df.groupby(*keys).agg(col("id").count().alias("documents"), col("bytes").sum().alias("total"))
    return {
        tuple(row[key] for key in keys): {"documents": row["documents"], "bytes": row["total"]}
        for row in grouped.to_pylist()
    }


def _total(sources: list[dict[str, Any]]) -> dict[str, Any]:
    def add(counts: list[dict[str, int]]) -> dict[str, int]:
        return {key: sum(count[key] for count in counts) for key in ("documents", "bytes")}

    reasons = sorted({reason for source in sources for reason in source["dropped"]})
    return {
        **{key: add([source[key] for source in sources]) for key in ("in", "out", "validation")},
        "dropped": {r: add([s["dropped"][r] for s in sources if r in s["dropped"]]) for r in reasons},
        "masked": {kind: sum(source["masked"][kind] for source in sources) for kind in KINDS},
    }


def _examples(dropped: DataFrame) -> dict[str, list[dict[str, Any]]]:
    examples: dict[str, list[dict[str, Any]]] = {}
    for row in dropped.select("id", "source", "path", "reason", "excerpt").iter_rows():
        chosen = examples.setdefault(row["reason"], [])
        if len(chosen) < EXAMPLES:
            chosen.append({key: row[key] for key in ("id", "source", "path", "excerpt")})
    return dict(sorted(examples.items()))


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
    lines += ["", f"{'dropped because':<34}" + "".join(f"{name[:12]:>13}" for name, _ in rows)]
    for reason in summary["total"]["dropped"]:
        counts = (row["dropped"].get(reason, {"documents": 0})["documents"] for _, row in rows)
        lines.append(f"{reason:<34}" + "".join(f"{count:>13,}" for count in counts))
    lines += ["", f"{'masked':<34}" + "".join(f"{name[:12]:>13}" for name, _ in rows)]
    for kind in KINDS:
        lines.append(f"{kind:<34}" + "".join(f"{row['masked'][kind]:>13,}" for _, row in rows))
    size, seconds = summary["total"]["in"]["bytes"] / 1e6, summary["seconds"]
    return "\n".join([*lines, "", f"{size:.1f} MB in {seconds:.1f} s: {size / max(seconds, 1e-9):.1f} MB/s", ""])

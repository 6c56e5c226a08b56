"""Message of a curation that leaves no document: each reason, how often, by which threshold, with an example.

Reading all pieces once more costs a second; without it a person whose one book is too long knows only that nothing is
left.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet

MAX_REASONS = 4


def nothing_left(filtered: Sequence[Path], described: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """One line for the user.

    Args:
        filtered: pieces with the columns `path` and `reason`, and those of measurements.
        described: steps of each source, from `passes.filter.describe_steps`.
    """
    counts: Counter[str] = Counter()
    examples: dict[str, dict[str, Any]] = {}
    for piece in filtered:
        table = pyarrow.parquet.read_table(piece)
        names = [name for name in table.column_names if name in ("path", "reason") or name.startswith("measured_")]
        for row in table.select(names).to_pylist():
            if row["reason"]:
                counts[row["reason"]] += 1
                examples.setdefault(row["reason"], row)
    if not counts:
        return "no document is left after curation: none was read"
    limits = {
        reason: limit for steps in described.values() for step in steps for reason, limit in step["limits"].items()
    }
    found = [
        _described(reason, number, examples[reason], limits.get(reason)) for reason, number in counts.most_common()
    ]
    further = f"; {len(found) - MAX_REASONS} reasons more" if len(found) > MAX_REASONS else ""
    advice = ": change these steps of the source"
    if counts.most_common(1)[0][0] == "too_long":
        advice += ", or cut long text at paragraphs by `cut_characters` of datamodules.Files"
    reasons = "; ".join(found[:MAX_REASONS])
    return f"no document is left after curation of {sum(counts.values()):,}: {reasons}{further}{advice}"


def _described(reason: str, number: int, example: dict[str, Any], limit: Mapping[str, Any] | None) -> str:
    if limit is None:
        return f"{reason} {number:,} (as {example['path']})"
    value = example.get(f"measured_{limit['measure']}")
    seen = f"{example['path']} has {_number(value)}" if isinstance(value, int | float) else f"as {example['path']}"
    return f"{reason} {number:,} ({limit['measure']} {limit['comparison']} {_number(limit['threshold'])}, {seen})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"

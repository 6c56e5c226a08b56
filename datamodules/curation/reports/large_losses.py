"""Large losses: steps that drop more than half of a source, and sources of which less than half is left, said aloud.

A threshold meant for another kind of text empties a source without an error. Half is no mistake by itself, a crawl
loses as much to language identification, so this warns and does not refuse.
"""

from collections.abc import Mapping
from typing import Any

MAX_SHARE = 0.5
"""Share of the documents or bytes that come to a step, and of those of a source."""


def large_losses(sources: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line for each step of a source that drops more than `MAX_SHARE` of the documents or bytes that come to it.

    A source that no step halves has a line where it loses as much in all, also through texts that became shorter.

    Args:
        sources: entries of a summary by name, each with `in`, `out`, `cut` and its `waterfall`.
    """
    lines = []
    for name, entry in sources.items():
        found = [line for row in entry["waterfall"] if (line := _of_step(name, row))]
        lines += found or _in_all(name, entry)
    return lines


def _of_step(name: str, row: Mapping[str, Any]) -> str | None:
    for unit in ("documents", "bytes"):
        taken = {reason: count[unit] for reason, count in row["dropped"].items()}
        came = row["left"][unit] + sum(taken.values())
        if sum(taken.values()) > MAX_SHARE * came:
            most = max(taken, key=lambda reason: taken[reason])
            return (
                f"source {name}: {row['step']} dropped {sum(taken.values()):,} of {came:,} {unit}, mostly as "
                f"{most}; look at them with inspect --reason {most}"
            )
    return None


def _in_all(name: str, entry: Mapping[str, Any]) -> list[str]:
    for unit in ("documents", "bytes"):
        came, left = entry["in"][unit], entry["out"][unit]
        if came - left > MAX_SHARE * came:
            cut = [f"{kind} cut {count:,} characters" for kind, count in entry["cut"].items() if count]
            shorter = f" ({', '.join(cut)})" if cut else ""
            return [f"source {name}: {left:,} of {came:,} {unit} are left after all steps{shorter}; see its waterfall"]
    return []

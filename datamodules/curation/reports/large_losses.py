"""Large losses: steps that drop more than half of the documents of a source, said aloud.

A threshold meant for another kind of text empties a source without an error. Half is no mistake by itself, a crawl
loses as much to language identification, so this warns and does not refuse.
"""

from collections.abc import Mapping
from typing import Any

MAX_SHARE = 0.5
"""Share of the documents that come to a step."""


def large_losses(sources: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line for each step of a source that drops more than `MAX_SHARE` of the documents that come to it.

    Args:
        sources: entries of a summary by name, each with its `waterfall`.
    """
    lines = []
    for name, entry in sources.items():
        for row in entry["waterfall"]:
            taken = {reason: count["documents"] for reason, count in row["dropped"].items()}
            came = row["left"]["documents"] + sum(taken.values())
            if sum(taken.values()) > MAX_SHARE * came:
                most = max(taken, key=lambda reason: taken[reason])
                lines.append(
                    f"source {name}: {row['step']} dropped {sum(taken.values()):,} of {came:,} documents, mostly as "
                    f"{most}; look at them with inspect --reason {most}"
                )
    return lines

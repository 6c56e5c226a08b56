"""Report page of curation: a waterfall of drops, each measurement with its threshold, examples and duplicates.

Made from the summary that curation stored, so that it can be shown beside a run as well as alone. Histograms are drawn
here as plain SVG: there can be two hundred of them, and a plotting library takes a second for ten.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from callbacks.reports.pages import template, write_page
from common.run_folder import REPORT

NUMBERS = "report.json"
WIDTH, HEIGHT = 320.0, 90.0
COUNTED = ("in", "out", "validation", "dropped", "masked", "cut", "licenses", "languages")


@dataclass(frozen=True)
class Histogram:
    """A measurement of a source, drawn.

    Attributes:
        measure: its name.
        svg: the picture.
        limits: one sentence a limit.
    """

    measure: str
    svg: Markup
    limits: list[str]


def sections(summary: dict[str, Any]) -> dict[str, Any]:
    """What the template `data_sections.j2` shows of a summary, empty for none.

    Args:
        summary: as `PretrainingData.summary()` returns it.
    """
    if "sources" not in summary:
        return {}
    histograms = {
        source: [draw_histogram(name, **histogram) for name, histogram in measures.items()]
        for source, measures in summary.get("measures", {}).items()
    }
    return {"curation": summary, "reasons": reason_bars(summary), "histograms": histograms}


def write_data_report(summary: dict[str, Any], folder: Path, title: str) -> Path:
    """Write the page about a corpus and the same numbers as JSON into a folder.

    Args:
        summary: as `PretrainingData.summary()` returns it.
        folder: where `report.html` and `report.json` go.
        title: of the page.

    Returns:
        Path of the page.
    """
    write_page(folder / NUMBERS, json.dumps(summary, indent=1))
    return write_page(folder / REPORT, template("data.html.j2").render(title=title, **sections(summary)))


def flat_numbers(summary: dict[str, Any]) -> dict[str, float]:
    """The counts of a summary under one name each, for loggers.

    `data/SOURCE/{in,out,validation,dropped,masked,cut,licenses,languages,left}/...`, `all` for all sources together,
    the MB/s of each stage as `data/stages/...`, and of each step by itself as `data/SOURCE/steps/...`.
    """
    if "sources" not in summary:
        return {}
    found: dict[str, float] = {}
    for source, row in [*summary["sources"].items(), ("all", summary["total"])]:
        left = {step["step"]: step["left"] for step in row["waterfall"]}
        for key, value in _leaves({name: row[name] for name in COUNTED} | {"left": left}):
            found[f"data/{source}/{key}"] = float(value)
    for stage in summary.get("stages", []):
        found[f"data/stages/{stage['stage']}/megabytes_per_second"] = float(stage["megabytes_per_second"])
    for source, rates in summary.get("step_rates", {}).items():
        for rate in rates:
            found[f"data/{source}/steps/{rate['step']}/megabytes_per_second"] = float(rate["megabytes_per_second"])
    return found


def _leaves(tree: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from ((f"{name}/{rest}", leaf) for rest, leaf in _leaves(value))
        else:
            yield name, value


def reason_bars(summary: dict[str, Any]) -> list[tuple[str, int, float]]:
    """Dropped documents by reason, most first: (reason, documents, width of its bar in per cent)."""
    dropped = {reason: count["documents"] for reason, count in summary["total"]["dropped"].items()}
    most = max(dropped.values(), default=1)
    return [(reason, n, 100 * n / most) for reason, n in sorted(dropped.items(), key=lambda item: -item[1])]


def draw_histogram(name: str, edges: list[float], counts: list[int], limits: list[dict[str, Any]]) -> Histogram:
    """Bars over bins of equal width on the page, whatever their width in the measurement's unit, and the thresholds.

    Args:
        name: of the measurement.
        edges: bounds of the bins, one more than there are counts.
        counts: documents in each bin.
        limits: `reason`, `comparison` and `threshold` of each limit on the measurement.
    """
    step, most = WIDTH / len(counts), max([*counts, 1])
    # The square root shows the few documents beyond a threshold beside the many before it.
    heights = HEIGHT * np.sqrt(np.array(counts) / most)
    bars = "".join(
        f'<rect x="{index * step:.1f}" y="{HEIGHT - height:.1f}" width="{step:.1f}" height="{height:.1f}"/>'
        for index, height in enumerate(heights)
        if height
    )
    lines, sentences = "", []
    for limit in limits:
        threshold = limit["threshold"]
        sentences.append(f"{limit['reason']}: {limit['comparison']} {threshold:g}")
        if edges[0] <= threshold <= edges[-1]:
            place = float(np.interp(threshold, edges, np.linspace(0, WIDTH, len(edges))))
            lines += f'<line x1="{place:.1f}" x2="{place:.1f}" y1="0" y2="{HEIGHT:g}"/>'
        else:
            sentences[-1] += " (beyond all)"
    svg = (
        f'<svg viewBox="0 -2 {WIDTH:g} {HEIGHT + 18:g}" role="img"><g fill="var(--bar)">{bars}</g>'
        f'<g stroke="#d1495b" stroke-width="1.5">{lines}</g><g fill="currentColor" font-size="11">'
        f'<text x="0" y="{HEIGHT + 13:g}">{edges[0]:.4g}</text>'
        f'<text x="{WIDTH / 2:g}" y="{HEIGHT + 13:g}" text-anchor="middle">{edges[len(edges) // 2]:.4g}</text>'
        f'<text x="{WIDTH:g}" y="{HEIGHT + 13:g}" text-anchor="end">{edges[-1]:.4g}</text></g></svg>'
    )
    return Histogram(name, Markup(svg), sentences)

"""SVG line charts of a run, drawn by Matplotlib.

Charts are elements of the page itself, so that nothing is loaded from a network. Matplotlib takes a second to import,
which is why it is imported by the first chart.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from callbacks.reports.rollout_charts import frontier, rollout_charts

BITS = "validation/bits_per_byte/"
"""Prefix of the metrics of pretraining's validation, before the name of a source."""
ALIGNMENT_CHARTS = (
    ("Pairs in the right order, share", "rewards/accuracy"),
    ("Pairs in the right order, share", "accuracy"),
    ("Reward margin", "rewards/margin"),
    ("Score margin", "scores/margin"),
)
SIDES = ("chosen", "rejected")
Curve = tuple[np.ndarray, np.ndarray]
"""Steps and values of a metric."""


def run_charts(curves: dict[str, Curve]) -> list[tuple[str, str]]:
    """Title and SVG of every chart that has data.

    Args:
        curves: metric name to its steps and values.
    """
    bits = {name.removeprefix(BITS): curve for name, curve in curves.items() if name.startswith(BITS)}
    wanted: list[tuple[str, dict[str, Curve], bool]] = [
        ("Training loss, nats per token", _named(curves, {"train/loss": "loss"}), True),
        ("Validation bits per byte", bits, False),
        *((title, _stages(curves, name), True) for title, name in ALIGNMENT_CHARTS),
        (
            "Log-probability of validation responses, nats",
            _named(curves, {f"validation/log_probabilities/{side}": side for side in ("chosen", "rejected")}),
            False,
        ),
        (
            "Validation rewards",
            _named(curves, {f"validation/{kind}/{side}": side for kind in ("rewards", "scores") for side in SIDES}),
            False,
        ),
        ("KL to the reference, nats per token", _named(curves, {"validation/kl_per_token": "validation"}), False),
        *rollout_charts(curves),
        ("Learning rate", _named(curves, {"train/learning_rate": "learning rate"}), False),
        ("Gradient norm before clipping", _named(curves, {"train/gradient_norm": "norm"}), True),
        ("Tokens per second", _named(curves, {"throughput/tokens_per_second": "tokens/s"}), False),
        ("Share of the measured matrix-product peak", _named(curves, {"throughput/share_of_peak": "share"}), False),
    ]
    drawn = [(title, draw(lines, smooth)) for title, lines, smooth in wanted if lines]
    if bought := frontier(curves):
        title = "Validation reward by KL divergence, nats per response"
        drawn.append((title, draw(bought, smooth=False, across="KL to the reference")))
    return drawn


def reliability_chart(reliability: dict[str, Any]) -> list[tuple[str, str]]:
    """Confidence against the share that is right, beside the diagonal of a model that knows what it knows."""
    bins = reliability.get("bins")
    if not bins:
        return []
    confidence, right, _ = (np.array(column) for column in zip(*bins, strict=True))
    diagonal = np.array([0.5, 1.0])
    lines = {"reward model": (confidence, right), "calibrated": (diagonal, diagonal)}
    return [("Right order by confidence, validation", draw(lines, smooth=False, across="confidence"))]


def _stages(curves: dict[str, Curve], name: str) -> dict[str, Curve]:
    return _named(curves, {f"train/{name}": "training", f"validation/{name}": "validation"})


def _named(curves: dict[str, Curve], names: dict[str, str]) -> dict[str, Curve]:
    return {label: curves[name] for name, label in names.items() if name in curves}


def draw(lines: dict[str, Curve], smooth: bool, across: str = "optimizer step") -> str:
    """A line chart as an SVG element that takes its text color from the page.

    Args:
        lines: label -> (steps, values).
        smooth: draw the values faintly and their running mean over a twentieth of the run boldly.
        across: what the horizontal axis shows.
    """
    with chart() as (axes, svg):
        for index, (label, (steps, values)) in enumerate(sorted(lines.items())):
            color = f"C{index}"
            if smooth and len(values) >= 20:
                width = max(len(values) // 20, 2)
                mean = np.convolve(values, np.ones(width) / width, mode="valid")
                axes.plot(steps, values, color=color, alpha=0.25, linewidth=1)
                axes.plot(steps[width - 1 :], mean, color=color, linewidth=2, label=label)
            else:
                marker = "o" if len(values) < 30 else None
                axes.plot(steps, values, color=color, linewidth=2, marker=marker, markersize=3, label=label)
        if len(lines) > 1:
            axes.legend(frameon=False)
        axes.set_xlabel(across)
    return svg[0]


@contextmanager
def chart(width: float = 6.4, height: float = 3.2) -> Iterator[tuple[Any, list[str]]]:
    """Axes to draw on; afterward the list holds the SVG element, which takes its text color from the page.

    Args:
        width, height: in inches; a page shows 12.8 across.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    drawn: list[str] = []
    with plt.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "report", "font.size": 10, "font.family": "sans-serif"}
    ):
        figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
        yield axes, drawn
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.2)
        buffer = io.StringIO()
        figure.savefig(
            buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
        plt.close(figure)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # Black ink follows the page's color, light or dark.
    drawn.append(svg.replace("#000000", "currentColor").replace("<text ", '<text fill="currentColor" '))

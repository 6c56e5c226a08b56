"""One self-contained page about a run: what went in, how it learned, what it writes.

Made from the files in the run's folder alone, so that it can be made again at any time and from a run that was
killed. Charts are SVG drawn by Matplotlib; nothing is loaded from a network.
"""

import io
import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import numpy as np

from callbacks.reports.data_report import flat_numbers, sections
from callbacks.reports.pages import template, write_page
from callbacks.reports.rollout_charts import frontier, rollout_charts
from common.errors import InputError
from common.files import write_text_atomically
from common.goodput_ledger import LABELS, LedgerTotals, read_ledger
from common.run_folder import (
    CONFIG,
    DATA_SUMMARY,
    METRICS,
    RELIABILITY,
    REPORT,
    RUN_FACTS,
    read_metrics,
    read_object,
    read_samples,
    read_spikes,
)

BITS = "validation/bits_per_byte/"
DOCUMENTS_SHOWN = 20
"""Of a spike; `spikes.jsonl` names all."""
Curve = tuple[np.ndarray, np.ndarray]


class Report(lightning.Callback):
    """Writes `report.html` into the run's folder when training ends, and prints bits per byte by source.

    What cleaning counted goes to the loggers as facts about the run, when training begins.
    """

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        summary = getattr(getattr(trainer, "datamodule", None), "summary", None)
        if summary is None or not trainer.is_global_zero:
            return
        numbers = flat_numbers(summary())
        for logger in trainer.loggers if numbers else []:
            logger.log_hyperparams(numbers)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if not trainer.is_global_zero:
            return
        run = Path(trainer.default_root_dir)
        summary = getattr(getattr(trainer, "datamodule", None), "summary", None)
        if summary is not None:
            write_text_atomically(run / DATA_SUMMARY, json.dumps(summary()))
        if not (run / METRICS).exists():
            return
        if not read_curves(run):
            return
        final = {name: curve[1][-1] for name, curve in read_curves(run).items() if name.startswith(BITS)}
        if final:
            print("\nvalidation bits per byte")
        for name, value in sorted(final.items(), key=lambda item: item[1]):
            print(f"  {name.removeprefix(BITS):<16}{value:8.3f}")
        print(f"report: {write_report(run)}")


def read_curves(run: Path) -> dict[str, Curve]:
    """Steps and values of every metric a run logged."""
    rows: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for step, _, name, value in read_metrics(run):
        rows[name].append((step, float(value)))
    return {name: (np.array([s for s, _ in points]), np.array([v for _, v in points])) for name, points in rows.items()}


def write_report(run: Path) -> Path:
    """Write the page of a run.

    Args:
        run: folder with `metrics.csv`, and as far as they exist `samples.jsonl`, `data.json`, `run.json`,
            `goodput.jsonl`, `spikes.jsonl` and `config.yaml`.

    Returns:
        Path of the page.

    Raises:
        InputError: when the run has logged nothing.
    """
    if not (run / METRICS).is_file():
        raise InputError(f"{run / METRICS} does not exist: train first, or set trainer.default_root_dir to a run")
    curves = read_curves(run)
    if not curves:
        raise InputError(f"{run / METRICS} holds no metric yet: let the run log something first")
    samples = read_samples(run)
    facts, data = read_object(run / RUN_FACTS), read_object(run / DATA_SUMMARY)
    cleaning = sections(data)
    last_step = max((sample["step"] for sample in samples), default=0)
    config = run / CONFIG
    page = template("report.html.j2").render(
        title=run.resolve().name,
        headlines=headlines(curves, facts),
        charts=[*charts(curves), *reliability_chart(read_object(run / RELIABILITY))],
        **cleaning,
        examples={} if cleaning else data,
        last_samples=[sample for sample in samples if sample["step"] == last_step],
        earlier_samples=[sample for sample in samples if sample["step"] != last_step],
        facts=facts,
        ledger=ledger_section(read_ledger(run)),
        spikes=[shown_spike(event) for event in read_spikes(run)],
        config=config.read_text(encoding="utf-8") if config.exists() else "",
    )
    return write_page(run / REPORT, page)


def headlines(curves: dict[str, Curve], facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The few numbers to see first: (value, what it is)."""
    found = []
    for name, (_, values) in sorted(curves.items()):
        if name.startswith(BITS):
            found.append((f"{values[-1]:.3f}", f"bits per byte, {name.removeprefix(BITS)}"))
    held_out: tuple[tuple[str, str, float, str], ...] = (
        ("rewards/accuracy", "of held-out pairs rewarded in the right order", 100, " %"),
        ("accuracy", "of held-out pairs scored in the right order", 100, " %"),
        ("rewards/margin", "reward margin, held out", 1, ""),
        ("reward", "reward, held out", 1, ""),
        ("gold", "gold reward, held out", 1, ""),
        ("kl", "nats of KL an answer to the reference", 1, ""),
        ("kl_per_token", "nats of KL a token to the reference", 1, ""),
        ("calibration_error", "expected calibration error", 1, ""),
        ("length_bias", "correlation of score and length", 1, ""),
    )
    for name, label, scale, unit in held_out:
        if f"validation/{name}" in curves:
            found.append((f"{curves[f'validation/{name}'][1][-1] * scale:.3g}{unit}", label))
    if "train/loss" in curves:
        steps, losses = curves["train/loss"]
        found.append((f"{losses[-1]:.3f}", f"training loss at step {steps[-1]:,}"))
    for name, label, scale, unit in (
        ("tokens_per_second", "tokens per second, median", 1, ""),
        ("model_flops_per_second", "model GFLOP/s, median", 1e-9, ""),
        ("share_of_peak", "of the measured matrix-product peak", 100, " %"),
    ):
        if f"throughput/{name}" in curves:
            found.append((f"{np.median(curves[f'throughput/{name}'][1]) * scale:,.0f}{unit}", label))
    if "parameters" in facts:
        found.append((f"{facts['parameters'] / 1e6:.2f} M", "parameters"))
    return found


def charts(curves: dict[str, Curve]) -> list[tuple[str, str]]:
    """(title, SVG) of every chart there is data for."""
    bits = {name.removeprefix(BITS): curve for name, curve in curves.items() if name.startswith(BITS)}
    wanted: list[tuple[str, dict[str, Curve], bool]] = [
        ("Training loss, nats per token", _named(curves, {"train/loss": "loss"}), True),
        ("Validation bits per byte", bits, False),
        *((title, _stages(curves, name), True) for title, name in ALIGNMENT_CHARTS),
        (
            "Log-probability of held-out answers, nats",
            _named(curves, {f"validation/log_probabilities/{side}": side for side in ("chosen", "rejected")}),
            False,
        ),
        (
            "Held-out rewards",
            _named(curves, {f"validation/{kind}/{side}": side for kind in ("rewards", "scores") for side in SIDES}),
            False,
        ),
        ("KL to the reference, nats a token", _named(curves, {"validation/kl_per_token": "held out"}), False),
        *rollout_charts(curves),
        ("Learning rate", _named(curves, {"train/learning_rate": "learning rate"}), False),
        ("Gradient norm before clipping", _named(curves, {"train/gradient_norm": "norm"}), True),
        ("Tokens per second", _named(curves, {"throughput/tokens_per_second": "tokens/s"}), False),
        ("Share of the measured matrix-product peak", _named(curves, {"throughput/share_of_peak": "share"}), False),
    ]
    drawn = [(title, draw(lines, smooth)) for title, lines, smooth in wanted if lines]
    if bought := frontier(curves):
        title = "Held-out reward by divergence, nats an answer"
        drawn.append((title, draw(bought, smooth=False, across="KL to the reference")))
    return drawn


ALIGNMENT_CHARTS = (
    ("Pairs in the right order, share", "rewards/accuracy"),
    ("Pairs in the right order, share", "accuracy"),
    ("Reward margin", "rewards/margin"),
    ("Score margin", "scores/margin"),
)
SIDES = ("chosen", "rejected")


def _stages(curves: dict[str, Curve], name: str) -> dict[str, Curve]:
    return _named(curves, {f"train/{name}": "training", f"validation/{name}": "held out"})


def reliability_chart(reliability: dict[str, Any]) -> list[tuple[str, str]]:
    """Confidence against the share that is right, beside the diagonal of a model that knows what it knows."""
    bins = reliability.get("bins")
    if not bins:
        return []
    confidence, right, _ = (np.array(column) for column in zip(*bins, strict=True))
    diagonal = np.array([0.5, 1.0])
    lines = {"reward model": (confidence, right), "calibrated": (diagonal, diagonal)}
    return [("Right order by confidence, held out", draw(lines, smooth=False, across="confidence"))]


def ledger_section(totals: LedgerTotals) -> dict[str, Any]:
    """Where the wall clock went: a bar, a row for each heading and both utilizations; empty without a ledger."""
    if not totals.total:
        return {}
    rows = [(label, totals.seconds[purpose]) for purpose, label in LABELS.items() if totals.seconds[purpose] > 0]
    with chart(width=12.8, height=1.7) as (axes, svg):
        left = 0.0
        for index, (label, seconds) in enumerate(rows):
            axes.barh([0], [seconds], left=left, height=0.5, color=f"C{index}", label=label)
            left += seconds
        axes.set(yticks=[], xlim=(0, left), ylim=(-0.35, 0.35), xlabel="seconds")
        axes.legend(frameon=False, ncols=len(rows), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    both = totals.utilization()
    return {
        "svg": svg[0],
        "rows": [(label, seconds, 100 * seconds / totals.total) for label, seconds in rows],
        "total": totals.total,
        "utilization": both and [100 * value for value in both],
        "restarts": totals.restarts,
        "rewinds": totals.rewinds,
    }


def shown_spike(event: dict[str, Any]) -> dict[str, Any]:
    """A line of the table of spikes, with the first documents of its samples."""
    samples = event["samples"]
    documents = [
        str(document.get("path") or document["id"]) for sample in samples for document in sample.get("documents", [])
    ]
    unique = list(dict.fromkeys(documents))
    return {
        "step": event["step"],
        "loss": f"{float(event['loss']):.4g}",
        "action": event["action"],
        "checkpoint": event.get("checkpoint", ""),
        "skipped": "{} to {}".format(event["skipped"][0], event["skipped"][1] - 1) if "skipped" in event else "",
        "samples": "{} to {}".format(samples[0]["sample"], samples[-1]["sample"]),
        "sources": ", ".join(sorted({sample["source"] for sample in samples if "source" in sample})),
        "documents": unique[:DOCUMENTS_SHOWN],
        "more": max(len(unique) - DOCUMENTS_SHOWN, 0),
    }


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
    """Axes to draw on; afterwards the list holds the SVG element, which takes its text color from the page.

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

"""Report page of a run: what went in, how it learned, what it generates.

Made from the files in the run's folder alone, so that it can be made again at any time, also of a run that was killed.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from callbacks.reports.charts import BITS, Curve, chart, reliability_chart, run_charts
from callbacks.reports.data_report import sections
from callbacks.reports.pages import template, write_page
from common.errors import InputError
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

DOCUMENTS_SHOWN = 20
"""Documents of a spike on the page; `spikes.jsonl` names all."""


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
    curation = sections(data)
    last_step = max((sample["step"] for sample in samples), default=0)
    config = run / CONFIG
    page = template("report.html.j2").render(
        title=run.resolve().name,
        headlines=headlines(curves, facts),
        charts=[*run_charts(curves), *reliability_chart(read_object(run / RELIABILITY))],
        **curation,
        examples={} if curation else data,
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
    on_validation: tuple[tuple[str, str, float, str], ...] = (
        ("rewards/accuracy", "of validation pairs rewarded in the right order", 100, " %"),
        ("accuracy", "of validation pairs scored in the right order", 100, " %"),
        ("rewards/margin", "reward margin, validation", 1, ""),
        ("reward", "reward, validation", 1, ""),
        ("monitored_reward", "monitored reward, validation", 1, ""),
        ("kl", "nats of KL per response to the reference", 1, ""),
        ("kl_per_token", "nats of KL per token to the reference", 1, ""),
        ("calibration_error", "expected calibration error", 1, ""),
        ("length_bias", "correlation of score and length", 1, ""),
    )
    for name, label, scale, unit in on_validation:
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

"""Report page of a comparison: models side by side, each number with its interval, and their responses.

Made from `comparison.json` alone, so that it can be made again at any time.
"""

import json
from pathlib import Path
from typing import Any

from callbacks.reports.charts import chart
from callbacks.reports.pages import template, write_page
from common.errors import InputError
from common.run_folder import REPORT

COMPARISON, RESPONSES = "comparison.json", "responses.jsonl"
LABELS = {
    "kl": "KL to {reference}, nats per response",
    "kl_by_log_ratios": "the same by log-ratios",
    "tokens": "tokens per response",
    "stopped": "responses that end",
    "reward": "reward",
    "monitored_reward": "monitored_reward",
    "reward_of_best": "reward of the best of {samples}, at most {nats:.3f} nats from the model",
    "monitored_reward_of_best": "monitored reward of the best of {samples}, at most {nats:.3f} nats from the model",
    "win_rate_by_reward": "wins over {reference} by reward",
    "win_rate_by_monitored_reward": "wins over {reference} by the monitored reward",
}
SHARES = {"stopped", "win_rate_by_reward", "win_rate_by_monitored_reward"}


def write_comparison_report(folder: Path) -> Path:
    """Write the page of a comparison.

    Args:
        folder: with `comparison.json`.

    Returns:
        Path of the page.

    Raises:
        InputError: when there is no comparison.
    """
    path = folder / COMPARISON
    if not path.is_file():
        raise InputError(f"{path} does not exist: compare models first")
    found = json.loads(path.read_text(encoding="utf-8"))
    reference, models = found["settings"]["reference"], found["models"]
    columns = [key for key in LABELS if key in models[reference]]
    known = {"samples": found["settings"]["samples"], "nats": models[reference].get("kl_of_best", 0.0)}
    rows = {name: [cell(numbers[key], key in SHARES) for key in columns] for name, numbers in models.items()}
    page = template("comparison.html.j2").render(
        title=folder.resolve().name,
        labels=[LABELS[key].format(reference=reference, **known) for key in columns],
        rows=rows,
        charts=charts(models, reference),
        win_rates=found["win_rates"],
        samples=found["samples"],
        settings=found["settings"],
    )
    return write_page(folder / REPORT, page)


def cell(interval: dict[str, float], is_share: bool) -> tuple[str, str]:
    """An estimate and its interval, as text."""
    scale, unit = (100, " %") if is_share else (1, "")
    value, low, high = (interval[key] * scale for key in ("value", "low", "high"))
    digits = ".0f" if is_share else ".3g"
    return f"{value:{digits}}{unit}", f"{low:{digits}} to {high:{digits}}"


def charts(models: dict[str, Any], reference: str) -> list[tuple[str, str]]:
    """(title, SVG): win rates, and what each judge gives against the KL divergence it was bought with."""
    drawn = []
    judges = [judge for judge in ("reward", "monitored_reward") if judge in models[reference]]
    others = [name for name in models if name != reference]
    with chart() as (axes, svg):
        for number, judge in enumerate(judges):
            intervals = [models[name][f"win_rate_by_{judge}"] for name in others]
            values = [interval["value"] for interval in intervals]
            ends = [[abs(i["value"] - i[end]) for i in intervals] for end in ("low", "high")]
            places = [place + 0.16 * (2 * number - len(judges) + 1) for place in range(len(others))]
            axes.errorbar(values, places, xerr=ends, fmt="o", color=f"C{number}", capsize=3, label=f"by {judge}")
        axes.axvline(0.5, color="C7", linewidth=1)
        axes.set(yticks=range(len(others)), yticklabels=others, xlim=(0, 1), ylim=(len(others) - 0.5, -0.5))
        axes.legend(frameon=False)
    drawn.append((f"Share of prompts won over {reference}, with 95 % intervals", svg[0]))
    for number, judge in enumerate(judges):
        with chart() as (axes, svg):
            for name, numbers in models.items():
                across, up = numbers["kl"], numbers[judge]
                errors = [[[i["value"] - i["low"]], [i["high"] - i["value"]]] for i in (across, up)]
                axes.errorbar(across["value"], up["value"], yerr=errors[1], xerr=errors[0], fmt="o", color=f"C{number}")
                axes.annotate(name, (across["value"], up["value"]), xytext=(6, 4), textcoords="offset points")
            axes.set_xlabel(f"KL to {reference}, nats per response")
        drawn.append((f"Mean {judge} against KL divergence, with 95 % intervals", svg[0]))
    return drawn

"""The page holds what the run logged, escapes what it did not write, and needs nothing else."""

import json
from pathlib import Path

import numpy as np
import pytest

from callbacks.metrics_table import MetricsTable
from callbacks.reports.pages import shown
from callbacks.reports.rollout_charts import frontier, rollout_charts
from callbacks.reports.run_report import read_curves, write_report
from common.errors import InputError


def write_run(folder: Path, steps: int = 30) -> None:
    table = MetricsTable(str(folder))
    for step in range(steps):
        table.log_metrics({"train/loss": 5.0 - step / 10, "train/learning_rate": 1e-3}, step)
    table.log_metrics({"validation/bits_per_byte/all": 1.2345, "validation/bits_per_byte/code": 1.1}, steps)
    table.finalize("success")
    samples = [
        {"step": 10, "prompt": "early", "continuation": " x"},
        {"step": 30, "prompt": "<b>", "continuation": "\x00<script>"},
    ]
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples))


def test_a_page_from_metrics_and_samples(tmp_path: Path) -> None:
    write_run(tmp_path)
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert page.count("<svg") == 3
    assert "1.234" in page or "1.235" in page
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "\\x00" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "no summary of its data" in page
    assert not list(tmp_path.glob("*.partial"))


def test_curation_and_facts_are_shown(tmp_path: Path) -> None:
    write_run(tmp_path)
    row = {
        "in": {"documents": 1234, "bytes": 5_000_000},
        "out": {"documents": 1000, "bytes": 4_000_000},
        "validation": {"documents": 20, "bytes": 80_000},
        "dropped": {"too_short": {"documents": 234, "bytes": 1_000_000}},
        "masked": {"email": 7},
        "related": {name: {"documents": 10, "bytes": 40_000} for name in ("out", "validation")},
    }
    curation = {
        "sources": {"code": row},
        "total": row,
        "stages": [{"stage": "write", "seconds": 1.5, "megabytes_per_second": 3.3}],
        "examples": {"too_short": [{"id": 1, "source": "code", "path": "a<b>.py", "excerpt": None}]},
    }
    (tmp_path / "data.json").write_text(json.dumps(curation))
    (tmp_path / "run.json").write_text(json.dumps({"device": "a & b", "versions": {"torch": "2"}}))
    (tmp_path / "config.yaml").write_text("model: <x>")
    page = write_report(tmp_path).read_text(encoding="utf-8")
    for text in ("1,234", "80 %", "too_short", "a&lt;b&gt;.py", "a &amp; b", "torch 2", "model: &lt;x&gt;"):
        assert text in page


def test_a_reward_is_shown_beside_what_it_cost_and_what_it_is_a_measure_of(tmp_path: Path) -> None:
    table = MetricsTable(str(tmp_path))
    for step in range(6):
        names = (
            "reward",
            "monitored_reward",
            "kl",
            "entropy",
            "responses_per_second",
            "seconds/generation",
            "drift/ratio",
        )
        table.log_metrics({f"train/{name}": 1.0 + step for name in names}, step)
        table.log_metrics({f"validation/{name}": 2.0 * step for name in ("reward", "monitored_reward", "kl")}, step)
    table.finalize("success")
    curves = read_curves(tmp_path)
    titles = [title for title, lines, _ in rollout_charts(curves) if lines]
    assert titles[:3] == ["Reward", "KL to the reference, nats per response", "Entropy, nats per token"]
    assert rollout_charts(curves)[0][1].keys() == {
        "training",
        "validation",
        "monitored, training",
        "monitored, validation",
    }
    curves["validation/kl"] = (np.arange(6), np.array([5.0, 1, 4, 2, 3, 0]))
    bought = frontier(curves)
    assert bought["monitored_reward"][0].tolist() == [0, 1, 2, 3, 4, 5]
    assert bought["monitored_reward"][1].tolist() == [10, 2, 6, 8, 4, 0]
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert page.count("<svg") == len(titles) + 1
    assert "Validation reward by KL divergence" in page
    assert rollout_charts({"train/loss": curves["train/kl"]}) == []


def test_a_run_without_metrics_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        write_report(tmp_path)
    MetricsTable(str(tmp_path)).log_metrics({}, 0)
    with pytest.raises(InputError, match="holds no metric yet"):
        write_report(tmp_path)


def test_control_characters_are_made_visible() -> None:
    assert shown("a\x00b\x1b[0m\n\té") == "a\\x00b\\x1b[0m\n\té"

"""Run folder: the files of a run (`runs/X`), their names, contents, writers and readers.

A run is a folder of plain files, so that reports, comparisons and the next stage of training read it without the
classes that wrote it, also after a kill. Names and readers live here, below every package; a writer stays with the
class that has the numbers. Besides the files below a folder holds the tokenizer (`datamodules.tokenization.files`),
which a later run finds by the folder's name.
"""

import csv
import json
import re
from pathlib import Path
from typing import Any

import yaml

from common.errors import InputError

METRICS = "metrics.csv"
"""Every logged number, one `step,time,name,value` a line, only appended to. Writer: `callbacks.MetricsTable`."""
METRICS_COLUMNS = ("step", "time", "name", "value")
"""Header of `metrics.csv`; `step` counts the optimizer steps completed, `time` is Unix seconds."""
SAMPLES = "samples.jsonl"
"""Generated texts, one object per line with its `step`. Writers: `callbacks.Samples`, `callbacks.RolloutSamples`."""
SPIKES = "spikes.jsonl"
"""Loss spikes, one object per line: step, loss, action, samples. Writer: `callbacks.SpikeGuard`."""
GOODPUT = "goodput.jsonl"
"""Ledger of the wall clock, see `common.goodput_ledger`; only appended to. Writer: `callbacks.Goodput`."""
RUN_FACTS = "run.json"
"""Hardware, versions, parameters, peak memory, steps: one object. Writer: `callbacks.Throughput`."""
CONFIG = "config.yaml"
"""Complete configuration of the last start, as `fit --config` reads it. Writer: the command line."""
DATA_SUMMARY = "data.json"
"""Counts of curation or examples of the data: one object. Writer: `callbacks.Report`."""
RELIABILITY = "reliability.json"
"""Bins of confidence against accuracy of the last validation: one object. Writer: `alignment.RewardModel`."""
MIXTURE = "mixture.json"
"""Requested and reached share of each source: one object. Writer: the command line."""
PREDICTIONS = "predictions-{rank}.jsonl"
"""Bits per byte of validation windows, one object per line, by data-parallel rank. Writer: `callbacks.Predictions`."""
WANDB_ID = "wandb-id.txt"
"""Identity of the run at Weights & Biases, made once. Writer: the command line."""
CHAT_TEMPLATE = "chat_template.jinja"
"""Chat template that the data was formatted with. Writer: the command line."""
REPORT = "report.html"
"""Report page of the run. Writer: `callbacks.Report`, or the command `report`."""
CHECKPOINTS = "checkpoints"
"""Folder of `step=N.ckpt`, a file or a folder each. Writer: `callbacks.Checkpoints`."""

MetricRow = tuple[int, str, str, str]
"""Step, time, name and value of a line of `metrics.csv`; the last three as they are written."""

_CHECKPOINT_NAME = re.compile(r"step=(\d+)\.ckpt")


def checkpoint_name(step: int) -> str:
    """File name of the checkpoint after `step` optimizer steps."""
    return f"step={step}.ckpt"


def checkpoint_step(path: Path) -> int:
    """Optimizer steps completed in a checkpoint, by its name.

    Raises:
        InputError: when the name is not `step=N.ckpt`.
    """
    match = _CHECKPOINT_NAME.fullmatch(path.name)
    if match is None:
        raise InputError(f"checkpoint {path}: its name must be step=N.ckpt, N the optimizer steps completed")
    return int(match[1])


def checkpoints(run: Path) -> list[Path]:
    """Checkpoints of a run, oldest first; partial and other files are left out."""
    found = (path for path in (run / CHECKPOINTS).glob("*.ckpt") if _CHECKPOINT_NAME.fullmatch(path.name))
    return sorted(found, key=checkpoint_step)


def latest_checkpoint(run: Path) -> Path | None:
    """Checkpoint of a run with the most steps, None where there is none; what is visibly none is passed over.

    An empty file or folder is no checkpoint of this project, which names one when its last byte is on disk.
    """
    return next((path for path in reversed(checkpoints(run)) if _has_content(path)), None)


def _has_content(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.stat().st_size > 0


def abandoned_checkpoints(run: Path) -> list[Path]:
    """Checkpoints that were set aside because the run went back before them, the oldest first."""
    return sorted(
        (run / CHECKPOINTS).glob("step=*.ckpt.abandoned-*"), key=lambda path: path.name.partition(".abandoned-")[2]
    )


def read_metrics(run: Path) -> list[MetricRow]:
    """Rows of `metrics.csv`, in the order in which they were logged; lines torn by a kill or a crash are left out."""
    rows = list(csv.reader(_whole_lines(run / METRICS)))[1:]
    whole = (row for row in rows if len(row) == len(METRICS_COLUMNS) and row[0].isdigit())
    return [(int(step), when, name, value) for step, when, name, value in whole]


def read_samples(run: Path) -> list[dict[str, Any]]:
    """Generated texts of a run, oldest first; none where nothing was generated."""
    path = run / SAMPLES
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def read_spikes(run: Path) -> list[dict[str, Any]]:
    """Loss spikes of a run, oldest first; a last line torn by a kill is left out."""
    path = run / SPIKES
    return [json.loads(line) for line in _whole_lines(path)] if path.exists() else []


def read_goodput(run: Path) -> list[dict[str, Any]]:
    """Lines of the goodput ledger, oldest first; lines torn by a kill, anywhere in the file, are left out."""
    path = run / GOODPUT
    lines = path.read_bytes().splitlines() if path.exists() else []
    parsed = (_parse_object(line) for line in lines if line.startswith(b"{") and line.endswith(b"}"))
    return [line for line in parsed if line is not None]


def read_object(path: Path) -> dict[str, Any]:
    """One of the JSON objects of a run, such as `run.json`; empty where the file does not exist."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def read_config(run: Path) -> dict[str, Any]:
    """Configuration that a run was last started with."""
    config: dict[str, Any] = yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))
    return config


def _whole_lines(path: Path) -> list[str]:
    """Lines of a text file that end with a line break; the end of the others was lost in a kill."""
    text = path.read_text(encoding="utf-8")
    return text[: text.rfind("\n") + 1].splitlines()


def _parse_object(line: bytes) -> dict[str, Any] | None:
    try:
        parsed: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return None
    return parsed

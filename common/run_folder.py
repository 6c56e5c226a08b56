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

CHECKPOINT_PARTS = (".metadata", "trainer.pt")
"""Files of every checkpoint that is a folder, see `models.weights.sharded_folder`."""

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

    An empty file, or a folder with no file of a checkpoint, is none of this project, which names one when its last byte
    is on disk.
    """
    return next((path for path in reversed(checkpoints(run)) if _has_content(path)), None)


def _has_content(path: Path) -> bool:
    """Whether there is anything of a checkpoint; what file managers and network disks leave in a folder is not."""
    if path.is_dir():
        return any((path / name).exists() for name in CHECKPOINT_PARTS)
    return path.stat().st_size > 0


def abandoned_checkpoints(run: Path) -> list[Path]:
    """Checkpoints that were set aside because the run went back before them, the oldest first."""
    return sorted(
        (run / CHECKPOINTS).glob("step=*.ckpt.abandoned-*"), key=lambda path: path.name.partition(".abandoned-")[2]
    )


def read_metrics(run: Path) -> list[MetricRow]:
    """Rows of `metrics.csv`, in the order in which they were logged; torn and damaged lines are left out."""
    rows = (_metric_row(line) for line in _whole_lines(run / METRICS)[1:])
    return [row for row in rows if row is not None]


def _metric_row(line: bytes) -> MetricRow | None:
    try:
        text = line.decode()
        step, when, name, value = next(csv.reader([text])) if '"' in text else text.split(",")
        float(when), float(value)
        return int(step), when, name, value
    except (ValueError, StopIteration, csv.Error):
        return None


def read_samples(run: Path) -> list[dict[str, Any]]:
    """Generated texts of a run, oldest first; none where nothing was generated. Damaged lines are left out."""
    return [row for row in _read_lines(run / SAMPLES) if "step" in row]


def read_spikes(run: Path) -> list[dict[str, Any]]:
    """Loss spikes of a run, oldest first; damaged lines are left out."""
    return [row for row in _read_lines(run / SPIKES) if "step" in row]


def read_goodput(run: Path) -> list[dict[str, Any]]:
    """Lines of the goodput ledger, oldest first; lines torn by a kill, anywhere in the file, are left out."""
    return _read_lines(run / GOODPUT)


def read_object(path: Path) -> dict[str, Any]:
    """One of the JSON objects of a run, such as `run.json`; empty where the file does not exist.

    Raises:
        InputError: when it is damaged.
    """
    if not path.exists():
        return {}
    if (found := _parse_object(path.read_bytes())) is None:
        raise InputError(f"{path} is damaged, it holds no JSON object: delete it, a run that goes on writes it again")
    return found


def read_config(run: Path) -> dict[str, Any]:
    """Configuration that a run was last started with.

    Raises:
        InputError: when it is damaged.
    """
    path = run / CONFIG
    try:
        config = yaml.safe_load(path.read_bytes())
    except yaml.YAMLError as error:
        raise InputError(f"{path} is damaged ({' '.join(str(error).split())}): start the run again") from error
    if not isinstance(config, dict):
        raise InputError(f"{path} is damaged, it holds no configuration: start the run again")
    return config


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Objects of a file of JSON lines, none where it does not exist; what is no whole object is left out."""
    parsed = map(_parse_object, _whole_lines(path)) if path.exists() else ()
    return [line for line in parsed if line is not None]


def _whole_lines(path: Path) -> list[bytes]:
    """Lines of a file that end with a line break; the end of the others was lost in a kill."""
    content = path.read_bytes()
    return content[: content.rfind(b"\n") + 1].splitlines()


def _parse_object(text: bytes) -> dict[str, Any] | None:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):  # of bytes that are no UTF-8 too
        return None
    return parsed if isinstance(parsed, dict) else None

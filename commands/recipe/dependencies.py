"""Dependencies of a recipe's stage: configuration, input files, source code and earlier stages, with a fingerprint.

Loggers and callbacks that only watch are left out, and so are comments and docstrings of the source: a better sentence
must not cost a week of training. Files count by their content and weights by theirs, whatever lies beside them.
Installed libraries do not count: an upgrade must not cost it either.
"""

import importlib
import os
import re
import zipfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.content_checksums import content_checksums
from common.files import checksum
from common.fingerprint import ast_fingerprint, fingerprint, import_closure, module_file, source_name
from common.path_lists import expand_pattern
from common.run_folder import CHECKPOINTS, latest_checkpoint

OBSERVER_KEYS = re.compile(
    r"(config|resume|trainer\.(logger|log_every_n_steps|enable_\w+)|data\.init_args\.(workers|engine|verify))\b.*"
)
"""Keys of loggers and of other observers, and of how data is read, which change no result."""
WATCHING = frozenset(
    {
        "Checkpoints",
        "Goodput",
        "MetricsTable",
        "Predictions",
        "Report",
        "RolloutSamples",
        "Samples",
        "StepProgress",
        "Throughput",
    }
)
"""This project's callbacks that watch and write; every other one may change what is learned."""
WRITTEN = {"default_root_dir", "folder", "downloads", "save_dir", "output"}
"""Keys of what a stage writes: not read for the fingerprint."""

Flat = dict[str, Any]
"""A configuration by dotted names: `trainer.max_steps`, `data.init_args.rows.init_args.paths.0`."""


@dataclass(frozen=True)
class Dependencies:
    """Everything that decides a stage's result; `needs` are fingerprints by stage."""

    configuration: Flat
    files: dict[str, str]
    sources: dict[str, str]
    needs: dict[str, str]

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits."""
        return fingerprint(asdict(self))

    def difference_from(self, before: "Dependencies") -> str:
        """Differences from an earlier start, in words; the first three."""
        old, new = before.configuration, self.configuration
        changed = [
            f"{key} {old.get(key)} -> {new.get(key)}" for key in sorted({*old, *new}) if old.get(key) != new.get(key)
        ]
        for older, newer in ((before.files, self.files), (before.sources, self.sources)):
            changed += [f"{key} changed" for key in sorted({*older, *newer}) if older.get(key) != newer.get(key)]
        changed += [f"{name} is made again" for name, key in self.needs.items() if before.needs.get(name) != key]
        return "; ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")


def flatten(value: Any, name: str = "") -> Flat:
    """Configuration by dotted names; callbacks that only watch are left out."""
    if isinstance(value, dict):
        pairs = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list):
        kept = [item for item in value if not (name == "trainer.callbacks" and is_observer(item))]
        pairs = [(str(number), item) for number, item in enumerate(kept)]
    else:
        # YAML knows dates, JSON does not.
        return {name: value if isinstance(value, str | int | float | None) else str(value)}
    flat: Flat = {}
    for key, item in pairs:
        flat |= flatten(item, f"{name}.{key}" if name else key)
    return flat


def is_observer(callback: Any) -> bool:
    """Whether a callback is one of this project's that only watch."""
    package, _, name = str(callback.get("class_path", "") if isinstance(callback, dict) else "").rpartition(".")
    return package.partition(".")[0] == "callbacks" and name in WATCHING


def files_of(flat: Flat, outputs: Iterable[Path]) -> dict[str, str]:
    """Fingerprints of the files and folders that a configuration names and no stage makes."""
    outputs = list(outputs)
    found = {}
    for key, value in flat.items():
        last = next((part for part in reversed(key.split(".")) if not part.isdigit()), "")
        if not isinstance(value, str) or last in WRITTEN or not 0 < len(value) < 1024 or "\n" in value:
            continue
        for named in expand_pattern(value) if last == "paths" else [value]:
            path = Path(named).expanduser()
            if path.exists() and not any(is_below(named, output) for output in outputs):
                found[named] = identity(path, last.endswith("init_from"))
    return found


def identity(path: Path, is_model: bool = False) -> str:
    """Fingerprint of the content of a file, or of all files of a folder; of a model that of its weights alone.

    Args:
        path: of a file or folder.
        is_model: whether weights are read from there; a run's folder always counts as a model.
    """
    if is_model or (path / CHECKPOINTS).is_dir():
        # Imported where it is used: it brings PyTorch.
        from models.weights.source import weights_identity

        newest = latest_checkpoint(path) if (path / CHECKPOINTS).is_dir() else path
        tokenizers = sorted(path.glob("tokenizer*")) if path.is_dir() else []
        try:
            if newest is not None:
                return fingerprint(weights_identity(newest), [[file.name, checksum(file)] for file in tokenizers])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            pass  # no model, which is said where it is read
    if not path.is_dir():
        return content_checksums([str(path)])[str(path)]
    below = [str(file) for file in sorted(path.rglob("*")) if file.is_file()]
    checksums = content_checksums(below)
    return fingerprint([[os.path.relpath(file, path), checksums[file]] for file in below])


def is_below(value: str, folder: Path) -> bool:
    """Whether a path is a folder or within it, by its name alone."""
    path, above = os.path.abspath(value), os.path.abspath(folder)
    return path == above or path.startswith(above + os.sep)


def sources_of(flat: Flat, modules: list[Path]) -> dict[str, str]:
    """Fingerprints of the source that a configuration's classes import, and of the packages' templates."""
    named = {str(value) for key, value in flat.items() if key.endswith("class_path")}
    found = import_closure([*modules, *filter(None, map(source_of_class, sorted(named)))])
    templates = {template for path in found for template in path.parent.glob("templates/*.jinja")}
    return {
        source_name(path): ast_fingerprint(path) if path in found else checksum(path)
        for path in sorted(found | templates)
    }


def source_of_class(class_path: str) -> Path | None:
    """The file of this project, or of the user's own, that defines a class; None for what is installed."""
    module, _, name = class_path.rpartition(".")
    if not module or module_file(module.split(".")[0]) is None:
        return None
    defined = getattr(importlib.import_module(module), name)
    return module_file(defined.__module__)

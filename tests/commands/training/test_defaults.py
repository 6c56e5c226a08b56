"""Defaults of the command line and how a configuration adds to them."""

import dataclasses
import importlib
import re
import typing
from pathlib import Path
from typing import Any

import lightning
import pytest
import yaml

from callbacks.metrics_table import read_metrics
from commands.cli import main
from commands.mistakes import PACKAGES
from commands.registry import COMMANDS
from commands.resolve import resolve_config
from commands.schema import parameters
from commands.training.defaults import CALLBACKS, LOGGERS, TRAINER, merge_defaults
from commands.training.lightning_cli import build_cli
from datamodules.curation.config import TextSource
from tests.helpers.corpus import ROOT, Configure

QUICKSTART = str(ROOT / "configs/quickstart.yaml")
LAYOUTS = sorted((ROOT / "configs/layouts").glob("*.yaml"))
DEBUG = sorted((ROOT / "configs/debug").glob("*.yaml"))


def names(entries: list[dict[str, Any]]) -> list[str]:
    """Class paths of a list in a configuration."""
    return [entry["class_path"] for entry in entries]


def test_a_run_without_lists_has_the_defaults(configure: Configure) -> None:
    config = configure()
    loaded = yaml.safe_load(config.read_text(encoding="utf-8"))
    del loaded["trainer"]["callbacks"], loaded["trainer"]["logger"]
    config.write_text(yaml.safe_dump(loaded), encoding="utf-8")
    resolved, _ = resolve_config(["fit", "--config", str(config)])
    assert names(resolved["trainer"]["callbacks"]) == list(CALLBACKS)
    assert names(resolved["trainer"]["logger"])[0] == "callbacks.MetricsTable"
    assert resolved["trainer"]["logger"][1]["init_args"]["offline"] is True
    assert resolved["trainer"]["check_val_every_n_epoch"] is None


@pytest.mark.parametrize(
    ("switch", "callback"),
    [("enable_progress_bar", "callbacks.StepProgress"), ("enable_checkpointing", "callbacks.Checkpoints")],
)
def test_a_switch_of_the_trainer_leaves_out_a_default(configure: Configure, switch: str, callback: str) -> None:
    config = configure()
    loaded = yaml.safe_load(config.read_text(encoding="utf-8"))
    del loaded["trainer"]["callbacks"]
    config.write_text(yaml.safe_dump(loaded), encoding="utf-8")
    built = build_cli(["--config", str(config), f"--trainer.{switch}=false"], run=False)
    assert callback.split(".")[1] not in [type(one).__name__ for one in built.trainer.callbacks]
    assert names(built.config["trainer"]["callbacks"]) == [name for name in CALLBACKS if name != callback]


def test_a_list_with_plus_adds_and_takes_the_place_of_defaults() -> None:
    resolved, _ = resolve_config(["fit", "--config", QUICKSTART])
    callbacks = resolved["trainer"]["callbacks"]
    assert names(callbacks)[0] == "callbacks.StepProgress"
    assert names(callbacks)[-2:] == ["callbacks.Checkpoints", "callbacks.Report"]
    assert "callbacks.Throughput" in names(callbacks)
    assert callbacks[-2]["init_args"]["every_steps"] == 100
    assert [logger["init_args"].get("project") for logger in resolved["trainer"]["logger"]] == [None, "llm"]


def test_a_run_has_the_name_of_its_folder_at_weights_and_biases(tmp_path: Path) -> None:
    arguments = ["--config", QUICKSTART, "--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path / 'mine'}"]
    _, logger = build_cli(arguments, run=False).config.trainer.logger
    assert logger.init_args.name == "mine"
    assert logger.init_args.project == "llm"


def test_two_of_a_class_that_is_no_default_are_kept() -> None:
    twice = [{"class_path": "callbacks.Samples"}, {"class_path": "callbacks.Samples"}]
    assert merge_defaults(twice) == twice
    assert merge_defaults(None) is None
    ends = [{"class_path": "callbacks.Report"}, {"class_path": "callbacks.Checkpoints"}, *twice]
    assert names(merge_defaults(ends)) == ["callbacks.Samples"] * 2 + ["callbacks.Checkpoints", "callbacks.Report"]


@pytest.mark.end_to_end
@pytest.mark.parametrize("overlay", [*LAYOUTS, *DEBUG], ids=lambda path: path.stem)
def test_every_overlay_instantiates_over_the_quickstart(overlay: Path, tmp_path: Path) -> None:
    first = overlay.read_text(encoding="utf-8").splitlines()[0]
    assert first == (
        f"# python main.py fit --config configs/quickstart.yaml --config {overlay.relative_to(ROOT).as_posix()}"
    )
    arguments = ["--config", QUICKSTART, "--config", str(overlay), f"--trainer.default_root_dir={tmp_path}"]
    cli = build_cli([*arguments, "--trainer.accelerator=cpu"], run=False)
    assert cli.trainer.num_devices == yaml.safe_load(overlay.read_text(encoding="utf-8"))["trainer"].get("devices", 1)


@pytest.mark.end_to_end
def test_one_step_and_overfit_run(configure: Configure, tmp_path: Path) -> None:
    config = str(configure())
    for name, steps in (("one_step", 1), ("overfit", 30)):
        run = tmp_path / name
        arguments = ["fit", "--config", config, "--config", str(ROOT / f"configs/debug/{name}.yaml")]
        main([*arguments, f"--trainer.default_root_dir={run}", f"--trainer.max_steps={steps}"])
        losses = [float(value) for _, _, key, value in read_metrics(run) if key == "train/loss"]
        assert len(losses) == steps
        assert not (run / "checkpoints").exists()
    assert losses[-1] < losses[0] - 2


# The files in configs/

RUNS = [
    path
    for path in sorted((ROOT / "configs").rglob("*.yaml"))
    if re.fullmatch(
        rf"# python main\.py (fit|test|constitution) --config {path.relative_to(ROOT).as_posix()}( .*)?",
        path.read_text(encoding="utf-8").splitlines()[0],
    )
]
"""Configurations that are no overlays: what they say is not about another file."""
SAID_WHOLE = {
    "heads", "key_value_heads", "learning_rate", "batch_size", "sequence_length", "max_tokens",
    "sources.mine.weight", "sources.mine.reader.init_args.text_key",
}  # fmt: skip
"""Keys that may equal their defaults: shape and rate of a model, size of a step, and what a copy is to change."""
OWN = tuple(f"{package}." for package in PACKAGES)


def repeated_defaults(given: dict[str, Any], owner: Any, path: str = "") -> list[str]:
    """Dotted names of keys whose values are the defaults of the class or function that takes them."""
    found, taken = [], parameters(owner)
    for key, value in given.items():
        hint, default = taken.get(key, (Any, None))
        if key not in taken or isinstance(value, list):
            continue
        if not isinstance(value, dict):
            found += [f"{path}{key}"] if value == default and type(value) is type(default) else []
        elif "class_path" in value:
            found += repeated_in(value, f"{path}{key}.")
        elif key == "sources":
            for name, source in value.items():
                found += repeated_defaults(source, TextSource, f"{path}{key}.{name}.")
        elif dataclasses.is_dataclass(default):  # its values, not those of its class
            found += [f"{path}{key}.{name}" for name, one in value.items() if getattr(default, name, ...) == one]
        else:
            classes = [one for one in (hint, *typing.get_args(hint)) if getattr(one, "__module__", "").startswith(OWN)]
            found += repeated_defaults(value, classes[0], f"{path}{key}.") if classes else []
    return found


def repeated_in(entry: dict[str, Any], path: str) -> list[str]:
    """The same for an object that is named by `class_path`; what another library takes is not looked at."""
    package, name = entry["class_path"].rsplit(".", 1)
    if package not in PACKAGES:
        return []
    made = getattr(importlib.import_module(package), name)
    return repeated_defaults(entry.get("init_args", {}), made, f"{path}init_args.")


@pytest.mark.parametrize("config", RUNS, ids=lambda path: path.stem)
def test_no_configuration_repeats_a_default(config: Path) -> None:
    loaded = yaml.safe_load(config.read_text(encoding="utf-8"))
    if "trainer" in loaded:
        found = [key for key, value in loaded["trainer"].items() if key in TRAINER and TRAINER[key] == value]
        found += repeated_defaults({k: v for k, v in loaded["trainer"].items() if k not in TRAINER}, lightning.Trainer)
        for name, entry in ({"strategy": loaded["trainer"].get("strategy")} | loaded).items():
            found += repeated_in(entry, f"{name}.") if isinstance(entry, dict) and "class_path" in entry else []
        for name in ("callbacks+", "logger+"):
            found += [key for entry in loaded["trainer"].get(name, []) for key in repeated_in(entry, f"{name}.")]
            defaults = [*LOGGERS, *({"class_path": each} for each in CALLBACKS)]
            found += [entry["class_path"] for entry in loaded["trainer"].get(name, []) if entry in defaults]
    else:
        found = repeated_defaults(loaded, COMMANDS["constitution"].load())
    wrong = [key for key in found if not any(key.endswith(f".{kept}") for kept in SAID_WHOLE)]
    assert not wrong, "leave them out: the defaults are the same"


def uncommented(text: str) -> list[str]:
    """Keys whose values are no numbers and which no comment explains where they occur first in a file."""
    lines, seen, found = text.splitlines(), set(), []

    def visit(node: yaml.Node) -> None:
        if isinstance(node, yaml.SequenceNode):
            for entry in node.value:
                visit(entry)
        if not isinstance(node, yaml.MappingNode):
            return
        for key, value in node.value:
            if value.value and not isinstance(value, yaml.ScalarNode) and not value.flow_style and not is_list(value):
                if "  # " not in lines[key.start_mark.line] or not is_map_of_scalars(value):
                    visit(value)
                continue
            kind = (key.value, value.value if key.value in ("class_path", "command") else "")
            line = key.start_mark.line
            if kind not in seen and not is_number(value):
                seen.add(kind)
                if "  # " not in lines[line] and not lines[line - 1].lstrip().startswith("# "):
                    found.append(f"line {line + 1}: {lines[line].strip()}")

    visit(yaml.compose(text))
    return found


def is_list(node: yaml.Node) -> bool:
    """Whether a node is a list of scalars."""
    return isinstance(node, yaml.SequenceNode) and all(isinstance(entry, yaml.ScalarNode) for entry in node.value)


def is_map_of_scalars(node: yaml.Node) -> bool:
    """Whether a node is a map of scalars, which the comment on its key may explain."""
    return isinstance(node, yaml.MappingNode) and all(isinstance(one, yaml.ScalarNode) for _, one in node.value)


def is_number(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag.endswith((":int", ":float"))


@pytest.mark.parametrize(
    "config",
    [path for path in sorted((ROOT / "configs").rglob("*.yaml")) if path.parent.name != "hardware"],
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_what_is_no_number_has_a_comment(config: Path) -> None:
    """Files in hardware/ say where their numbers are from, and a constitution is prose: neither needs a comment."""
    if config.name != "principles.yaml":
        assert uncommented(config.read_text(encoding="utf-8")) == []


def test_the_rule_on_comments_sees_a_bare_key() -> None:
    assert uncommented("a: 1\nb: text\nc: [1, 2]  # pair\n") == ["line 2: b: text"]
    assert uncommented("a:\n  - class_path: x  # of\n  - class_path: x\n  - class_path: y\n") == [
        "line 4: - class_path: y"
    ]


def test_hints_for_editors_lead_to_the_schema() -> None:
    """`llm schema --output configs/schema.json` writes what they name; git ignores it."""
    hints = {
        path: re.findall(r"^# yaml-language-server: \$schema=(\S+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        for path in sorted((ROOT / "configs").rglob("*.yaml"))
    }
    named = {path: found for path, found in hints.items() if found}
    assert len(named) >= 6
    assert all((path.parent / found[0]).resolve() == ROOT / "configs/schema.json" for path, found in named.items())
    assert "/configs/schema.json" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()

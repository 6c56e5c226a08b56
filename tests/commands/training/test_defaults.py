"""Defaults of the command line and how a configuration adds to them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from callbacks.metrics_table import read_metrics
from commands.cli import main
from commands.resolve import resolve_config
from commands.training.defaults import CALLBACKS, merge_defaults
from commands.training.lightning_cli import build_cli
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


def test_a_list_with_plus_adds_and_takes_the_place_of_defaults() -> None:
    resolved, _ = resolve_config(["fit", "--config", QUICKSTART])
    callbacks = resolved["trainer"]["callbacks"]
    assert names(callbacks)[0] == "callbacks.StepProgress"
    assert names(callbacks)[-2:] == ["callbacks.Checkpoints", "callbacks.Report"]
    assert "callbacks.Throughput" in names(callbacks)
    assert callbacks[-2]["init_args"]["every_steps"] == 100
    assert [logger["init_args"].get("project") for logger in resolved["trainer"]["logger"]] == [None, "quickstart"]


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

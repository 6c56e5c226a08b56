"""What a killed, refused or changed run leaves behind: no gap in the log, no lost record, the configured schedule."""

import csv
from pathlib import Path

import pytest

from callbacks.checkpoints import Checkpoints
from common.run_folder import read_metrics
from main import main
from tests.helpers.command_line import learned, refused
from tests.helpers.corpus import Configure


class KilledError(Exception):
    """Stands for a kill right after a checkpoint is whole."""


@pytest.mark.end_to_end
def test_a_kill_right_after_a_checkpoint_loses_no_metric(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step 4 is no validation step: Lightning logs its metrics only after the callbacks."""
    config = ["fit", "--config", str(configure(trainer__val_check_interval=10))]
    main([*config, f"--trainer.default_root_dir={tmp_path / 'whole'}"])
    save = Checkpoints.save

    def save_and_die(self: Checkpoints, trainer: object) -> None:
        save(self, trainer)  # type: ignore[arg-type]
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", save_and_die)
        for _ in range(2):
            with pytest.raises(KilledError):
                main(config)
    main(config)
    assert learned(tmp_path / "run") == learned(tmp_path / "whole")


@pytest.mark.end_to_end
def test_a_refused_run_changes_nothing(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(configure(trainer__max_steps=8))
    main(["fit", "--config", config])
    run = tmp_path / "run"
    before = {name: (run / name).read_bytes() for name in ("metrics.csv", "config.yaml", "run.json")}
    mistakes = [
        [f"--ckpt_path={run}/checkpoints/step=3.ckpt"],
        [f"--ckpt_path={run}/checkpoints/step=4.ckpt", "--model.init_args.decoder.width=64"],
        ["--data.init_args.sequence_length=32", "--trainer.max_steps=20"],
        ["--trainer.gradient_clip_val=-1"],
        ["--model.init_args.optimizer.init_args.weight_decay=-1"],
    ]
    for mistake in mistakes:
        refused(["fit", "--config", config, *mistake], capsys)
    main(["validate", "--config", config])
    assert before == {name: (run / name).read_bytes() for name in before}


@pytest.mark.end_to_end
def test_a_longer_run_follows_its_own_schedule_and_sets_later_checkpoints_aside(
    configure: Configure, tmp_path: Path
) -> None:
    config = str(configure(trainer__max_steps=8))
    main(["fit", "--config", config])
    checkpoint = tmp_path / "run/checkpoints/step=4.ckpt"
    longer = ["--trainer.max_steps=12", "--model.init_args.optimizer.init_args.learning_rate=1e-3"]
    # A third as many micro-batches more a step: the position in the data goes on where the fourth step ended.
    main(["fit", "--config", config, f"--ckpt_path={checkpoint}", *longer, "--trainer.accumulate_grad_batches=3"])
    main(["fit", "--config", config, *longer, f"--trainer.default_root_dir={tmp_path / 'planned'}"])
    rates = [
        {row[0]: float(row[3]) for row in read_metrics(tmp_path / name) if row[2] == "train/learning_rate"}
        for name in ("run", "planned")
    ]
    assert {step: rates[0][step] for step in range(5, 13)} == {step: rates[1][step] for step in range(5, 13)}
    names = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert [name.split(".abandoned")[0] for name in names if "abandoned" in name] == ["step=8.ckpt"]


@pytest.mark.end_to_end
def test_every_step_is_logged_once(configure: Configure, tmp_path: Path) -> None:
    main(["fit", "--config", str(configure())])
    with (tmp_path / "run/metrics.csv").open() as file:
        keys = [(row["step"], row["name"]) for row in csv.DictReader(file)]
    assert len(keys) == len(set(keys))
    assert [step for step, name in keys if name == "train/loss"] == [str(step) for step in range(1, 13)]

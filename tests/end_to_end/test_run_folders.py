"""What is found in a run's folder, and what a run leaves there, as users copy, stop and damage it."""

import os
import shutil
from pathlib import Path

import pytest
import yaml

from common.run_folder import abandoned_checkpoints, checkpoints, read_metrics
from main import main
from tests.helpers.command_line import learned, refused
from tests.helpers.corpus import Configure

pytestmark = pytest.mark.end_to_end


def test_a_trial_leaves_nothing_that_the_next_run_continues_from(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ["fit", "--config", str(configure(trainer__max_steps=4))]
    main([*config, "--trainer.fast_dev_run=2"])
    assert "the run's own folder is left alone" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    main(config)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    main([*config, "--trainer.fast_dev_run=4"])
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_another_optimizer_is_refused_and_evaluation_is_not(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ["--config", str(configure(trainer__max_steps=4))]
    main(["fit", *config])
    other = ["--model.init_args.optimizer.class_path=models.Muon"]
    assert "holds the state of AdamW, this run trains with Muon: restore the optimizer" in refused(
        ["fit", *config, *other, "--trainer.max_steps=8"], capsys
    )
    main(["validate", *config, *other])


def test_what_is_no_part_of_a_checkpoint_is_passed_over_and_what_is_missing_refused(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ["fit", "--config", str(configure(trainer__max_steps=4))]
    main(config)
    folder = tmp_path / "run/checkpoints"
    for stray in (".DS_Store", ".nfs0001", "notes.txt"):
        (folder / "step=4.ckpt" / stray).write_text("x")
    (folder / "step=99.ckpt").touch()
    (folder / "step=98.ckpt").mkdir()
    capsys.readouterr()
    main([*config, "--trainer.max_steps=8"])
    output = capsys.readouterr().out
    assert f"continuing from {folder}/step=4.ckpt" in output
    assert f"{folder}/step=99.ckpt is empty and no checkpoint" in output
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step=4.ckpt", "step=8.ckpt"]
    for file in (folder / "step=8.ckpt").glob("__0_0.distcp*"):
        file.unlink()
    assert "is damaged (__0_0.distcp)" in refused([*config, "--trainer.max_steps=12"], capsys)


def test_checkpoints_set_aside_are_kept_as_many_as_others(configure: Configure, tmp_path: Path) -> None:
    config = ["fit", "--config", str(configure(trainer__max_steps=4))]
    main(config)
    folder = tmp_path / "run/checkpoints"
    for second in range(5):
        (folder / f"step={second + 20}.ckpt.abandoned-20260101-00000{second}").mkdir()
    main([*config, "--trainer.max_steps=8"])
    assert [path.name[-1] for path in abandoned_checkpoints(tmp_path / "run")] == ["3", "4"]


def test_torn_lines_of_metrics_do_not_stop_a_continuation(configure: Configure, tmp_path: Path) -> None:
    config = ["fit", "--config", str(configure(trainer__max_steps=4))]
    main(config)
    metrics = tmp_path / "run/metrics.csv"
    rows = read_metrics(tmp_path / "run")
    with metrics.open("a") as file:
        file.write("5,17\n\nx,1,train/loss,3\n5,1796")
    assert read_metrics(tmp_path / "run") == rows
    main([*config, "--trainer.max_steps=8"])
    assert [row for row in read_metrics(tmp_path / "run") if row[0] <= 4] == rows
    assert {row[0] for row in read_metrics(tmp_path / "run")} == set(range(9)) - {0}


def test_the_configuration_that_a_run_saved_serves_other_commands_and_another_run(
    configure: Configure, tmp_path: Path
) -> None:
    loggers = [
        {"class_path": "callbacks.MetricsTable"},
        {"class_path": "lightning.pytorch.loggers.WandbLogger", "init_args": {"offline": True}},
    ]
    main(["fit", "--config", str(configure(trainer__max_steps=4, trainer__logger=loggers))])
    run = tmp_path / "run"
    before = {name: (run / name).read_bytes() for name in ("metrics.csv", "config.yaml", "wandb-id.txt")}
    saved = str(run / "config.yaml")
    for command in ("validate", "predict"):
        main([command, "--config", saved])
    main(["fit", "--config", saved, f"--trainer.default_root_dir={tmp_path / 'other'}"])
    assert before == {name: (run / name).read_bytes() for name in before}
    assert learned(tmp_path / "other") == learned(run)
    assert (tmp_path / "other/wandb-id.txt").read_text() != before["wandb-id.txt"].decode()
    written = yaml.safe_load((run / "config.yaml").read_text())
    assert [logger["init_args"]["save_dir"] for logger in written["trainer"]["logger"]] == [".", "."]


def test_a_conversion_that_fails_leaves_the_older_model_whole(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["fit", "--config", str(configure(trainer__max_steps=4))])
    convert = ["convert", "--input", str(tmp_path / "run"), "--output", str(tmp_path / "model")]
    small = ["--shard_gigabytes=0.00002"]
    main([*convert, *small])
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    written: list[object] = []

    def fail_at_the_third(tensors: object, path: Path, **_: object) -> None:
        written.append(tensors)
        if len(written) == 3:
            raise OSError(28, os.strerror(28))
        path.write_bytes(b"x")

    with monkeypatch.context() as patched:
        patched.setattr("models.weights.hugging_face_folder.save_file", fail_at_the_third)
        refused([*convert, *small], capsys)
    assert len(written) == 3
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before


def test_a_run_that_ended_with_a_validation_and_is_trained_for_longer_logs_what_one_start_does(
    configure: Configure, tmp_path: Path
) -> None:
    """But for the mixture, which is reported for the planned length."""
    constant = ["--model.init_args.schedule.init_args.final_fraction=1.0"]
    config = ["fit", "--config", str(configure(trainer__max_steps=12)), *constant]
    main([*config, f"--trainer.default_root_dir={tmp_path / 'whole'}"])
    main([*config, "--trainer.max_steps=8"])
    main(config)
    both, whole = (
        [row for row in learned(tmp_path / name) if not row[1].startswith("mixture/")] for name in ("run", "whole")
    )
    assert both == whole


def test_a_run_that_was_copied_with_its_corpus_continues_where_it_is_now(
    configure: Configure, corpus_folder: Path, tmp_path: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(corpus_folder / "corpus", old / "corpus")
    text = configure(trainer__max_steps=4, trainer__default_root_dir=str(old / "run")).read_text(encoding="utf-8")
    config = tmp_path / "config.yaml"
    config.write_text(text.replace(str(corpus_folder), str(old)), encoding="utf-8")
    main(["fit", "--config", str(config)])
    # As `cp -r` leaves it: every time of change is another.
    shutil.copytree(old, new, copy_function=shutil.copyfile)
    shutil.rmtree(old)
    config.write_text(config.read_text(encoding="utf-8").replace(str(old), str(new)), encoding="utf-8")
    main(["fit", "--config", str(config), "--trainer.max_steps=8"])
    assert {path.stem for path in checkpoints(new / "run")} == {"step=4", "step=8"}
    assert {row[0] for row in read_metrics(new / "run")} == set(range(1, 9))
    assert len(list((new / "data").glob("shards-*"))) == 1

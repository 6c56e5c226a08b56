"""The command `recipe`: stages that run, fail and are stopped; records, logs and the page.

Most stages run the small program of `tests.helpers.recipes`; one test runs the real command.
"""

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
import yaml

from commands.recipe import command as recipe
from commands.recipe.command import read_records
from commands.resolve import resolve_config
from main import main
from tests.helpers.command_line import refused
from tests.helpers.corpus import Configure
from tests.helpers.distributed import forked, wait_for, warm_program
from tests.helpers.recipes import chain, in_a_process, logged, plan, run


def test_what_is_complete_is_skipped_and_what_changed_is_made_again(
    program: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, chain(tmp_path), dry_run=True)
    assert not (tmp_path / "recipe").exists()
    run(tmp_path, chain(tmp_path))
    assert "4 of 4 stages run" in capsys.readouterr().out
    run(tmp_path, chain(tmp_path))
    said = capsys.readouterr().out
    assert "0 of 4 stages run" in said
    assert len(re.findall(r"skipped: complete, [0-9a-f]{12}$", said, re.M)) == 4
    assert {name: len(logged(tmp_path, name)) for name in ("pretrain", "sft", "reward", "dpo")} == {
        "pretrain": 3, "sft": 3, "reward": 3, "dpo": 3,
    }  # fmt: skip

    changed = chain(tmp_path, sft={"model.rate": 2})
    assert plan(tmp_path, changed) == {
        "pretrain": ("skip", plan(tmp_path, changed)["pretrain"][1]),
        "sft": ("run", "model.rate None -> 2"),
        "reward": ("run", "sft is made again"),
        "dpo": ("run", "sft is made again"),
    }
    assert plan(tmp_path, chain(tmp_path, dpo={"trainer.logger.offline": False}))["dpo"][0] == "skip"
    run(tmp_path, changed)
    said = capsys.readouterr().out
    assert "3 of 4 stages run" in said
    # Training would only have gone on from the old checkpoints.
    assert len(list(tmp_path.glob("sft.abandoned-*"))) == len(list(tmp_path.glob("dpo.abandoned-*"))) == 1
    assert logged(tmp_path, "sft") == ["step 1", "step 2", "step 3"] * 2
    assert "0 of 4" in (run(tmp_path, changed), capsys.readouterr().out)[1]  # type: ignore[func-returns-value]


def test_a_failing_stage_is_named_with_its_command_status_and_log(
    program: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        run(tmp_path, chain(tmp_path, sft={"fail": 2}))
    assert raised.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    log = tmp_path / "recipe/logs/sft.log"
    assert line.startswith("error: stage sft: `python main.py fit --trainer.default_root_dir=")
    assert line.endswith(f"--fail=2` ended with status 1 (error: no space left), see {log}")
    assert logged(tmp_path, "sft") == ["step 1"]
    assert not (tmp_path / "reward").exists()
    repaired = chain(tmp_path, sft={"fail": 2})
    assert plan(tmp_path, repaired)["sft"] == ("continue", "begun and not complete")
    assert plan(tmp_path, repaired)["dpo"] == ("run", "never run")


def test_a_stage_that_ends_well_too_early_is_not_complete(
    program: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "PROGRAM", [*program[:-1], "-c", "pass"])
    with pytest.raises(SystemExit):
        run(tmp_path, chain(tmp_path))
    assert "ended with status 0 before" in capsys.readouterr().err
    assert read_records(tmp_path / "recipe")["pretrain"].state == "begun"


@pytest.mark.distributed
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_stopped_anywhere_it_continues(program: list[str], tmp_path: Path, number: signal.Signals) -> None:
    stages = chain(tmp_path, sft={"trainer.max_steps": 9, "until.folder": str(tmp_path / "now")})
    process = forked(tmp_path, in_a_process, tmp_path, program, stages)
    wait_for(tmp_path / "sft/checkpoints/step=5.ckpt")
    os.kill(process.pid, number)
    output, _ = process.communicate()
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    assert ("stopped by" in output) == (number != signal.SIGKILL)
    assert plan(tmp_path, stages)["sft"] == ("continue", "begun and not complete")
    # The stage ends too, or is waited for: never two at once.
    (tmp_path / "now").mkdir()
    run(tmp_path, stages)
    assert logged(tmp_path, "sft") == [f"step {step}" for step in range(1, 10)]
    assert (tmp_path / "recipe/logs/sft.log").read_text().count("\n$ python main.py fit") == 2
    assert {action for action, _ in plan(tmp_path, stages).values()} == {"skip"}


@pytest.mark.distributed
def test_two_starts_at_once_do_not_meet(program: list[str], tmp_path: Path) -> None:
    stages = chain(tmp_path, pretrain={"trainer.max_steps": 9, "until.folder": str(tmp_path / "now")})
    first = forked(tmp_path, in_a_process, tmp_path, program, stages)
    wait_for(tmp_path / "pretrain/checkpoints/step=5.ckpt")
    second = forked(tmp_path, in_a_process, tmp_path, program, stages)
    deadline = time.monotonic() + 100
    while "waiting for that to end" not in second.output():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    (tmp_path / "now").mkdir()
    assert "4 of 4 stages run" in first.communicate()[0]
    assert "0 of 4 stages run" in second.communicate()[0]
    assert len(logged(tmp_path, "pretrain")) == 9


@pytest.mark.end_to_end
def test_mistakes_get_one_line(configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages = [{"name": "pretrain", "config": [str(configure())], "overrides": {"trainer.max_stepz": 3}}]
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"folder": str(tmp_path / "recipe"), "stages": stages}))
    assert "error: stage pretrain: " in (line := refused(["recipe", "--config", path], capsys))
    assert "max_stepz" in line
    assert "no_such_option" in refused(["recipe", "--config", path, "--no_such_option", "1"], capsys)
    assert "no such stage" in refused(["recipe", "--config", path, "--only", "ppo"], capsys)


@pytest.mark.end_to_end
def test_the_real_command_is_run_once(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "PROGRAM", warm_program())
    main(["prepare", "--config", str(configure())])
    stages = [
        {
            "name": "pretrain",
            "config": [str(configure())],
            "overrides": {"trainer.max_steps": 2, "trainer.default_root_dir": str(tmp_path / "pretrain")},
        }
    ]
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"folder": str(tmp_path / "recipe"), "stages": stages}))
    main(["recipe", "--config", str(path)])
    assert "1 of 1 stages run" in capsys.readouterr().out
    assert "report: " in (tmp_path / "recipe/logs/pretrain.log").read_text()
    page = (tmp_path / "recipe/recipe.html").read_text()
    assert "<iframe" in page
    assert "&lt;svg" in page
    assert "<script" not in page
    main(["recipe", "--config", str(path)])
    assert "skipped: complete" in capsys.readouterr().out
    found = json.loads((tmp_path / "recipe/recipe.json").read_text())["pretrain"]
    assert found["state"] == "complete"
    assert found["dependencies"]["configuration"]["trainer.max_steps"] == 2
    assert "models/decoder.py" in found["dependencies"]["sources"]
    assert resolve_config(["convert", "--input", "a", "--output", "b"])[0]["shard_gigabytes"] == 5.0


def test_the_page_shows_the_log_of_a_stage_without_one(program: list[str], tmp_path: Path) -> None:
    run(tmp_path, chain(tmp_path))
    page = (tmp_path / "recipe/recipe.html").read_text()
    assert page.count("step 3 None") == 4
    assert page.count('id="tab-') == 5

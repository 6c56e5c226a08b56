"""Recipes: what runs, what is skipped and why, what a kill, a signal and a failure leave behind.

Most stages here are a small program that trains like `fit` does: a checkpoint a step, SIGTERM saves and ends. The last
test runs the real one.
"""

import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from commands.recipe import command as recipe
from commands.recipe.command import read_records, run_recipe
from commands.recipe.dependencies import MadeOf, files_of, flatten, sources_of
from commands.recipe.plan import Stage, as_argument, make_plan
from commands.resolve import resolve_config
from common.errors import InputError
from common.fingerprint import ast_fingerprint, import_closure
from main import main
from tests.conftest import ROOT, Configure
from tests.helpers.distributed import forked
from tests.test_command_line import refused

TRAINING = """
import signal, sys, time
from pathlib import Path
command, *pairs = sys.argv[1:]
given = dict(pair.removeprefix("--").split("=", 1) for pair in pairs)
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
folder = Path(given["trainer.default_root_dir"]) / "checkpoints"
folder.mkdir(parents=True, exist_ok=True)
done = max((int(path.stem[5:]) for path in folder.iterdir()), default=0)
for step in range(done + 1, int(given["trainer.max_steps"]) + 1):
    if given.get("fail") == str(step):
        sys.exit("error: no space left")
    while step == 6 and "until.folder" in given and not asked and not Path(given["until.folder"]).exists():
        time.sleep(0.002)
    if asked:
        break
    (folder / f"step={step}.ckpt").mkdir()
    print("step", step, given.get("rate"), flush=True)
"""


def resolve(arguments: list[str]) -> tuple[dict[str, Any], list[Path]]:
    """Options by dotted name, as a configuration."""
    configuration: dict[str, Any] = {}
    for pair in arguments[1:]:
        *parents, last = (name_value := pair.removeprefix("--").split("=", 1))[0].split(".")
        node = configuration
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = yaml.safe_load(name_value[1])
    return configuration, []


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Makes `TRAINING` what a stage runs."""
    (tmp_path / "training.py").write_text(TRAINING)
    command = [sys.executable, "-S", "-I", str(tmp_path / "training.py")]
    monkeypatch.setattr(recipe, "PROGRAM", command)
    return command


def chain(folder: Path, **changes: dict[str, Any]) -> list[Stage]:
    """pretrain -> sft -> dpo, and a reward model beside it; overrides by stage."""
    needs: dict[str, list[str]] = {"pretrain": [], "sft": ["pretrain"], "reward": ["sft"], "dpo": ["sft"]}
    stages = []
    for name, before in needs.items():
        overrides: dict[str, Any] = {"trainer.default_root_dir": str(folder / name), "trainer.max_steps": 3}
        overrides |= {"model.init_from": str(folder / before[0])} if before else {}
        stages.append(Stage(name, overrides=overrides | changes.get(name, {}), needs=before))
    return stages


def run(folder: Path, stages: list[Stage], **further: Any) -> None:
    run_recipe(str(folder / "recipe"), stages, resolve, **further)


def plan(folder: Path, stages: list[Stage], **further: Any) -> dict[str, tuple[str, str]]:
    steps = make_plan(stages, read_records(folder / "recipe"), resolve, **further)
    return {step.stage.name: (step.action, step.reason) for step in steps}


def logged(folder: Path, name: str) -> list[str]:
    return re.findall(r"step \d+", (folder / f"recipe/logs/{name}.log").read_text())


def test_what_is_complete_is_skipped_and_what_changed_is_made_anew(
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
        "reward": ("run", "sft is made anew"),
        "dpo": ("run", "sft is made anew"),
    }
    assert plan(tmp_path, chain(tmp_path, dpo={"trainer.logger.offline": False}))["dpo"][0] == "skip"
    run(tmp_path, changed)
    said = capsys.readouterr().out
    assert "3 of 4 stages run" in said
    # Training would only have gone on from the old checkpoints.
    assert len(list(tmp_path.glob("sft.abandoned-*"))) == len(list(tmp_path.glob("dpo.abandoned-*"))) == 1
    assert logged(tmp_path, "sft") == ["step 1", "step 2", "step 3"] * 2
    assert "0 of 4" in (run(tmp_path, changed), capsys.readouterr().out)[1]  # type: ignore[func-returns-value]


def test_what_was_begun_from_a_result_that_is_gone_is_not_continued(program: list[str], tmp_path: Path) -> None:
    """Half of it would be of the old weights, and half of the new ones."""
    with pytest.raises(SystemExit):
        run(tmp_path, chain(tmp_path, sft={"fail": 2}))
    (tmp_path / "pretrain").rename(tmp_path / "away")
    found = plan(tmp_path, chain(tmp_path, sft={"fail": 2}))
    assert found["sft"] == ("run", "pretrain is made anew")
    (tmp_path / "away").rename(tmp_path / "pretrain")
    assert plan(tmp_path, chain(tmp_path, sft={"fail": 2}))["sft"][0] == "continue"


def test_a_result_that_is_gone_is_made_again_with_what_needs_it(program: list[str], tmp_path: Path) -> None:
    run(tmp_path, chain(tmp_path))
    (tmp_path / "sft").rename(tmp_path / "away")
    found = plan(tmp_path, chain(tmp_path))
    assert [action for action, _ in found.values()] == ["skip", "run", "run", "run"]
    assert "gone" in found["sft"][1]
    # Killed after the new sft: what was made from the old one must not look complete.
    with pytest.raises(SystemExit):
        run(tmp_path, chain(tmp_path, reward={"fail": 1}))
    found = plan(tmp_path, chain(tmp_path))
    assert [action for action, _ in found.values()] == ["skip", "skip", "run", "run"]


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
    mended = chain(tmp_path, sft={"fail": 2})
    assert plan(tmp_path, mended)["sft"] == ("continue", "begun and not complete")
    assert plan(tmp_path, mended)["dpo"] == ("run", "never run")


def test_a_stage_that_ends_well_too_early_is_not_complete(
    program: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "PROGRAM", [*program[:-1], "-c", "pass"])
    with pytest.raises(SystemExit):
        run(tmp_path, chain(tmp_path))
    assert "ended with status 0 before" in capsys.readouterr().err
    assert read_records(tmp_path / "recipe")["pretrain"].state == "begun"


def test_only_and_from_take_the_rest_as_it_stands(
    program: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="stage sft needs pretrain, which is not complete"):
        run(tmp_path, chain(tmp_path), only="sft")
    run(tmp_path, chain(tmp_path), only="pretrain")
    assert not (tmp_path / "sft").exists()
    run(tmp_path, chain(tmp_path), first="sft")
    # Everything has changed; asked for is the last stage.
    changed = chain(tmp_path, **{name: {"model.rate": 1} for name in ("pretrain", "sft", "reward", "dpo")})
    assert [action for action, _ in plan(tmp_path, changed, only="dpo").values()] == ["keep", "keep", "keep", "run"]
    run(tmp_path, changed, only="dpo")
    assert [action for action, _ in plan(tmp_path, changed, first="reward").values()] == ["keep", "keep", "run", "skip"]
    assert [action for action, _ in plan(tmp_path, changed).values()] == ["run"] * 4
    assert "left alone: not asked for" in capsys.readouterr().out


def in_a_process(folder: Path, program: list[str], stages: list[Stage]) -> None:
    recipe.PROGRAM = program
    run(folder, stages)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 100
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not come"
        time.sleep(0.005)


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


def test_what_cannot_be_is_refused(program: list[str], tmp_path: Path) -> None:
    stages = chain(tmp_path)
    (tmp_path / "sft/checkpoints").mkdir(parents=True)
    for changed, message in (
        (stages, "sft holds what this stage did not make"),
        ([*stages, stages[0]], "stage 'pretrain': names are"),
        ([Stage("a b")], "stage 'a b': names are"),
        ([Stage("a", needs=["b"])], "stage a needs b: no stage before it"),
        ([], "stages is empty"),
        ([stages[0], Stage("twin", overrides=stages[0].overrides)], "stages pretrain and twin both write"),
        ([stages[0], Stage("sft", overrides=stages[1].overrides)], "is made by stage pretrain, add it to needs"),
    ):
        with pytest.raises(InputError, match=message):
            run(tmp_path, changed)
    for further, message in (
        ({"only": "ppo"}, "--only ppo: no such stage, take one of pretrain, sft"),
        ({"first": "ppo"}, "--from ppo: no such stage"),
        ({"only": "sft", "first": "dpo"}, "give one of them"),
    ):
        with pytest.raises(InputError, match=message):
            run(tmp_path, stages, **further)
    (tmp_path / "recipe").mkdir(exist_ok=True)
    (tmp_path / "recipe/recipe.json").write_text("{")
    with pytest.raises(InputError, match="recipe.json is damaged"):
        run(tmp_path, stages)


# Ingredients


def test_sources_are_those_that_are_imported() -> None:
    def of(*classes: str) -> set[str]:
        return {*sources_of({f"{number}.class_path": name for number, name in enumerate(classes)}, [])}

    model, policy = of("models.LanguageModel"), of("alignment.PreferencePolicy")
    assert (
        {"models/language_model.py", "models/decoder.py", "models/attention.py", "common/errors.py"} <= model < policy
    )
    assert {
        "alignment/preferences/preference_policy.py",
        "alignment/preferences/losses.py",
        "alignment/preferences/reward_model.py",
    } <= policy
    assert not any(name.startswith(("alignment", "datamodules", "callbacks")) for name in model)
    assert not any(name.startswith(("datamodules", "callbacks")) for name in policy)
    assert "datamodules/conversations/templates/plain.jinja" in of("datamodules.SFTData")
    assert of("lightning.pytorch.callbacks.Timer") == set()
    assert not any(path.name == "report.py" for path in import_closure([ROOT / "commands/compare/command.py"]))


def test_edited_source_is_followed_where_that_is_wanted(
    program: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_sources(arguments: list[str]) -> tuple[dict[str, Any], list[Path]]:
        configuration, _ = resolve(arguments)
        return configuration | {"class_path": "models.LanguageModel"}, []

    def actions(**further: Any) -> dict[str, str]:
        steps = make_plan(stages, read_records(tmp_path / "recipe"), with_sources, **further)
        return {step.stage.name: f"{step.action}: {step.reason}" for step in steps}

    stages = chain(tmp_path)[:2]
    run_recipe(str(tmp_path / "recipe"), stages, with_sources)
    edited = str(ROOT / "models/decoder.py")
    monkeypatch.setattr(
        "commands.recipe.dependencies.ast_fingerprint",
        lambda path: "edited" if str(path) == edited else ast_fingerprint(path),
    )
    assert actions() == {
        "pretrain": "run: models/decoder.py changed",
        "sft": "run: models/decoder.py changed; pretrain is made anew",
    }
    assert {action[:4] for action in actions(follow_sources=False).values()} == {"skip"}


def test_a_comment_changes_nothing_a_number_does(tmp_path: Path) -> None:
    def fingerprint_of(name: str, source: str) -> str:
        (tmp_path / name).write_text(source)
        return ast_fingerprint(tmp_path / name)

    plain = fingerprint_of("a.py", "def f(x):\n    return x + 1\n")
    assert (
        fingerprint_of("b.py", '"""About f."""\n\ndef f(x):\n    """More."""\n    # one\n    return (x + 1)\n') == plain
    )
    assert fingerprint_of("c.py", "def f(x):\n    return x + 2\n") != plain
    assert fingerprint_of("d.py", 'def f(x):\n    """Nothing else."""\n') == fingerprint_of(
        "e.py", "def f(x):\n    pass"
    )


def test_files_that_a_configuration_names_count_by_their_content(tmp_path: Path) -> None:
    rows, folder, output = tmp_path / "rows.jsonl", tmp_path / "texts", tmp_path / "run"
    for place in (folder, output):
        place.mkdir()
        (place / "a.txt").write_text("a")
    rows.write_text("{}")
    flat = flatten(
        {
            "data": {
                "paths": [str(rows), str(folder)],
                "folder": str(tmp_path),
                "tokenizer": str(output),
                "name": "plain",
            }
        }
    )
    before = files_of(flat, [output])
    assert {*before} == {str(rows), str(folder)}
    os.utime(rows, (0, 0))
    assert files_of(flat, [output]) == before
    (folder / "b.txt").write_text("b")
    rows.write_text("{ }")
    after = files_of(flat, [output])
    assert all(before[name] != after[name] for name in before)
    old, new = (MadeOf(flat, files, {}, {}) for files in (before, after))
    assert new.since(old) == f"{rows} changed; {folder} changed"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("ab: {}[],'\"#-\n1.e", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab-", min_size=1, max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(values)
def test_a_value_is_the_same_on_the_command_line(value: Any) -> None:
    text = as_argument(value)
    assert text == value if isinstance(value, str) else json.loads(text) == value
    assert isinstance(value, str) or "\n" not in text


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), values, max_size=4))
def test_a_flat_configuration_tells_values_apart(configuration: dict[str, Any]) -> None:
    flat = flatten(configuration)
    assert all(not isinstance(value, dict | list) for value in flat.values())
    made = MadeOf(flat, {}, {}, {})
    assert MadeOf(**json.loads(json.dumps(made.__dict__))).fingerprint == made.fingerprint
    assert MadeOf(flat | {"x.y": 1}, {}, {}, {}).fingerprint != made.fingerprint


# The command


@pytest.mark.parametrize("path", sorted((ROOT / "configs/recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_can_be_planned(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    assert re.match(rf"# python main.py recipe --config {path.relative_to(ROOT)}\n", path.read_text(encoding="utf-8"))
    main(["recipe", "--config", str(path), "--folder", str(tmp_path / "recipe"), "--dry_run"])
    names = [stage["name"] for stage in yaml.safe_load(path.read_text(encoding="utf-8"))["stages"]]
    said = capsys.readouterr().out
    assert re.findall(r"^run +(\S+) +never run$", said, re.M) == names
    assert said.count("python main.py ") == len(names)


def test_mistakes_get_one_line(configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages = [{"name": "pretrain", "config": [str(configure())], "overrides": {"trainer.max_stepz": 3}}]
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"folder": str(tmp_path / "recipe"), "stages": stages}))
    assert "error: stage pretrain: " in (line := refused(["recipe", "--config", path], capsys))
    assert "max_stepz" in line
    assert "no_such_option" in refused(["recipe", "--config", path, "--no_such_option", "1"], capsys)
    assert "no such stage" in refused(["recipe", "--config", path, "--only", "ppo"], capsys)


def test_the_real_command_is_run_once(configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    assert found["made_of"]["configuration"]["trainer.max_steps"] == 2
    assert "models/decoder.py" in found["made_of"]["sources"]
    assert resolve_config(["convert", "--input", "a", "--output", "b"])[0]["shard_gigabytes"] == 5.0


def test_the_page_shows_the_log_of_a_stage_without_one(program: list[str], tmp_path: Path) -> None:
    run(tmp_path, chain(tmp_path))
    page = (tmp_path / "recipe/recipe.html").read_text()
    assert page.count("step 3 None") == 4
    assert page.count('id="tab-') == 5

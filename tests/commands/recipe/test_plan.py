"""Plan of a recipe: the action of each stage and its reason."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings

from commands.recipe import command as recipe_command
from commands.recipe.command import run_recipe
from commands.recipe.plan import RecipeStage, as_argument, plan_recipe
from commands.recipe.records import read_records
from common.errors import InputError
from common.fingerprint import ast_fingerprint
from main import main
from tests.helpers.corpus import ROOT
from tests.helpers.recipes import chain, plan, resolve, run, values


def test_what_was_begun_from_a_result_that_is_gone_is_not_continued(program: list[str], tmp_path: Path) -> None:
    """Half of it would be of the old weights, and half of the new ones."""
    with pytest.raises(SystemExit):
        run(tmp_path, chain(tmp_path, sft={"fail": 2}))
    (tmp_path / "pretrain").rename(tmp_path / "away")
    found = plan(tmp_path, chain(tmp_path, sft={"fail": 2}))
    assert found["sft"] == ("run", "pretrain is made again")
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


def test_only_and_from_take_the_rest_as_it_is(
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
    assert "left alone: not requested" in capsys.readouterr().out


def test_what_cannot_be_is_refused(program: list[str], tmp_path: Path) -> None:
    stages = chain(tmp_path)
    (tmp_path / "sft/checkpoints").mkdir(parents=True)
    for changed, message in (
        (stages, "sft holds what this stage did not make"),
        ([*stages, stages[0]], "stage 'pretrain': names are"),
        ([RecipeStage("a b")], "stage 'a b': names are"),
        ([RecipeStage("a", needs=["b"])], "stage a needs b: no earlier stage has that name"),
        ([], "stages is empty"),
        ([stages[0], RecipeStage("twin", overrides=stages[0].overrides)], "stages pretrain and twin both write"),
        ([stages[0], RecipeStage("sft", overrides=stages[1].overrides)], "is made by stage pretrain, add it to needs"),
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


def test_edited_source_is_followed_where_that_is_wanted(
    program: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_sources(arguments: list[str]) -> tuple[dict[str, Any], list[Path]]:
        configuration, _ = resolve(arguments)
        return configuration | {"class_path": "models.LanguageModel"}, []

    def actions(**further: Any) -> dict[str, str]:
        steps = plan_recipe(stages, read_records(tmp_path / "recipe"), with_sources, **further)
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
        "sft": "run: models/decoder.py changed; pretrain is made again",
    }
    assert {action[:4] for action in actions(follow_sources=False).values()} == {"skip"}


def test_a_stage_is_recorded_with_what_it_started_with(
    program: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited, source, original = tmp_path / "b.yaml", tmp_path / "edited_source.py", recipe_command.run_process
    edited.write_text("1")
    source.write_text("x = 1\n")

    def from_file(arguments: list[str]) -> tuple[dict[str, Any], list[Path]]:
        configuration, _ = resolve(arguments)
        is_second = "sft" in str(configuration["trainer"]["default_root_dir"])
        return configuration | ({"rate": int(edited.read_text())} if is_second else {}), [source] * is_second

    def edit_meanwhile(command: list[str], *further: Any) -> int:
        if str(tmp_path / "pretrain") in " ".join(command) and "init_from" not in " ".join(command):
            edited.write_text("2")
            source.write_text("x = 2\n")
        return original(command, *further)

    monkeypatch.setattr(recipe_command, "run_process", edit_meanwhile)
    stages = chain(tmp_path)[:2]

    def actions() -> list[str]:
        steps = plan_recipe(stages, read_records(tmp_path / "recipe"), from_file)
        return [f"{step.action}: {step.reason}" for step in steps]

    run_recipe(str(tmp_path / "recipe"), stages, from_file)
    assert read_records(tmp_path / "recipe")["sft"].dependencies.configuration["rate"] == 2
    assert [action[:5] for action in actions()] == ["skip:", "skip:"]
    edited.write_text("1")
    assert actions()[1] == "run: rate 2 -> 1"


@settings(max_examples=40, deadline=None)
@given(values)
def test_a_value_is_the_same_on_the_command_line(value: Any) -> None:
    text = as_argument(value)
    assert text == value if isinstance(value, str) else json.loads(text) == value
    assert isinstance(value, str) or "\n" not in text


@pytest.mark.end_to_end
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

"""Shipped recipes: nothing is made that no stage learns from, and Constitutional AI is in the paper's order."""

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
RECIPES = sorted((ROOT / "configs/recipes").glob("*.yaml"))
MADE = ("revisions", "preferences")


def stages(recipe: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(recipe.read_text(encoding="utf-8"))["stages"]
    return found


def configuration(stage: dict[str, Any]) -> dict[str, Any]:
    """Keys of its files and overrides; dotted ones stay so."""
    files = stage.get("config", [])
    read = [yaml.safe_load((ROOT / file).read_text(encoding="utf-8")) for file in files]
    merged: dict[str, Any] = {}
    for part in [*read, stage.get("overrides", {})]:
        merged |= part
    return merged


def made(stage: dict[str, Any]) -> dict[str, str]:
    """Rows that a stage of Constitutional AI writes, by kind."""
    config = configuration(stage)
    if stage.get("command") != "constitution":
        return {}
    return {kind: f"{config['folder']}/{kind}/rows.jsonl" for kind in MADE if config.get(kind, {}) is not None}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_row_that_is_made_is_learned_from(recipe: Path) -> None:
    for stage in stages(recipe):
        readers = [str(other.get("overrides", {})) for other in stages(recipe) if other is not stage]
        for path in made(stage).values():
            assert any(path in reader for reader in readers), f"{path} of {stage['name']} is read by no stage"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_preferences_are_of_the_model_that_the_revisions_taught(recipe: Path) -> None:
    """Bai et al. 2022, sections 3.1 and 4.1."""
    revisions = {path for stage in stages(recipe) for path in [made(stage).get("revisions")] if path}
    taught = {
        stage["overrides"]["trainer.default_root_dir"]
        for stage in stages(recipe)
        if any(path in str(stage.get("overrides", {})) for path in revisions)
    }
    for stage in stages(recipe):
        if "preferences" in made(stage):
            assert "revisions" not in made(stage)
            assert stage["overrides"]["generator.init_args.init_from"] in taught

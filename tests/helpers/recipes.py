"""Recipes of small stages, for tests.

A stage is a program that trains like `fit` does: a checkpoint per step; SIGTERM saves and ends.
"""

import re
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from commands.recipe import command as recipe
from commands.recipe.command import read_records, run_recipe
from commands.recipe.plan import RecipeStage, plan_recipe

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


def chain(folder: Path, **changes: dict[str, Any]) -> list[RecipeStage]:
    """pretrain -> sft -> dpo, and a reward model beside it; overrides by stage."""
    needs: dict[str, list[str]] = {"pretrain": [], "sft": ["pretrain"], "reward": ["sft"], "dpo": ["sft"]}
    stages = []
    for name, before in needs.items():
        overrides: dict[str, Any] = {"trainer.default_root_dir": str(folder / name), "trainer.max_steps": 3}
        overrides |= {"model.init_from": str(folder / before[0])} if before else {}
        stages.append(RecipeStage(name, overrides=overrides | changes.get(name, {}), needs=before))
    return stages


def run(folder: Path, stages: list[RecipeStage], **further: Any) -> None:
    run_recipe(str(folder / "recipe"), stages, resolve, **further)


def plan(folder: Path, stages: list[RecipeStage], **further: Any) -> dict[str, tuple[str, str]]:
    steps = plan_recipe(stages, read_records(folder / "recipe"), resolve, **further)
    return {step.stage.name: (step.action, step.reason) for step in steps}


def logged(folder: Path, name: str) -> list[str]:
    return re.findall(r"step \d+", (folder / f"recipe/logs/{name}.log").read_text())


def in_a_process(folder: Path, program: list[str], stages: list[RecipeStage]) -> None:
    recipe.PROGRAM = program
    run(folder, stages)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("ab: {}[],'\"#-\n1.e", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab-", min_size=1, max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)

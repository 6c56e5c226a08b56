"""Plan of a recipe: the action of each stage (skip, run, continue, keep) and its reason.

Nothing is changed here. A stage is complete when its last start succeeded with the dependencies it has now. One whose
dependencies changed starts again in an empty folder, beside its old result, because training would continue from there.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from commands.recipe.dependencies import OBSERVER_KEYS, Dependencies, Flat, files_of, flatten, is_below, sources_of
from common.errors import InputError
from common.fingerprint import forget_sources
from common.path_lists import PathList, path_list
from common.run_folder import checkpoint_step, latest_checkpoint

Value = str | int | float | bool | list | dict | None
"""Value of a configuration. Not `Any`, of which the command line would make objects."""


@dataclass
class RecipeStage:
    """Stage of a recipe: one command with its configuration.

    Args:
        name: name of the stage, of letters, digits, `-` and `_`.
        command: command of main.py.
        config: files for `--config`; later ones override earlier ones.
        overrides: dotted names and values that override the files.
        needs: names of earlier stages whose output this one reads.
        launcher: command prefix that starts more than one process, such as `srun --nodes 16 ...`.
    """

    name: str
    command: str = "fit"
    config: PathList = field(default_factory=list)
    overrides: dict[str, Value] = field(default_factory=dict)
    needs: list[str] = field(default_factory=list)
    launcher: str = ""

    @property
    def arguments(self) -> list[str]:
        """Arguments of `python main.py`."""
        files = [argument for file in path_list(self.config) for argument in ("--config", file)]
        return [self.command, *files, *(f"--{key}={as_argument(value)}" for key, value in self.overrides.items())]


@dataclass
class Record:
    """Record of a stage in `recipe.json`.

    Attributes:
        dependencies: dependencies of the start that began it.
        state: `begun`; `complete`; or `stale`, which must run again whatever else happens.
        seconds: duration of the starts that ended by themselves.
    """

    dependencies: Dependencies
    state: Literal["begun", "complete", "stale"] = "begun"
    seconds: float = 0.0

    @classmethod
    def of(cls, stored: dict[str, Any]) -> "Record":
        """Record from its JSON object."""
        return cls(**stored | {"dependencies": Dependencies(**stored["dependencies"])})


@dataclass(frozen=True)
class PlannedStage:
    """Stage with its action.

    Attributes:
        action: `skip` a complete stage; `run`; `continue` a begun one; `keep` one that was not requested as it is.
        reason: reason of the action, in words.
        output: folder or file that only this stage makes, None where there is none.
        last_step: optimizer step at which a training is complete.
    """

    stage: RecipeStage
    action: Literal["skip", "run", "continue", "keep"]
    reason: str
    dependencies: Dependencies
    output: Path | None
    last_step: int | None

    @property
    def is_whole(self) -> bool:
        """Whether the stage's output exists and is complete."""
        if self.output is None:
            return True
        if self.last_step is None:
            return self.output.exists()
        newest = latest_checkpoint(self.output)
        return newest is not None and checkpoint_step(newest) >= self.last_step


Resolve = Callable[[list[str]], tuple[dict[str, Any], list[Path]]]
"""Function from the arguments of main.py to the whole configuration and the source files of the command."""


def plan_recipe(
    stages: list[RecipeStage],
    records: dict[str, Record],
    resolve: Resolve,
    only: str | None = None,
    first: str | None = None,
    follow_sources: bool = True,
) -> list[PlannedStage]:
    """Action of every stage, in order.

    Args:
        stages: of the recipe.
        records: of earlier starts.
        resolve: makes configurations.
        only: name of the single stage to look at.
        first: name of the first stage to look at; earlier stages stay as they are.
        follow_sources: whether a stage runs again when its source code was edited.

    Raises:
        InputError: for a stage that cannot be, reads what it does not need, or would write over what the recipe did
            not make.
    """
    check_names(stages, only, first)
    names = [stage.name for stage in stages]
    chosen = [only] if only else names[names.index(first) :] if first else names
    steps: dict[str, PlannedStage] = {}
    outputs: dict[str, Path] = {}
    for stage in stages:
        record = records.get(stage.name)
        step = describe_stage(stage, record, resolve, outputs, steps, follow_sources)
        if step.output is not None:
            outputs[stage.name] = step.output
        if stage.name not in chosen:
            # Later stages build on what is there, whatever it was made of.
            dependencies = record.dependencies if record is not None else step.dependencies
            steps[stage.name] = replace(step, action="keep", reason="not requested", dependencies=dependencies)
            continue
        for name in stage.needs:
            done = name in records and records[name].state == "complete" and steps[name].is_whole
            if steps[name].action == "keep" and not done:
                raise InputError(f"stage {stage.name} needs {name}, which is not complete: run that first")
        steps[stage.name] = choose_action(step, record, steps)
    return list(steps.values())


def describe_stage(
    stage: RecipeStage,
    record: Record | None,
    resolve: Resolve,
    outputs: dict[str, Path],
    steps: dict[str, PlannedStage],
    follow_sources: bool,
) -> PlannedStage:
    """A stage with its dependencies as they are now, before its action is chosen.

    Args:
        stage: of the recipe.
        record: of its earlier start.
        resolve, follow_sources: see `plan_recipe`.
        outputs, steps: of the stages before it, by name.
    """
    try:
        configuration, modules = resolve(stage.arguments)
    except InputError as error:
        raise InputError(f"stage {stage.name}: {error}") from error
    flat = {key: value for key, value in flatten(configuration).items() if not OBSERVER_KEYS.fullmatch(key)}
    output, last_step = output_of(stage, flat)
    if stage.command == "prepare":
        # It reads one part of a configuration that says much more.
        flat = {key: value for key, value in flat.items() if key.startswith("data.")}
    if output is not None and (twin := next((name for name, path in outputs.items() if path == output), None)):
        raise InputError(f"stages {twin} and {stage.name} both write {output}: give one of them another folder")
    check_references(stage, flat, outputs, steps)
    dependencies = Dependencies(
        flat,
        files_of(flat, [*outputs.values(), *([] if output is None else [output])]),
        sources_of(flat, modules) if follow_sources or record is None else record.dependencies.sources,
        {name: steps[name].dependencies.fingerprint for name in stage.needs},
    )
    return PlannedStage(stage, "run", "", dependencies, output, last_step)


def plan_again(
    step: PlannedStage, before: list[PlannedStage], record: Record | None, resolve: Resolve, follow_sources: bool
) -> PlannedStage:
    """A planned stage as it is just before it starts: files and source may be others than when the recipe began.

    Args:
        step: as it was planned.
        before: stages before it, as they were run.
        record: of its earlier start.
        resolve, follow_sources: see `plan_recipe`.

    Raises:
        InputError: where it cannot be any more, or would write elsewhere.
    """
    if step.action in ("skip", "keep"):
        return step
    forget_sources()
    outputs = {other.stage.name: other.output for other in before if other.output is not None}
    steps = {other.stage.name: other for other in before}
    now = describe_stage(step.stage, record, resolve, outputs, steps, follow_sources)
    if now.output != step.output:
        raise InputError(
            f"stage {step.stage.name}: writes {now.output} now and {step.output} when the recipe began: start it again"
        )
    return choose_action(now, record, steps) if step.action == "continue" else replace(now, reason=step.reason)


def choose_action(step: PlannedStage, record: Record | None, steps: dict[str, PlannedStage]) -> PlannedStage:
    """The stage with its action and reason."""

    def to(action: Literal["skip", "run", "continue"], reason: str) -> PlannedStage:
        return replace(step, action=action, reason=reason)

    own = record is not None and output_of(step.stage, record.dependencies.configuration)[0] == step.output
    if not own and step.output is not None and step.output.is_dir() and any(step.output.iterdir()):
        raise InputError(
            f"stage {step.stage.name}: {step.output} holds what this stage did not make, move it away or give the "
            "stage another folder"
        )
    if record is None:
        return to("run", "never run")
    if record.dependencies.fingerprint != step.dependencies.fingerprint:
        return to("run", step.dependencies.difference_from(record.dependencies))
    if record.state == "stale":
        return to("run", "to be made again")
    if again := [name for name in step.stage.needs if steps[name].action in ("run", "continue")]:
        # The same dependencies, made once more: weights may differ in their last bits, also where a stage only began.
        return to("run", f"{', '.join(again)} is made again")
    if record.state == "begun":
        return to("continue", "begun and not complete")
    if not step.is_whole:
        return to("run", f"{step.output} is gone or not whole")
    return to("skip", f"complete, {step.dependencies.fingerprint}")


def check_names(stages: list[RecipeStage], only: str | None, first: str | None) -> None:
    """Refuse names that are malformed, repeated or unknown."""
    names: list[str] = []
    for stage in stages:
        if not re.fullmatch(r"[\w-]+", stage.name) or stage.name in names:
            raise InputError(f"stage {stage.name!r}: names are letters, digits, - and _, each name once")
        if unknown := [name for name in stage.needs if name not in names]:
            raise InputError(
                f"stage {stage.name} needs {unknown[0]}: no earlier stage has that name ({', '.join(names)})"
            )
        names.append(stage.name)
    if not names:
        raise InputError("stages is empty: name at least one")
    if only and first:
        raise InputError(f"--only {only} and --from {first}: give one of them")
    for option, name in (("only", only), ("from", first)):
        if name is not None and name not in names:
            raise InputError(f"--{option} {name}: no such stage, take one of {', '.join(names)}")


def check_references(stage: RecipeStage, flat: Flat, outputs: dict[str, Path], steps: dict[str, PlannedStage]) -> None:
    """Refuse a stage that reads the output of one it does not need: it would miss that this was made again."""
    needed = set(stage.needs)
    for name in list(stage.needs):
        needed |= ancestors(name, steps)
    for key, value in flat.items():
        for name, output in outputs.items():
            if isinstance(value, str) and is_below(value, output) and name not in needed:
                raise InputError(f"stage {stage.name}: {key}={value} is made by stage {name}, add it to needs")


def ancestors(name: str, steps: dict[str, PlannedStage]) -> set[str]:
    """All stages that a stage needs, directly or not."""
    found = set(steps[name].stage.needs)
    return found.union(*(ancestors(other, steps) for other in found))


def output_of(stage: RecipeStage, flat: Flat) -> tuple[Path | None, int | None]:
    """Output that only this stage writes, and the optimizer step at which a training is complete.

    Prepared data is shared and has its own fingerprints; an evaluation writes into the folder of its run.
    """
    if stage.command == "fit":
        return Path(flat.get("trainer.default_root_dir") or "runs/default"), flat.get("trainer.max_steps")
    own = next((flat[key] for key in ("output", "folder") if flat.get(key)), None)
    return None if own is None else Path(own), None


def as_argument(value: Value) -> str:
    """Value of YAML as an argument of the command line."""
    if isinstance(value, str):
        return value
    # JSON is YAML on one line, and its special numbers are YAML's too.
    return json.dumps(value)

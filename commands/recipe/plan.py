"""Which stages of a recipe are to run, and why: a pure look, nothing is changed.

A stage is complete when its last start ended well with the ingredients it has now. One that is not, is run; one whose
ingredients changed is made anew, beside its old result, because training would only go on from there.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from commands.recipe.dependencies import WATCHING, Flat, MadeOf, files_of, flatten, is_below, sources_of
from common.errors import InputError
from common.run_folder import checkpoint_step, latest_checkpoint

Value = str | int | float | bool | list | dict | None
"""Of a configuration. Not `Any`, which the command line would make objects of."""


@dataclass
class Stage:
    """One command of a recipe.

    Args:
        name: of letters, digits, `-` and `_`.
        command: of main.py.
        config: files for `--config`, later ones over earlier ones.
        overrides: dotted names and values over those.
        needs: earlier stages whose output this one reads.
        launcher: what starts the command where more than this process is needed, such as `srun --nodes 16 ...`.
    """

    name: str
    command: str = "fit"
    config: list[str] = field(default_factory=list)
    overrides: dict[str, Value] = field(default_factory=dict)
    needs: list[str] = field(default_factory=list)
    launcher: str = ""

    @property
    def arguments(self) -> list[str]:
        """Behind `python main.py`."""
        files = [argument for file in self.config for argument in ("--config", file)]
        return [self.command, *files, *(f"--{key}={as_argument(value)}" for key, value in self.overrides.items())]


@dataclass
class Record:
    """What `recipe.json` remembers of a stage.

    Attributes:
        made_of: when it was begun.
        state: `begun`; `complete`; or `stale`, to be made anew, whatever else happens before that.
        seconds: of the starts that ended by themselves.
    """

    made_of: MadeOf
    state: Literal["begun", "complete", "stale"] = "begun"
    seconds: float = 0.0

    @classmethod
    def of(cls, stored: dict[str, Any]) -> "Record":
        """From JSON."""
        return cls(**stored | {"made_of": MadeOf(**stored["made_of"])})


@dataclass(frozen=True)
class Step:
    """A stage and what is to be done with it.

    Attributes:
        action: `skip` what is complete; `run`; `continue` what was begun; `keep` as it stands what was not asked for.
        reason: why, in words.
        output: the folder or file it makes, where it makes one of its own.
        last_step: at which a training is complete.
    """

    stage: Stage
    action: Literal["skip", "run", "continue", "keep"]
    reason: str
    made_of: MadeOf
    output: Path | None
    last_step: int | None

    @property
    def is_whole(self) -> bool:
        """Whether what the stage makes is there."""
        if self.output is None:
            return True
        if self.last_step is None:
            return self.output.exists()
        newest = latest_checkpoint(self.output)
        return newest is not None and checkpoint_step(newest) >= self.last_step


Resolve = Callable[[list[str]], tuple[dict[str, Any], list[Path]]]
"""From the arguments of main.py to the whole configuration, and the source of a command that names no classes."""


def make_plan(
    stages: list[Stage],
    records: dict[str, Record],
    resolve: Resolve,
    only: str | None = None,
    first: str | None = None,
    follow_sources: bool = True,
) -> list[Step]:
    """What to do with every stage, in order.

    Args:
        stages: of the recipe.
        records: of earlier starts.
        resolve: makes configurations.
        only: name of the single stage to look at.
        first: name of the first stage to look at; what is not looked at is taken as it stands.
        follow_sources: whether edited source makes a stage anew.

    Raises:
        InputError: for a stage that cannot be, reads what it does not need, or would write over what the recipe did
            not make.
    """
    check_names(stages, only, first)
    names = [stage.name for stage in stages]
    chosen = [only] if only else names[names.index(first) :] if first else names
    steps: dict[str, Step] = {}
    outputs: dict[str, Path] = {}
    for stage in stages:
        try:
            configuration, modules = resolve(stage.arguments)
        except InputError as error:
            raise InputError(f"stage {stage.name}: {error}") from error
        flat = {key: value for key, value in flatten(configuration).items() if not WATCHING.fullmatch(key)}
        output, last_step = output_of(stage, flat)
        if stage.command == "prepare":
            # It reads one part of a configuration that says much more.
            flat = {key: value for key, value in flat.items() if key.startswith("data.")}
        if output is not None and (twin := next((name for name, path in outputs.items() if path == output), None)):
            raise InputError(f"stages {twin} and {stage.name} both write {output}: give one of them another folder")
        check_references(stage, flat, outputs, steps)
        if output is not None:
            outputs[stage.name] = output
        record = records.get(stage.name)
        made_of = MadeOf(
            flat,
            files_of(flat, outputs.values()),
            sources_of(flat, modules) if follow_sources or record is None else record.made_of.sources,
            {name: steps[name].made_of.fingerprint for name in stage.needs},
        )
        if stage.name not in chosen:
            # Later stages build on what is there, whatever it was made of.
            made_of = record.made_of if record is not None else made_of
            step = Step(stage, "keep", "not asked for", made_of, output, last_step)
            steps[stage.name] = step
            continue
        for name in stage.needs:
            done = name in records and records[name].state == "complete" and steps[name].is_whole
            if steps[name].action == "keep" and not done:
                raise InputError(f"stage {stage.name} needs {name}, which is not complete: run that first")
        steps[stage.name] = decide(Step(stage, "run", "", made_of, output, last_step), record, steps)
    return list(steps.values())


def decide(step: Step, record: Record | None, steps: dict[str, Step]) -> Step:
    """The step with its action and reason."""

    def to(action: Literal["skip", "run", "continue"], reason: str) -> Step:
        return Step(step.stage, action, reason, step.made_of, step.output, step.last_step)

    own = record is not None and output_of(step.stage, record.made_of.configuration)[0] == step.output
    if not own and step.output is not None and step.output.is_dir() and any(step.output.iterdir()):
        raise InputError(
            f"stage {step.stage.name}: {step.output} holds what this stage did not make, move it away or give the "
            "stage another folder"
        )
    if record is None:
        return to("run", "never run")
    if record.made_of.fingerprint != step.made_of.fingerprint:
        return to("run", step.made_of.since(record.made_of))
    if record.state == "stale":
        return to("run", "to be made anew")
    if again := [name for name in step.stage.needs if steps[name].action in ("run", "continue")]:
        # The same ingredients, but made once more: weights may differ in their last bits, also for what was only begun.
        return to("run", f"{', '.join(again)} is made anew")
    if record.state == "begun":
        return to("continue", "begun and not complete")
    if not step.is_whole:
        return to("run", f"{step.output} is gone or not whole")
    return to("skip", f"complete, {step.made_of.fingerprint}")


def check_names(stages: list[Stage], only: str | None, first: str | None) -> None:
    """Refuse names that are no names, there twice, or not there."""
    names: list[str] = []
    for stage in stages:
        if not re.fullmatch(r"[\w-]+", stage.name) or stage.name in names:
            raise InputError(f"stage {stage.name!r}: names are letters, digits, - and _, each name once")
        if unknown := [name for name in stage.needs if name not in names]:
            raise InputError(
                f"stage {stage.name} needs {unknown[0]}: no stage before it is called so ({', '.join(names)})"
            )
        names.append(stage.name)
    if not names:
        raise InputError("stages is empty: name at least one")
    if only and first:
        raise InputError(f"--only {only} and --from {first}: give one of them")
    for option, name in (("only", only), ("from", first)):
        if name is not None and name not in names:
            raise InputError(f"--{option} {name}: no such stage, take one of {', '.join(names)}")


def check_references(stage: Stage, flat: Flat, outputs: dict[str, Path], steps: dict[str, Step]) -> None:
    """Refuse a stage that reads the output of one it does not need: it would not notice when that is made anew."""
    needed = set(stage.needs)
    for name in list(stage.needs):
        needed |= ancestors(name, steps)
    for key, value in flat.items():
        for name, output in outputs.items():
            if isinstance(value, str) and is_below(value, output) and name not in needed:
                raise InputError(f"stage {stage.name}: {key}={value} is made by stage {name}, add it to needs")


def ancestors(name: str, steps: dict[str, Step]) -> set[str]:
    """All stages that a stage needs, those of those too."""
    found = set(steps[name].stage.needs)
    return found.union(*(ancestors(other, steps) for other in found))


def output_of(stage: Stage, flat: Flat) -> tuple[Path | None, int | None]:
    """What a stage makes that is nobody else's, and the step at which a training is complete.

    Prepared data is shared and knows its own fingerprint; what evaluates a run writes into that run.
    """
    if stage.command == "fit":
        return Path(flat.get("trainer.default_root_dir") or "runs/default"), flat.get("trainer.max_steps")
    own = next((flat[key] for key in ("output", "folder") if flat.get(key)), None)
    return None if own is None else Path(own), None


def as_argument(value: Value) -> str:
    """A value of YAML as the command line takes it."""
    if isinstance(value, str):
        return value
    # YAML that is JSON, which needs no line for itself; what JSON has no word for is YAML's.
    return json.dumps(value)

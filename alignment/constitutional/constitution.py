"""Constitution: the principles by which a model critiques, revises and compares responses, read from YAML.

All that is asked of a model in words is in that file, so that another constitution is another file and no code;
what is fixed here is only the shape. Bai et al. 2022, "Constitutional AI: Harmlessness from AI Feedback", sections 3.1
and 4.1, appendices C and E.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import xxhash
import yaml

from common.errors import InputError

BETTER, WORSE = "{better}", "{worse}"
"""In the reasoning of a worked comparison: replaced by the letters that the two responses have where it is shown."""

Part = TypeVar("Part")


@dataclass(frozen=True)
class Principle:
    """One rule, asked for in three ways.

    Attributes:
        name: by which records and worked examples refer to it.
        critique: request to say where a response breaks it.
        revision: request to rewrite the response without that.
        comparison: question which of two responses keeps it better.
    """

    name: str
    critique: str
    revision: str
    comparison: str


@dataclass(frozen=True)
class WorkedCritique:
    """A response, its critique and its revision, shown before the one that is asked for.

    Attributes:
        principle: name of the one it is about.
        prompt, response, critique, revision: what was said in turn; the requests are the principle's.
    """

    principle: str
    prompt: str
    response: str
    critique: str
    revision: str


@dataclass(frozen=True)
class WorkedComparison:
    """Two responses and which is better, shown before the ones that are asked about.

    Attributes:
        principle: name of the one it is about.
        prompt: what both respond to.
        better, worse: the responses.
        reasoning: why, shown where a chain of thought is asked for; names the responses `{better}` and `{worse}`.
    """

    principle: str
    prompt: str
    better: str
    worse: str
    reasoning: str


@dataclass(frozen=True)
class Constitution:
    """Principles and worked examples.

    Attributes:
        principles: at least one.
        critiques, comparisons: worked examples; there may be none.
    """

    principles: tuple[Principle, ...]
    critiques: tuple[WorkedCritique, ...] = ()
    comparisons: tuple[WorkedComparison, ...] = ()

    def __getitem__(self, name: str) -> Principle:
        """A principle by its name."""
        return next(principle for principle in self.principles if principle.name == name)

    def draw(self, seed: int, sample: int, purpose: str, count: int = 1) -> list[Principle]:
        """Different principles for a sample, by a hash of (seed, sample, purpose): the same in each call."""

        def place(principle: Principle) -> int:
            return xxhash.xxh3_64_intdigest(f"{sample}/{purpose}/{principle.name}".encode(), seed=seed)

        return sorted(self.principles, key=place)[:count]

    def with_examples(self, max_examples: int | None) -> "Constitution":
        """Constitution with at most `max_examples` worked examples of each kind."""
        return replace(self, critiques=self.critiques[:max_examples], comparisons=self.comparisons[:max_examples])


def read_constitution(path: str | Path) -> Constitution:
    """The constitution of a YAML file with `principles`, and `critiques` and `comparisons` if there are any.

    Raises:
        InputError: naming the entry and the key that is missing, unknown, empty or no text.
    """
    path = Path(path)
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"constitution={path} cannot be read ({error.strerror}): name a YAML file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"constitution={path} is not valid UTF-8 ({error.reason}): re-save it as UTF-8") from error
    except yaml.YAMLError as error:
        raise InputError(f"constitution={path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(loaded, dict):
        raise InputError(f"constitution={path}: must be a mapping with `principles`, see configs/constitution")
    known = [field.name for field in fields(Constitution)]
    if unknown := sorted(map(str, loaded.keys() - set(known))):
        raise InputError(f"constitution={path}: unknown key {unknown[0]!r}, known are {', '.join(known)}")
    principles = _parts(path, "principles", loaded, Principle)
    if not principles:
        raise InputError(f"constitution={path}: `principles` is missing or empty, give at least one")
    names = [principle.name for principle in principles]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"constitution={path}: two principles are called {repeated[0]!r}, rename one")
    critiques = _parts(path, "critiques", loaded, WorkedCritique)
    comparisons = _parts(path, "comparisons", loaded, WorkedComparison)
    for kind, examples in (("critiques", critiques), ("comparisons", comparisons)):
        for number, about in enumerate(example.principle for example in examples):
            if about not in names:
                raise InputError(
                    f"constitution={path}: {kind}[{number}] is about principle {about!r}, which is none of "
                    f"{', '.join(names)}"
                )
    for number, comparison in enumerate(comparisons):
        if BETTER not in comparison.reasoning or WORSE not in comparison.reasoning:
            raise InputError(
                f"constitution={path}: comparisons[{number}].reasoning must name the responses {BETTER} and {WORSE}, "
                "letters would be wrong in swapped order"
            )
    return Constitution(principles, critiques, comparisons)


def _parts(path: Path, key: str, loaded: Mapping[str, Any], kind: type[Part]) -> tuple[Part, ...]:
    """The entries of a list, each with exactly the keys of its kind, all of them text."""
    listed = loaded.get(key)
    if listed is None:
        return ()
    if not isinstance(listed, list):
        raise InputError(f"constitution={path}: `{key}` must be a list")
    wanted = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    parts = []
    for number, entry in enumerate(listed):
        where = f"constitution={path}: {key}[{number}]"
        if not isinstance(entry, dict):
            raise InputError(f"{where} must be a mapping with {', '.join(wanted)}")
        for problem, names in (
            ("lacks", set(wanted) - entry.keys()),
            ("has an unknown key", entry.keys() - set(wanted)),
        ):
            if names:
                raise InputError(f"{where} {problem} {min(map(str, names))!r}: it needs {', '.join(wanted)}")
        for name in wanted:
            if not isinstance(entry[name], str) or not entry[name].strip():
                raise InputError(f"{where}.{name}={entry[name]!r}: must be text that is not empty")
        parts.append(kind(**{name: entry[name].strip() for name in wanted}))
    return tuple(parts)

"""Synthetic tasks: generated rows with known right answers, for models of a million parameters and up.

A small model that has read Python knows brackets, digits and names; these rows need nothing else. Every prompt
is there once, so that validation prompts are never trained on. As the answer is exact, what a learned reward gets
wrong can be counted.
"""

from abc import abstractmethod
from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

from common.errors import InputError
from datamodules.conversations.rows import Row, Rows

ATTEMPTS = 1000
"""Draws in a row that only repeat earlier prompts, after which there are no more."""


class Task(NamedTuple):
    """One question."""

    prompt: str
    answer: str
    wrong: str
    """An answer that is wrong by little."""
    group: str


class TaskRows(Rows):
    """Different generated prompts, as rows of instructions (`response`), of preferences (`chosen`, `rejected`, which is
    wrong by little) and of prompts (`answer`, to be checked against). `group` never parts between training and
    validation. Answers begin with a space, as they continue their prompt; `answer` has none.

    Args:
        count: rows.
        seed: of all of them; the first rows of a larger count are those of a smaller one.

    Raises:
        InputError: for no rows; while they are made, when there are fewer different prompts.
    """

    def __init__(self, count: int, seed: int) -> None:
        if count < 1:
            raise InputError(f"count={count}: must be at least 1")
        self.count, self.seed = count, seed

    @abstractmethod
    def draw(self, random: Random) -> Task:
        """Any one."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Settings that `draw` depends on."""

    def draw_all(self) -> Iterator[Task]:
        """Different ones, as many as `count`."""
        random = Random(f"{type(self).__name__}/{self.seed}")
        seen: set[str] = set()
        while len(seen) < self.count:
            for _ in range(ATTEMPTS):
                task = self.draw(random)
                if task.prompt not in seen:
                    break
            else:
                raise InputError(
                    f"count={self.count}: these settings give hardly more than {len(seen)} different prompts, take "
                    "fewer or make them more difficult"
                )
            seen.add(task.prompt)
            yield task

    def rows(self) -> Iterator[Row | str]:
        """The rows, in the order they are drawn."""
        for task in self.draw_all():
            right, wrong = f" {task.answer}", f" {task.wrong}"
            yield {
                "prompt": task.prompt,
                "response": right,
                "chosen": right,
                "rejected": wrong,
                "answer": task.answer,
                "group": task.group,
            }

    def identity(self) -> Any:
        """The settings: nothing is read."""
        return [type(self).__name__, self.count, self.seed, self.settings()]


class BracketRows(TaskRows):
    """Close what is open: `( [ a { b } <` has the answer `> ] )`.

    Args:
        count: rows.
        depth: brackets left open at the end, from and to.
        kinds: of brackets: 1 is ( ), 2 adds [ ], 3 adds { }, 4 adds < >.
        closed: probability before each of those that another one is opened and closed again.
        noise: probability before each of those of a letter that means nothing.
        seed: of the rows.

    Raises:
        InputError: for numbers that make no brackets.
    """

    BRACKETS = ("()", "[]", "{}", "<>")

    def __init__(
        self,
        count: int = 4000,
        depth: tuple[int, int] = (2, 8),
        kinds: int = 4,
        closed: float = 0.2,
        noise: float = 0.2,
        seed: int = 0,
    ) -> None:
        super().__init__(count, seed)
        if not 1 <= depth[0] <= depth[1] or not 1 <= kinds <= len(self.BRACKETS):
            raise InputError(f"depth={depth}, kinds={kinds}: need 1 <= from <= to, and 1 to {len(self.BRACKETS)} kinds")
        if not 0 <= closed < 1 or not 0 <= noise < 1:
            raise InputError(f"closed={closed}, noise={noise}: must be probabilities below 1")
        self.depth, self.kinds, self.closed, self.noise = depth, kinds, closed, noise

    def draw(self, random: Random) -> Task:
        """A string of brackets and what closes it; wrong is one bracket of another kind, missing, or there twice."""
        said: list[str] = []
        closing: list[str] = []
        for _ in range(random.randint(*self.depth)):
            while random.random() < self.closed:
                said += random.choice(self.BRACKETS[: self.kinds])
            if random.random() < self.noise:
                said.append(random.choice("abcdefghijklmnopqrstuvwxyz"))
            pair = random.choice(self.BRACKETS[: self.kinds])
            said.append(pair[0])
            closing.insert(0, pair[1])
        place = random.randrange(len(closing))
        others = [pair[1] for pair in self.BRACKETS[: self.kinds] if pair[1] != closing[place]]
        spoiled = [[closing[place]] * 2, *([other] for other in others), *([[]] if len(closing) > 1 else [])]
        wrong = [*closing[:place], *random.choice(spoiled), *closing[place + 1 :]]
        prompt = " ".join(said)
        return Task(f"{prompt} =>", " ".join(closing), " ".join(wrong), prompt)

    def settings(self) -> dict[str, Any]:
        """Difficulty."""
        return {"depth": list(self.depth), "kinds": self.kinds, "closed": self.closed, "noise": self.noise}


class ArithmeticRows(TaskRows):
    """Whole numbers: `17 + 5 =` has the answer `22`. The two orders of a sum or product are one group.

    Args:
        count: rows.
        largest: operand; the smallest is 0.
        operators: of + - *.
        seed: of the rows.

    Raises:
        InputError: for no operators or others, or no operands.
    """

    def __init__(self, count: int = 2000, largest: int = 99, operators: str = "+-", seed: int = 0) -> None:
        super().__init__(count, seed)
        if not operators or set(operators) - set("+-*") or largest < 1:
            raise InputError(f"operators={operators}, largest={largest}: need some of + - *, and at least 1")
        self.largest, self.operators = largest, operators

    def draw(self, random: Random) -> Task:
        """A problem and its result; wrong is off by at most 10."""
        operator = random.choice(self.operators)
        a, b = random.randint(0, self.largest), random.randint(0, self.largest)
        result = {"+": a + b, "-": a - b, "*": a * b}[operator]
        first, second = (a, b) if operator == "-" else sorted((a, b))
        wrong = result + random.choice((-10, -2, -1, 1, 2, 10))
        return Task(f"{a} {operator} {b} =", str(result), str(wrong), f"{first} {operator} {second}")

    def settings(self) -> dict[str, Any]:
        """Difficulty."""
        return {"largest": self.largest, "operators": self.operators}


class ArgumentRows(TaskRows):
    """Name an argument of a function: `def send(name, size, mode):` and `# argument 2:` have the answer `size`. All
    questions about one signature are one group.

    Args:
        count: rows.
        arguments: of a function, from and to.
        seed: of the rows.

    Raises:
        InputError: for no arguments, or more than there are names.
    """

    VERBS = ("add", "build", "check", "find", "get", "load", "make", "read", "save", "send", "set", "update", "write")
    NAMES = (
        "args", "axis", "base", "block", "bytes", "cache", "code", "color", "count", "data", "default", "dtype", "end",
        "event", "file", "flag", "format", "func", "group", "index", "item", "key", "label", "length", "level", "line",
        "mask", "mode", "model", "module", "name", "node", "number", "object", "option", "order", "other", "output",
        "parent", "path", "pattern", "prefix", "quiet", "result", "root", "scale", "shape", "size", "source", "start",
        "state", "step", "text", "time", "token", "type", "url", "user", "value", "width", "x", "y",
    )  # fmt: skip

    def __init__(self, count: int = 4000, arguments: tuple[int, int] = (2, 6), seed: int = 0) -> None:
        super().__init__(count, seed)
        if not 1 <= arguments[0] <= arguments[1] <= len(self.NAMES):
            raise InputError(f"arguments={arguments}: need 1 <= from <= to <= {len(self.NAMES)}")
        self.arguments = arguments

    def draw(self, random: Random) -> Task:
        """A signature, a number, and that argument's name; wrong is another's, if there is another."""
        names = random.sample(self.NAMES, random.randint(*self.arguments))
        function = "_".join((random.choice(self.VERBS), random.choice(self.NAMES)))
        signature = f"def {function}({', '.join(names)}):"
        number = random.randrange(len(names))
        others = [name for name in (names if len(names) > 1 else self.NAMES) if name != names[number]]
        return Task(f"{signature}\n    # argument {number + 1}:", names[number], random.choice(others), signature)

    def settings(self) -> dict[str, Any]:
        """Difficulty."""
        return {"arguments": list(self.arguments)}

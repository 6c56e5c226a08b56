"""Generated program: runs as the main module, or stays to be called by its tests.

The module that a program's names are in is a real one, which `sys.modules` has under its name, because dataclasses,
pickle, doctest and unittest look there. Nothing that a test expects is ever in this process.
"""

import atexit
import builtins
import copy
import importlib
import operator
import os
import sys
import types
from collections.abc import Callable
from typing import Any, NoReturn

from alignment.rewards.sandbox.peer import Channel, Peer, PeerEndedError
from alignment.rewards.sandbox.values import JSON, Decoder

SOLUTION = "solution"
"""Name of the module of a program that tests call."""
BINARY = (
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "add",
    "sub",
    "mul",
    "matmul",
    "truediv",
    "floordiv",
    "mod",
    "and_",
    "or_",
    "pow",
)
SIGNS, SCALING = ("neg", "pos", "invert"), ("mul", "truediv")
"""Operations on an object of the program alone, and with a plain value."""
OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": lambda own, *arguments, **named: own(*arguments, **named),
    "getattr": getattr,
    "setattr": setattr,
    "isinstance": lambda own, value: isinstance(value, own),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "enter": lambda own: own.__enter__(),
    "exit": lambda own, *arguments: own.__exit__(*arguments),
    **{f"r{name}": lambda own, other, by=getattr(operator, name): by(other, own) for name in SCALING},
    **{name: getattr(operator, name) for name in SIGNS},
    **{name: getattr(builtins, name) for name in ("len", "str", "repr", "bool", "hash", "iter", "next", "reversed")},
    **{name: getattr(operator, name) for name in (*BINARY, "getitem", "setitem", "delitem", "contains")},
}
"""What tests may ask of a program, by name."""


def new_module(name: str) -> types.ModuleType:
    """An empty module that is there to be imported."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    return module


def run_as_main(source: str) -> NoReturn:
    """Run a program alone, and end this process as Python would."""
    module = new_module("__main__")
    status = 0
    try:
        exec(compile(source, "<program>", "exec"), module.__dict__)
    except SystemExit as error:
        status = exit_status(error.code)
    except BaseException as error:
        status = 1
        # What is below the program's own frames is ours.
        trace = error.__traceback__.tb_next if error.__traceback__ else None
        sys.excepthook(type(error), error.with_traceback(trace), trace)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            status = status or 120
    os._exit(status)


def exit_status(code: object) -> int:
    """Exit status of `SystemExit(code)`; a text is printed."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


class ProgramPeer(Peer):
    """The program's end: lends any object, takes what tests hand over.

    Args:
        channel: to the tests.
        module: the program's.
    """

    def __init__(self, channel: Channel, module: types.ModuleType) -> None:
        super().__init__(channel, OPERATIONS | {"global": lambda name: getattr(module, name)})
        self.tests_functions: dict[int, int] = {}
        self.kept: list[Any] = []

    def describe(self, value: Any) -> JSON:
        """A function of the tests by their number, anything else by a number of its own."""
        if id(value) in self.tests_functions:
            return ["yours", self.tests_functions[id(value)]]
        return ["mine", self.lend(value)]

    def understand(self, kind: str, content: JSON) -> Any:
        """An own object, a function of Python, or a function of the tests."""
        if kind == "yours":
            return self.lent[content]
        if kind == "iterator":
            return iter(Decoder(self._object).decode(content))
        if kind == "python":
            return getattr(importlib.import_module(content[0]), content[1])

        def function(*arguments: Any, **named: Any) -> Any:
            return self.ask("call", content, *arguments, **named)

        self.tests_functions[id(function)] = content
        self.kept.append(function)
        return function


def _origin(name: str, value: Any) -> JSON:
    """What a name means in Python: see `statements.SolutionModule`."""
    if isinstance(value, types.ModuleType):
        return value.__name__
    if name in sys.stdlib_module_names and vars(sys.modules.get(name, sys)).get(name) is value:
        return [name]
    return None


def serve(source: str, reading: int, writing: int) -> NoReturn:
    """Run a program, tell the tests which names it defined, and do what they ask until they are through."""
    module = new_module(SOLUTION)
    sys.modules["__main__"] = module
    peer = ProgramPeer(Channel(reading, writing), module)
    exec(compile(source, "<program>", "exec"), module.__dict__)
    try:
        peer.channel.send({name: _origin(name, value) for name, value in module.__dict__.items()})
        while True:
            sys.stdout.flush()
            peer.channel.send(peer.answer(*peer.channel.receive()[1:]))
    except PeerEndedError:
        os._exit(0)

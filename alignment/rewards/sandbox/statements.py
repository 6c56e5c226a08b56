"""Statement tests, run in a process of their own beside the generated program's.

A name of the program is an object here that has it called over there. What comes back is built again from plain values,
so that no comparison asks the program: it cannot change what the tests call, equal everything, read what they expect,
or say that they have passed. The price is that an object of one of the program's classes can do here only what is
written below, and that tests cannot hand over objects of classes of their own.
"""

import builtins
import importlib
import os
import symtable
import sys
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from alignment.rewards.sandbox.peer import Channel, Peer, PeerEndedError
from alignment.rewards.sandbox.program import BINARY, SOLUTION, exit_status, new_module
from alignment.rewards.sandbox.values import JSON

UNARY = ("len", "str", "repr", "bool", "hash", "iter", "next", "reversed")
COMPARISONS = BINARY[:6]


class ProgramObject:
    """An object that stays in the program: a function, a class, an object of one.

    It equals no plain value, is not compared with any, and becomes no number: whatever the program would answer, the
    tests would be asking it for its own mark. Two of its objects are compared by the program.
    """

    def __init__(self, peer: "TestsPeer", number: int) -> None:
        object.__setattr__(self, "_peer", peer)
        object.__setattr__(self, "_number", number)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._peer.ask("call", self._number, *arguments, **named)

    def __getattr__(self, name: str) -> Any:
        # Names with underscores are how Python and NumPy ask what an object is, down to the address of its memory.
        if name.startswith("_"):
            raise AttributeError(name)
        return self._peer.ask("getattr", self._number, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._peer.ask("setattr", self._number, name, value)

    def __getitem__(self, key: Any) -> Any:
        return self._peer.ask("getitem", self._number, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._peer.ask("setitem", self._number, key, value)

    def __delitem__(self, key: Any) -> None:
        self._peer.ask("delitem", self._number, key)

    def __instancecheck__(self, value: Any) -> bool:
        return isinstance(value, ProgramObject) and self._peer.ask("isinstance", self._number, value) is True

    def __copy__(self) -> Any:
        return self._peer.ask("copy", self._number)

    def __deepcopy__(self, _: object) -> Any:
        return self._peer.ask("deepcopy", self._number)

    def __enter__(self) -> Any:
        return self._peer.ask("enter", self._number)

    def __exit__(self, *error: Any) -> None:
        self._peer.ask("exit", self._number, None, None, None)


def _unary(name: str) -> Callable[[ProgramObject], Any]:
    return lambda self: self._peer.ask(name, self._number)


def _binary(name: str) -> Callable[[ProgramObject, Any], Any]:
    def method(self: ProgramObject, other: Any) -> Any:
        if not isinstance(other, ProgramObject):
            return NotImplemented
        result = self._peer.ask(name, self._number, other)
        return result is True if name in COMPARISONS else result

    return method


for _name in UNARY:
    setattr(ProgramObject, f"__{_name}__", _unary(_name))
for _name in BINARY:
    setattr(ProgramObject, f"__{_name.rstrip('_')}__", _binary(_name))


class TestsPeer(Peer):
    """The tests' end: lends functions to be called, takes plain values and the program's objects.

    Args:
        channel: to the program.
    """

    __test__ = False

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel, {"call": lambda own, *arguments, **named: own(*arguments, **named)})
        self.objects: dict[int, ProgramObject] = {}

    def describe(self, value: Any) -> JSON:
        """The program's object by its number there, one of Python by its name, a function of the tests by a number."""
        if type(value) is ProgramObject:
            return ["yours", value._number]
        module, name = getattr(value, "__module__", None), getattr(value, "__name__", None)
        if _is_standard(module) and getattr(sys.modules.get(module), str(name), None) is value:
            return ["python", [module, name]]
        if isinstance(value, types.FunctionType | types.MethodType | types.BuiltinFunctionType):
            return ["mine", self.lend(value)]
        raise TypeError(f"tests cannot hand a {type(value).__name__} to the program, which runs in another process")

    def understand(self, kind: str, content: JSON) -> Any:
        """A function that was handed over, or an object of the program."""
        if kind == "yours":
            return self.lent[content]
        if kind != "mine" or not isinstance(content, int):
            raise TypeError(f"{kind} {content}")
        return self.objects.setdefault(content, ProgramObject(self, content))


def _is_standard(module: object) -> TypeGuard[str]:
    """Whether this is the name of a module that comes with Python."""
    return isinstance(module, str) and module.split(".")[0] in sys.stdlib_module_names


class SolutionModule(types.ModuleType):
    """The program as a module, so that tests can also import it: `from solution import add`.

    Args:
        peer: the tests' end.
        names: names that the program defined, with the name of the module of Python that each is, or null.
        modules: modules that it may be.
    """

    def __init__(self, peer: TestsPeer, names: Mapping[str, str | None], modules: Collection[str]) -> None:
        super().__init__(SOLUTION)
        self.__all__ = [name for name in names if not name.startswith("_") and not hasattr(builtins, name)]

        def get(name: str) -> Any:
            if name not in names:
                raise AttributeError(f"the program has no {name!r}")
            if (module := names[name]) is None:
                return peer.ask("global", name)
            if module.split(".")[0] not in modules:
                raise AttributeError(f"{name!r} is not a module of Python")
            return importlib.import_module(module)

        vars(self)["__getattr__"] = get


def run_tests(tests: Sequence[str], modules: Collection[str], reading: int, writing: int, report: int) -> None:
    """Run each test once the program has run, and report the number of each that raised nothing.

    Args:
        tests: statements, one or more a text, each in what the ones before it defined.
        modules: names of the modules that the program's names may mean, beside Python's own.
        reading, writing: descriptors of the channel to the program.
        report: descriptor for the numbers.
    """
    channel = Channel(reading, writing)
    try:
        names = channel.receive()
    except PeerEndedError:
        return
    solution = SolutionModule(TestsPeer(channel), names, {*sys.stdlib_module_names, *modules})
    sys.modules[SOLUTION] = solution
    namespace = new_module("__main__").__dict__
    taken: dict[str, Any] = {}
    for number, (test, asked) in enumerate(zip(tests, asked_names(tests), strict=True)):
        try:
            for name in asked & names.keys():
                # What the tests assigned since is theirs.
                if name not in namespace or namespace[name] is taken.get(name, namespace):
                    namespace[name] = taken[name] = getattr(solution, name)
            exec(compile(test, f"<test {number}>", "exec"), namespace)
        except SystemExit as end:  # as unittest.main() does
            if exit_status(end.code):
                continue
        except BaseException:
            continue
        os.write(report, f"{number}\n".encode())


def asked_names(tests: Sequence[str]) -> list[set[str]]:
    """Names that each test takes from the program: neither assigned by it or a test before, nor Python's own.

    A program may have to define a function called `sum`, tested by `assert sum(1, 2) == 3`; it may just as well define
    an `all` that passes every test. So Python's own names are the program's only where no test asks for any other name,
    and then only those that every test has.
    """
    assigned: set[str] = set()
    asked: list[set[str]] = []
    for test in tests:
        symbols = list(_global_symbols(test))
        assigned |= {each.get_name() for each in symbols if each.is_assigned() or each.is_imported()}
        asked.append({each.get_name() for each in symbols if each.is_referenced()} - assigned)
    own = [{name for name in names if not hasattr(builtins, name)} for names in asked]
    return own if any(own) or not asked else [set.intersection(*asked)] * len(asked)


def _global_symbols(test: str) -> Iterator[symtable.Symbol]:
    """Symbols of the module in all scopes of a test; none of one that is no Python, which fails when it is run."""
    try:
        tables = [symtable.symtable(test, "<test>", "exec")]
    except (SyntaxError, ValueError):
        return
    while tables:
        table = tables.pop()
        tables += table.get_children()
        yield from (symbol for symbol in table.get_symbols() if symbol.is_global())

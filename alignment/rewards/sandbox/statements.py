"""Statement tests, run in a process of their own beside the generated program's.

A name of the program is an object here that has it called over there. What comes back is built again from plain values,
so that no comparison asks the program: it cannot change what the tests call, equal everything, read what they expect,
or say that they have passed. The price is that an object of one of the program's classes can do here only what is
written below, and that tests cannot hand over objects of classes of their own.
"""

import builtins
import importlib
import itertools
import os
import symtable
import sys
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from alignment.rewards.sandbox.peer import Channel, Peer, PeerEndedError
from alignment.rewards.sandbox.program import BINARY, SCALING, SIGNS, SOLUTION, exit_status, new_module
from alignment.rewards.sandbox.values import JSON, Encoder

UNARY = ("len", "str", "repr", "bool", "hash", "iter", "next", "reversed")
MAX_ITEMS = 100_000
"""Items of an iterator that tests hand over, which is read to its end first."""
COMPARISONS = BINARY[:6]
ALIASES = {"np": "numpy", "pd": "pandas", "sp": "scipy", "nx": "networkx", "plt": "matplotlib.pyplot"}
"""Names that everyone gives packages, also where a test forgot the import."""


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


def _within(name: str) -> Callable[..., Any]:
    """A negation, or a product or quotient with a plain value: an object of the program again, never a number."""

    def method(self: ProgramObject, *other: Any) -> Any:
        result = self._peer.ask(name, self._number, *other)
        if not isinstance(result, ProgramObject) and not any(isinstance(each, ProgramObject) for each in other):
            raise TypeError(f"{name} of an object of the program is none")
        return result

    return method


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
for _name in (*SIGNS, *SCALING, *(f"r{name}" for name in SCALING)):
    setattr(ProgramObject, f"__{_name}__", _within(_name))


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
        if isinstance(value, Iterator) and len(items := list(itertools.islice(value, MAX_ITEMS + 1))) <= MAX_ITEMS:
            return ["iterator", Encoder(self.describe).encode(items)]
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

    `from solution import *` gives no name that the tests have already, and none of Python's own.

    Args:
        peer: the tests' end.
        names: names that the program defined, with what each is: the name of a module, one in a list where it is the
            object of its own name in the module of that name (`datetime`, `copy`), or null.
        packages: what may be imported beside Python's own modules.
        namespace: of the tests.
    """

    def __init__(
        self, peer: TestsPeer, names: Mapping[str, JSON], packages: Collection[str], namespace: dict[str, Any]
    ) -> None:
        super().__init__(SOLUTION)
        self._peer, self._names, self._namespace = peer, names, namespace
        self._modules = {*sys.stdlib_module_names, *packages}
        self._taken: dict[str, Any] = {}
        vars(self)["__getattr__"] = self._get

    def bind(self, asked: Collection[str], mentioned: Collection[str]) -> None:
        """Give the tests names of the program.

        Args:
            asked: names that may be anything.
            mentioned: names of Python's own modules and of packages, which are given where the program has imported
                them, and are never an object of its own.
        """
        for name in self._names:
            if not self._is_theirs(name) and (name in asked or (name in mentioned and self._is_real(name))):
                self._namespace[name] = self._taken[name] = self._get(name)

    def _is_theirs(self, name: str) -> bool:
        """Whether a name is one that the tests gave a value."""
        return name in self._namespace and self._namespace[name] is not self._taken.get(name, self._namespace)

    def _is_real(self, name: str) -> bool:
        """Whether a name of a module is that module, or the object of the same name in it."""
        return self._names[name] in (ALIASES.get(name, name), [name])

    def _get(self, name: str) -> Any:
        if name == "__all__":
            return [each for each in self._names if self._is_public(each)]
        if name not in self._names:
            raise AttributeError(f"the program has no {name!r}")
        if (module := self._names[name]) is None:
            return self._peer.ask("global", name)
        if isinstance(module, list):
            return getattr(self._imported(name), name)
        return self._imported(module)

    def _is_public(self, name: str) -> bool:
        if name.startswith("_") or self._is_theirs(name) or hasattr(builtins, name):
            return False
        return self._is_real(name) or not is_reserved(name, self._modules)

    def _imported(self, module: JSON) -> types.ModuleType:
        """A module of Python or of a package; some do work when they are imported, or end the process."""
        parts = module.split(".") if isinstance(module, str) else []
        if not parts or parts[0] not in self._modules or "__main__" in parts:
            raise AttributeError(f"{module!r} is not a module that tests may have of a program")
        try:
            return importlib.import_module(module)
        except BaseException as error:
            raise AttributeError(f"{module!r} cannot be imported: {error!r}") from None


def is_reserved(name: str, modules: Collection[str]) -> bool:
    """Whether a name means something of Python's own: a built-in, a module, or what everyone calls a package."""
    return hasattr(builtins, name) or name in modules or name in ALIASES


def run_tests(tests: Sequence[str], packages: Collection[str], reading: int, writing: int, report: int) -> None:
    """Run each test once the program has run, and report the number of each that raised nothing.

    Args:
        tests: statements, one or more a text, each in what the ones before it defined.
        packages: names of the packages that the program's names may mean, beside Python's own modules.
        reading, writing: descriptors of the channel to the program.
        report: descriptor for the numbers.
    """
    channel = Channel(reading, writing)
    try:
        names = channel.receive()
    except PeerEndedError:
        return
    namespace = new_module("__main__").__dict__
    solution = SolutionModule(TestsPeer(channel), names, packages, namespace)
    sys.modules[SOLUTION] = solution
    mentioned, asked = mentioned_names(tests), asked_names(tests, packages)
    for number, test in enumerate(tests):
        try:
            solution.bind(asked[number], mentioned[number])
        except BaseException:
            continue
        try:
            exec(compile(test, f"<test {number}>", "exec"), namespace)
        except SystemExit as end:  # as unittest.main() does
            if exit_status(end.code):
                continue
        except BaseException:
            continue
        os.write(report, f"{number}\n".encode())


def mentioned_names(tests: Sequence[str]) -> list[set[str]]:
    """Names that each test refers to and neither it nor a test before assigns."""
    assigned: set[str] = set()
    mentioned: list[set[str]] = []
    for test in tests:
        symbols = list(_global_symbols(test))
        assigned |= {each.get_name() for each in symbols if each.is_assigned() or each.is_imported()}
        mentioned.append({each.get_name() for each in symbols if each.is_referenced()} - assigned)
    return mentioned


def asked_names(tests: Sequence[str], packages: Collection[str] = ()) -> list[set[str]]:
    """Names that each test takes from the program: neither assigned by it or a test before, nor Python's own.

    A program may have to define a function called `sum` or `select`, tested by `assert sum(1, 2) == 3`; it may just as
    well define an `all`, or a `math`, that passes every test. So names of built-ins and of modules are the program's
    only where no test asks for any other name, and then only those that every test has.
    """
    modules = {*sys.stdlib_module_names, *packages}
    mentioned = mentioned_names(tests)
    own = [{name for name in names if not is_reserved(name, modules)} for names in mentioned]
    return own if any(own) or not mentioned else [set.intersection(*mentioned)] * len(mentioned)


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

"""Plain values as JSON: the values exchanged between a generated program and its tests.

A program must not reach into the process of its tests, so no object crosses with its class: numbers, text and
containers are written out and built again from Python's own types, everything else stays where it is and is named by a
number. Pickle would carry more, and run whatever its sender wants.

What can be changed (lists, dictionaries, sets) is numbered in the order in which it is met, so that one that is there
twice is one on the other side too, and so that changes to it can be sent back.
"""

import base64
import sys
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

JSON = Any
EXACT_INTEGERS = 2**53
"""From here on integers are written in hexadecimal, which has no limit of digits."""
MUTABLE: dict[type, str] = {
    list: "list", dict: "dict", set: "set", deque: "deque", bytearray: "bytearray",
    Counter: "Counter", OrderedDict: "OrderedDict", defaultdict: "defaultdict",
}  # fmt: skip
"""Types whose values can change, and what they are sent as."""
EMPTY: dict[str, type] = {name: kind for kind, name in MUTABLE.items()}
FACTORIES: dict[str, type] = {kind.__name__: kind for kind in (int, float, str, bool, list, dict, set, tuple)}
"""Factories with which a `defaultdict` is sent; one with another comes without."""
TEXT: dict[type, Callable[[Any], str]] = {
    Decimal: str, datetime: datetime.isoformat, date: date.isoformat, time: time.isoformat,
}  # fmt: skip
FROM_TEXT: dict[str, Callable[[str], Any]] = {
    "Decimal": Decimal, "datetime": datetime.fromisoformat, "date": date.fromisoformat, "time": time.fromisoformat,
}  # fmt: skip
PLAIN: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (int, int.__pos__), (float, float.__pos__), (str, str.__str__),
    (Fraction, lambda value: Fraction(value.numerator, value.denominator)),
)  # fmt: skip
"""Types to take a value of a class derived from them for, and how."""
VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
FROM_ITEMS: dict[str, Callable[[list[Any]], Any]] = {
    "dict_keys": lambda items: dict.fromkeys(items).keys(),
    "dict_values": lambda items: dict(enumerate(items)).values(),
    "dict_items": lambda items: dict(items).items(),
}
ARRAY_KINDS = "biufcSU"
"""Kinds of NumPy's types whose bytes are plain."""


class Encoder:
    """Values to JSON.

    Args:
        reference: how what is no plain value is named.
        mutable: values that the other side knows already, in its order.
    """

    def __init__(self, reference: Callable[[Any], JSON], mutable: Iterable[Any] = ()) -> None:
        self.reference = reference
        self.mutable = list(mutable)
        self.numbers = {id(value): number for number, value in enumerate(self.mutable)}

    def encode(self, value: Any) -> JSON:
        """A value: itself where JSON has it, else a list of a kind and what it is made of."""
        kind = type(value)
        if value is None or kind is bool or kind is str or kind is float:
            return value
        if kind is int:
            return value if abs(value) < EXACT_INTEGERS else ["int", hex(value)]
        if kind in MUTABLE:
            if id(value) in self.numbers:
                return ["same", self.numbers[id(value)]]
            self.numbers[id(value)] = len(self.mutable)
            self.mutable.append(value)
            if kind is defaultdict and value.default_factory in FACTORIES.values():
                return [f"defaultdict {value.default_factory.__name__}", self.content(value)]
            return [MUTABLE[kind], self.content(value)]
        if kind in (tuple, frozenset):
            return [kind.__name__, [self.encode(each) for each in value]]
        if kind in TEXT:
            return [kind.__name__, TEXT[kind](value)]
        return self._rare(value, kind)

    def content(self, value: Any) -> JSON:
        """What is in a value that can change."""
        if isinstance(value, bytearray):
            return bytes(value).hex()
        if isinstance(value, dict):
            return [[self.encode(key), self.encode(each)] for key, each in value.items()]
        return [self.encode(each) for each in value]

    def _rare(self, value: Any, kind: type) -> JSON:
        if kind is bytes:
            return ["bytes", value.hex()]
        if kind is complex:
            return ["complex", [value.real, value.imag]]
        if kind is Fraction:
            return ["Fraction", [hex(value.numerator), hex(value.denominator)]]
        if kind is range:
            return ["range", [self.encode(each) for each in (value.start, value.stop, value.step)]]
        if kind is timedelta:
            return ["timedelta", [value.days, value.seconds, value.microseconds]]
        if kind in VIEWS:
            return [kind.__name__, [self.encode(each) for each in value]]
        fields = getattr(value, "_fields", None)
        if isinstance(value, tuple) and isinstance(fields, tuple):
            return ["namedtuple", [kind.__name__, list(fields), [self.encode(each) for each in value]]]
        # Numbers and text of a class of one's own, as of an IntEnum: the number and the text.
        for base, plain in PLAIN:
            if isinstance(value, base):
                return self.encode(plain(value))
        numpy = sys.modules.get("numpy")
        is_array = numpy is not None and isinstance(value, numpy.ndarray | numpy.generic)
        if numpy is not None and is_array and value.dtype.kind in ARRAY_KINDS:
            content = base64.b64encode(value.tobytes()).decode()
            return ["array", [value.dtype.str, list(value.shape), content, isinstance(value, numpy.generic)]]
        return self.reference(value)


class Decoder:
    """JSON to values.

    Args:
        referent: what a name of `Encoder.reference` means here.
        mutable: values that both sides know already, in the same order.
    """

    def __init__(self, referent: Callable[[JSON], Any], mutable: Iterable[Any] = ()) -> None:
        self.referent = referent
        self.mutable = list(mutable)

    def decode(self, message: JSON) -> Any:
        """A value of exactly the type that it was, or that it counts as.

        Raises:
            Exception: of any kind, for what no encoder wrote.
        """
        if not isinstance(message, list):
            return message
        kind, content = message
        if kind == "same":
            return self.mutable[content]
        dictionary, _, factory = kind.partition(" ")
        if kind in EMPTY or (dictionary == "defaultdict" and factory in FACTORIES):
            value = defaultdict(FACTORIES[factory]) if factory else EMPTY[kind]()
            self.mutable.append(value)
            self.fill(value, content)
            return value
        if kind in FROM_TEXT:
            return FROM_TEXT[kind](content)
        if kind == "int":
            return int(content, 16)
        if kind in ("tuple", "frozenset"):
            return (tuple if kind == "tuple" else frozenset)([self.decode(each) for each in content])
        return self._rare(kind, content, message)

    def fill(self, value: Any, content: JSON) -> None:
        """Give a value that can change a new content."""
        value.clear()
        if isinstance(value, bytearray):
            value.extend(bytes.fromhex(content))
        elif isinstance(value, dict):
            for key, each in content:
                value[self.decode(key)] = self.decode(each)
        elif isinstance(value, set):
            value.update([self.decode(each) for each in content])
        else:
            for each in content:
                value.append(self.decode(each))

    def _rare(self, kind: str, content: JSON, message: JSON) -> Any:
        if kind == "bytes":
            return bytes.fromhex(content)
        if kind == "complex":
            return complex(*content)
        if kind == "Fraction":
            above, below = content
            return Fraction(int(above, 16), int(below, 16))
        if kind == "range":
            return range(*[self.decode(each) for each in content])
        if kind == "timedelta":
            return timedelta(*content)
        if kind in FROM_ITEMS:
            return FROM_ITEMS[kind]([self.decode(each) for each in content])
        if kind == "namedtuple":
            name, fields, items = content
            return namedtuple(name, fields)(*[self.decode(each) for each in items])
        if kind == "array":
            dtype, shape, text, is_scalar = content
            numpy = sys.modules["numpy"]
            if numpy.dtype(dtype).kind not in ARRAY_KINDS:
                raise ValueError(f"dtype {dtype}")
            array = numpy.frombuffer(base64.b64decode(text), dtype=dtype).reshape(shape).copy()
            return array[()] if is_scalar else array
        return self.referent(message)

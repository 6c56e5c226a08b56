"""Values between a program and its tests: they come back as they were, and whatever else comes is no danger."""

import json
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.rewards.sandbox.peer import Channel
from alignment.rewards.sandbox.statements import ProgramObject, TestsPeer
from alignment.rewards.sandbox.values import Decoder, Encoder

KEYS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary(), st.dates(),
    st.datetimes(), st.times(), st.timedeltas(), st.fractions(), st.decimals(allow_nan=False),
    st.complex_numbers(allow_nan=False), st.frozensets(st.integers()), st.tuples(st.integers(), st.text()),
)  # fmt: skip
VALUES = st.recursive(
    KEYS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3), st.sets(KEYS, max_size=3)
    ),
    max_leaves=6,
)


def refuse(value: Any) -> Any:
    raise TypeError(type(value).__name__)


def through(value: Any) -> Any:
    """A value as the other side gets it."""
    return Decoder(refuse).decode(json.loads(json.dumps(Encoder(refuse).encode(value))))


@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_plain_values_come_back_with_their_types(value: Any) -> None:
    found = through(value)
    assert found == value
    # The order of sets is another one.
    if not any(isinstance(each, set | frozenset) for each in inside(value)):
        assert [*map(type, inside(found))] == [*map(type, inside(value))]


@pytest.mark.parametrize("dtype", ["f4", "f8", "i1", "u8", "c16", "?", "S3", "U2"])
def test_arrays_come_back(dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    found = through(array)
    assert (found.dtype, found.shape, found.tolist()) == (array.dtype, array.shape, array.tolist())
    assert type(through(array[0, 1])) is type(array[0, 1]) or isinstance(array[0, 1], float | str | bytes)
    with pytest.raises(TypeError, match="ndarray"):
        through(np.array([object()]))


def test_values_that_hold_themselves_come_back() -> None:
    value: list[Any] = [1]
    value.append({"self": value})
    found = through(value)
    assert found[1]["self"] is found


def test_what_has_a_class_of_its_own_is_named() -> None:
    class Mine:
        pass

    class Child(list[int]):
        pass

    for value in (Mine(), Mine, Child([1]), print, json, iter([]), object()):
        with pytest.raises(TypeError):
            through(value)


PLAIN = (
    type(None), bool, int, float, str, bytes, bytearray, complex, list, tuple, dict, set, frozenset, range,
    Decimal, Fraction, date, datetime, time, timedelta, np.ndarray, np.generic, ProgramObject,
)  # fmt: skip


def inside(value: Any) -> Iterator[Any]:
    """A value and all within it."""
    yield value
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        for each in value:
            yield from inside(each)


KINDS = st.sampled_from([
    "int", "list", "dict", "set", "tuple", "bytes", "bytearray", "complex", "Decimal", "Fraction", "date", "time",
    "timedelta", "range", "deque", "frozenset", "same", "namedtuple", "array", "exception", "mine", "yours", "python",
    "module", "builtin", "object", "__class__",
])  # fmt: skip
MESSAGES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.text(max_size=5)
    | st.sampled_from(["0x1", "ff", "|O", "<f8", "len"]),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(KINDS, inner).map(list),
    max_leaves=15,
)


@settings(max_examples=500, deadline=None)
@given(st.tuples(KINDS, MESSAGES).map(list) | MESSAGES)
def test_whatever_a_program_says_is_a_plain_value_or_an_error(message: Any) -> None:
    """Nothing callable but objects of the program, nothing that Python or NumPy would be led by."""
    peer = TestsPeer(Channel(-1, -1))
    peer.lend(refuse)
    try:
        value = Decoder(peer._object).decode(json.loads(json.dumps(message)))
    except Exception:
        return
    for each in inside(value):
        assert (
            isinstance(each, PLAIN)
            or type(each).__name__ == "deque"
            or each is refuse
            or (isinstance(each, type) and issubclass(each, BaseException))
        ), each
        assert each is refuse or not isinstance(each, FunctionType | BuiltinFunctionType | ModuleType)


def test_an_object_of_the_program_shows_nothing_that_leads_python(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = TestsPeer(Channel(-1, -1))
    asked: list[str] = []

    def ask(operation: str, *_: Any) -> Any:
        asked.append(operation)
        return {"data": (1, False), "shape": (1,), "typestr": "<i8"}

    monkeypatch.setattr(peer, "ask", ask)
    thing = ProgramObject(peer, 0)
    for name in ("__array_interface__", "__array__", "__array_struct__", "_as_parameter_", "__float__", "__index__"):
        assert not hasattr(thing, name)
    for compute in (float, int, abs, round, complex, lambda x: x - 1, lambda x: 1 - x, lambda x: x < 1):
        with pytest.raises(TypeError):
            compute(thing)  # type: ignore[operator]
    assert not asked
    assert (thing == 1, thing != 1, thing in [1], [thing] == [1]) == (False, True, False, False)
    assert not asked
    for compute in (lambda x: -x, lambda x: x * 1, lambda x: 1 * x, lambda x: x / 1, lambda x: 1 / x):
        with pytest.raises(TypeError, match="of an object of the program is none"):  # whatever plain value it gives
            compute(thing)

"""Peers: the two ends of the channel between a generated program and its tests.

Each end asks the other to do something with an object that stays there, such as to call a function, and gets back a
plain value, the number of another object, or an exception. What may be asked differs: a program does whatever it is
asked with its own objects, while tests only call functions that they handed over themselves.
"""

import builtins
import json
import os
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from alignment.rewards.sandbox.values import JSON, Decoder, Encoder

MAX_MESSAGE_BYTES = 64 * 2**20
_LENGTH = struct.Struct(">Q")
SILENT = (StopIteration, StopAsyncIteration)
"""Exceptions that end a loop without a trace: a program that raises one in a call would end the tests' loop over it."""


class PeerEndedError(Exception):
    """The other end is gone, or no longer speaks."""


class Channel:
    """Messages over two pipes: a number of bytes, and as many of JSON.

    Args:
        reading, writing: descriptors.
    """

    def __init__(self, reading: int, writing: int) -> None:
        self.reading, self.writing = reading, writing

    def send(self, message: JSON) -> None:
        """Write a message.

        Raises:
            PeerEndedError: where the other end is gone.
        """
        content = json.dumps(message, separators=(",", ":")).encode()
        left = memoryview(_LENGTH.pack(len(content)) + content)
        try:
            while left:
                left = left[os.write(self.writing, left) :]
        except OSError as error:
            raise PeerEndedError(str(error)) from None

    def receive(self) -> JSON:
        """Wait for a message.

        Raises:
            PeerEndedError: where there will be none, or what comes is none.
        """
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        if length > MAX_MESSAGE_BYTES:
            raise PeerEndedError(f"a message of {length} bytes")
        try:
            return json.loads(self._read(length))
        except (ValueError, RecursionError) as error:
            raise PeerEndedError(str(error)) from None

    def _read(self, length: int) -> bytes:
        pieces = []
        while length:
            piece = os.read(self.reading, min(length, 2**20))
            if not piece:
                raise PeerEndedError("it closed the channel")
            pieces.append(piece)
            length -= len(piece)
        return b"".join(pieces)


class Peer(ABC):
    """One end.

    Args:
        channel: to the other one.
        operations: what the other end may ask for: name to a function of an own object and arguments.
    """

    def __init__(self, channel: Channel, operations: Mapping[str, Callable[..., Any]]) -> None:
        self.channel, self.operations = channel, operations
        self.lent: list[Any] = []
        self.numbers: dict[int, int] = {}
        self.exceptions: dict[int, type[BaseException]] = {}

    @abstractmethod
    def describe(self, value: Any) -> JSON:
        """The name by which the other end gets an own object.

        Raises:
            TypeError: where it gets none.
        """

    @abstractmethod
    def understand(self, kind: str, content: JSON) -> Any:
        """What a name of the other end is here."""

    def lend(self, value: Any) -> int:
        """The number of an own object, always the same."""
        if id(value) not in self.numbers:
            self.numbers[id(value)] = len(self.lent)
            self.lent.append(value)
        return self.numbers[id(value)]

    def ask(self, operation: str, target: int | str, *arguments: Any, **named: Any) -> Any:
        """Have the other end do something and wait for it.

        Args:
            operation: its name.
            target: the number of an object there, or a name.
            arguments, named: further arguments; those of them that can change are what the other end made of them
                when this returns.

        Raises:
            PeerEndedError: where there will be no result.
            Exception: what was raised there, as far as there is the same here.
        """
        encoder = Encoder(self._name)
        positional = [encoder.encode(each) for each in arguments]
        keywords = [[name, encoder.encode(each)] for name, each in named.items()]
        self.channel.send(["ask", operation, target, positional, keywords])
        while (reply := self.channel.receive())[0] == "ask":
            self.channel.send(self.answer(*reply[1:]))
        outcome, value, changes = reply
        decoder = Decoder(self._object, encoder.mutable)
        result = decoder.decode(value)
        for known, content in zip(encoder.mutable, changes, strict=True):
            decoder.fill(known, content)
        if outcome == "value":
            return result
        kind, given = result
        raise self._exception(kind, given, may_be_silent=operation == "next")

    def answer(self, operation: str, target: int | str, positional: JSON, keywords: JSON) -> JSON:
        """Do what the other end asked for: the outcome, the value, and the content of arguments that can change."""
        decoder = Decoder(self._object)
        try:
            arguments = [decoder.decode(each) for each in positional]
            named = {name: decoder.decode(each) for name, each in keywords}
            known = list(decoder.mutable)
            own = self.lent[target] if isinstance(target, int) else target
            return self._reply("value", self.operations[operation](own, *arguments, **named), known)
        except BaseException as error:
            plain = [each if isinstance(each, str | int | float) else repr(each) for each in error.args]
            return self._reply("raised", (type(error), plain), decoder.mutable)

    def _reply(self, outcome: str, value: Any, known: list[Any]) -> JSON:
        encoder = Encoder(self._name, known)
        return [outcome, encoder.encode(value), [encoder.content(each) for each in known]]

    def _name(self, value: Any) -> JSON:
        if isinstance(value, type) and issubclass(value, BaseException):
            name, bases = value.__name__, value.__bases__
            if vars(builtins).get(name) is value:
                return ["exception", name]
            return ["exception", [self.lend(value), name, [self._name(base) for base in bases]]]
        return self.describe(value)

    def _object(self, message: JSON) -> Any:
        kind, content = message
        return self._exception_class(content) if kind == "exception" else self.understand(kind, content)

    def _exception_class(self, content: JSON) -> type[BaseException]:
        """The exception of Python, or one of the same name and bases as the other end's."""
        if isinstance(content, str):
            known: type = getattr(builtins, content)
            if not issubclass(known, BaseException):
                raise TypeError(content)
            return known
        number, name, described = content
        if number not in self.exceptions:
            bases = [self._exception_class(base[1]) for base in described if base[0] == "exception"]
            self.exceptions[number] = type(name, tuple(bases), {})
        return self.exceptions[number]

    @staticmethod
    def _exception(kind: type[BaseException], arguments: list[Any], may_be_silent: bool) -> Exception:
        """What to raise for an exception of the other end: nothing that ends a process, or a loop without a trace."""
        if issubclass(kind, Exception) and (may_be_silent or not issubclass(kind, SILENT)):
            try:
                return kind(*arguments)
            except TypeError:  # one that wants other arguments, such as UnicodeDecodeError
                pass
        return RuntimeError(f"{kind.__name__}: {arguments}")

"""The filter of system calls, run by the kernel's machine for such programs, written again."""

import os

import pytest

from alignment.rewards.sandbox.seccomp import FORBIDDEN_BITS, NUMBERS, system_call_filter


@pytest.mark.parametrize("machine", NUMBERS)
def test_the_filter_lets_through_what_is_listed(machine: str) -> None:
    """The kernel's machine for such programs, written again."""
    program = system_call_filter(machine)
    architecture, numbers = NUMBERS[machine]

    def kernel_response(number: int, arguments: list[int], arch: int = architecture) -> int:
        words = {0: number, 4: arch} | {16 + 8 * i: value & 0xFFFFFFFF for i, value in enumerate(arguments)}
        place = accumulator = 0
        while True:
            piece = program[8 * place : 8 * place + 8]
            code, if_true, if_false = int.from_bytes(piece[:2], "little"), piece[2], piece[3]
            value = int.from_bytes(piece[4:], "little")
            place += 1
            if code == 0x20:
                accumulator = words[value]
            elif code == 0x15:
                place += if_true if accumulator == value else if_false
            elif code == 0x54:
                accumulator &= value
            elif code == 0x05:
                place += value
            else:
                assert code == 0x06
                return value

    allowed, refused, killed = 0x7FFF0000, 0x00050001, 0x80000000
    names = {number: name for name, number in numbers.items()}
    for number in range(600):
        assert kernel_response(number, [0] * 6) == (allowed if number in names else refused)
        assert kernel_response(number, [0] * 6, arch=architecture ^ 1) == killed
        assert kernel_response(number | 0x40000000, [0] * 6) == refused
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_CREAT, os.O_RDONLY | os.O_TRUNC):
        assert kernel_response(numbers["openat"], [0, 0, flags, 0, 0, 0]) == refused
    assert kernel_response(numbers["openat"], [0, 0, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY, 0, 0, 0]) == allowed
    for command in range(2000):
        assert kernel_response(numbers["fcntl"], [0, command, 0, 0, 0, 0]) == (allowed if command < 4 else refused)
    assert set(FORBIDDEN_BITS) <= set(numbers)

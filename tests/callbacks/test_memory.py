"""The peak of the first steps is that of tensors, and the C library is its old self afterward."""

import platform

import pytest
import torch

from callbacks import memory
from callbacks.memory import PeakMemory

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator has these settings")
CPU = torch.device("cpu")
HALF_MEGABYTE = 131_072


def test_first_steps_return_what_they_free_and_later_ones_need_not(monkeypatch: pytest.MonkeyPatch) -> None:
    told, tell = [], memory._returns_from
    monkeypatch.setattr(memory, "_returns_from", lambda size: (told.append(size), tell(size))[1])
    monkeypatch.delenv(memory.THRESHOLD, raising=False)
    measured = PeakMemory(CPU)
    measured.restart()
    held = torch.ones(HALF_MEGABYTE * 128)
    measured.step()
    assert measured.of_first_steps is None
    measured.step()
    assert measured.of_first_steps == pytest.approx(held.nbytes, rel=0.05)
    assert told == [65_536, 32 * 1024 * 1024]
    later = torch.ones(HALF_MEGABYTE * 128)
    measured.step()
    measured.end_first_steps()
    assert measured.of_first_steps == pytest.approx(held.nbytes, rel=0.05)
    assert measured.bytes() == pytest.approx(held.nbytes + later.nbytes, rel=0.05)
    assert len(told) == 2


def test_a_threshold_of_the_users_own_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(memory.THRESHOLD, "65536")
    monkeypatch.setattr(memory, "_returns_from", lambda size: pytest.fail("told"))
    measured = PeakMemory(CPU)
    measured.restart()
    measured.step()
    measured.end_first_steps()
    assert measured.of_first_steps is not None


def test_a_library_that_cannot_be_told_measures_no_first_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(memory.THRESHOLD, raising=False)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    measured = PeakMemory(CPU)
    measured.restart()
    measured.step()
    measured.step()
    assert measured.of_first_steps is None
    assert measured.bytes() is not None

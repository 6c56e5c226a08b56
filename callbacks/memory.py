"""Peak memory of training above what the process had before there was a model.

On a GPU PyTorch's allocator counts exactly the bytes of its tensors, and what it reserved for them. A CPU has no such
counter: there the high-water mark of the resident set takes its place, set back when training starts so that neither
imports nor preparing data are in it. The C library keeps most of what was freed, up to a fifth of a process of 30
million parameters, so during the first steps it returns freed memory at once: what is left are tensors. The plan's
figure is about these steps; afterward the library keeps pages as it would have, because returning them costs time.
"""

import ctypes
import os
import platform
from pathlib import Path

import torch

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
THRESHOLD = "MALLOC_MMAP_THRESHOLD_"
"""glibc's variable; a user who sets it chooses when freed memory is returned."""
STEPS = 2
"""The first step makes the optimizer's state, the second has everything at once."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_RETURN_FROM = 65_536
_KEEP_BELOW = 32 * 1024 * 1024  # where glibc's own threshold ends that grows with what is freed (mallopt(3))


class PeakMemory:
    """Bytes above those at its making, on one device.

    Args:
        device: of the model.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._cuda, self._steps = device.type == "cuda", 0
        self._tensors_alone = self._returning = False
        self.of_first_steps: int | None = None
        if self._cuda:
            self.before = int(torch.cuda.memory_allocated(device))
            self.reserved_before = int(torch.cuda.memory_reserved(device))
        else:
            _trim()
            self.before = _status("VmRSS") or 0

    def restart(self) -> None:
        """Forget the peak so far; training begins."""
        self._steps, self.of_first_steps = 0, None
        if self._cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        self._returning = THRESHOLD not in os.environ and _returns_from(_RETURN_FROM)
        self._tensors_alone = self._returning or THRESHOLD in os.environ
        _trim()
        if CLEAR_REFS.exists():
            # Linux's way to set VmHWM back to what is resident now.
            CLEAR_REFS.write_text("5")

    def step(self) -> None:
        """An optimizer step is completed; the last of the first ones ends their measurement."""
        self._steps += 1
        if self._steps == STEPS:
            self.end_first_steps()

    def end_first_steps(self) -> None:
        """Take their peak, `of_first_steps`, if that is not done; the C library may keep freed pages again."""
        if self._tensors_alone and self._steps:
            self.of_first_steps = self.bytes()
        if self._returning:
            _returns_from(_KEEP_BELOW)
        self._tensors_alone = self._returning = False

    def bytes(self) -> int | None:
        """Peak since the last restart; None where the system tells none (neither CUDA nor Linux)."""
        if self._cuda:
            return int(torch.cuda.max_memory_allocated(self.device)) - self.before
        peak = _status("VmHWM")
        return None if peak is None else peak - self.before

    def reserved(self) -> int | None:
        """Peak since the last restart of what a GPU's allocator took, fragments included; None for a CPU."""
        return int(torch.cuda.max_memory_reserved(self.device)) - self.reserved_before if self._cuda else None


def _returns_from(size: int) -> bool:
    """Have freed memory returned at once from so many bytes on; whether this C library can be told to."""
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return bool(library.mallopt(_M_TRIM_THRESHOLD, 2 * size) and library.mallopt(_M_MMAP_THRESHOLD, size))


def _trim() -> None:
    """Return what was freed up to now."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def _status(name: str) -> int | None:
    """A field of Linux's account of this process, in bytes."""
    if not STATUS.exists():
        return None
    line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024

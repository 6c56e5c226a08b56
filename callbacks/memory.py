"""How much memory training takes beyond what the process had before there was a model.

On a GPU PyTorch's allocator counts its own bytes exactly. A CPU has no such counter: there the high-water mark of the
resident set stands in for it, with everything a process keeps (buffers of libraries, freed pages not yet returned), set
back when training starts so that neither imports nor preparing data are in it.
"""

from pathlib import Path

import torch

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Bytes above those at its making, on one device.

    Args:
        device: of the model.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.before = _allocated(device)

    def restart(self) -> None:
        """Forget the peak so far."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif CLEAR_REFS.exists():
            # Linux's way to set VmHWM back to what is resident now.
            CLEAR_REFS.write_text("5")

    def bytes(self) -> int | None:
        """Peak since the last restart; None where the system tells none (neither CUDA nor Linux)."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device)) - self.before
        peak = _status("VmHWM")
        return None if peak is None else peak - self.before


def _allocated(device: torch.device) -> int:
    return int(torch.cuda.memory_allocated(device)) if device.type == "cuda" else _status("VmRSS") or 0


def _status(name: str) -> int | None:
    """A field of Linux's account of this process, in bytes."""
    if not STATUS.exists():
        return None
    line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024

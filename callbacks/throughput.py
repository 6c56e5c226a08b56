"""Throughput callback: tokens per second, model FLOP/s and their share of the measured matrix-product peak.

The peak is measured, not taken from a datasheet: a share of a number that this machine never reaches would say little.
Time in validation is left out, time waiting for input is not.
"""

import importlib.metadata
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import lightning
import torch
import torch.distributed
from torch import Tensor

from callbacks.memory import PeakMemory
from common.contracts import ResumableData, attached_data
from common.files import write_text_atomically
from common.run_folder import RUN_FACTS
from models.attention import mean_attended_pairs
from models.device import measured_matmul_peak
from models.flops import parameters, training_flops

PACKAGES = ("torch", "lightning", "torchmetrics", "sentencepiece", "daft", "jsonargparse", "wandb", "numpy")


def matmul_dtype(precision: str) -> torch.dtype:
    """The dtype in which a Lightning precision multiplies matrices."""
    if precision.startswith("bf16"):
        return torch.bfloat16
    if precision.startswith("16"):
        return torch.float16
    return torch.float64 if precision.startswith("64") else torch.float32


class Throughput(lightning.Callback):
    """Logs `throughput/{tokens_per_second,model_flops_per_second,share_of_peak}` at the logging interval.

    Also writes `run.json` into the run's folder: the hardware, the versions, what was reached, and the peak memory of
    each rank above what it had before there was a model: of the run, of its first steps' tensors on a CPU, and what the
    allocator reserved on a GPU, see `callbacks.memory`.

    Args:
        peak_flops_per_second: ceiling of one device; null measures it for a second before training.
    """

    def __init__(self, peak_flops_per_second: float | None = None) -> None:
        self.peak = peak_flops_per_second
        self._pairs: Tensor | int = 0
        self._validation_start: float | None = None
        self._done = 0.0
        self._restart()

    def model_flops(self, trainer: lightning.Trainer, pl_module: Any) -> float:
        """Model FLOPs of all training steps so far, over all ranks; waits for the device."""
        return self._done + self._flops_since(trainer, pl_module)

    def _flops_since(self, trainer: lightning.Trainer, pl_module: Any) -> float:
        # Every data-parallel rank does as much as this one.
        ranks = (trainer.distributed_sampler_kwargs or {"num_replicas": 1})["num_replicas"]
        return training_flops(pl_module.config, self._tokens, int(self._pairs)) * ranks if self._tokens else 0.0

    def setup(self, trainer: lightning.Trainer, pl_module: Any, stage: str) -> None:
        self._memory = PeakMemory(trainer.strategy.root_device)

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        device = trainer.strategy.root_device
        if self.peak is None:
            self.peak = measured_matmul_peak(device, matmul_dtype(trainer.precision))
        self._facts: dict[str, Any] = {
            "device": _device_name(device),
            "device_type": device.type,
            "devices": trainer.world_size,
            "threads": torch.get_num_threads(),
            "precision": trainer.precision,
            "parameters": parameters(pl_module.config),
            "matmul_peak_flops": self.peak,
            "python": platform.python_version(),
            "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
            "command": " ".join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
            "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        self._fit_start, self._trained = time.monotonic(), False

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self._memory.restart()
        self._restart()
        if trainer.is_global_zero and trainer.global_step != trainer.max_steps:
            self._write(trainer)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self._memory.end_first_steps()
        self._validation_start = time.monotonic()

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        # What other callbacks do after a validation is no training either.
        if self._validation_start is not None:
            self._paused += time.monotonic() - self._validation_start
            self._validation_start = None

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._trained = True
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if stepped:
            self._memory.step()
        if "tokens" not in batch:  # prompts, of which their module itself logs how fast responses are made
            return
        self._tokens += batch["tokens"].numel()
        # Stays on the device: reading it back here would make every step wait.
        pairs = mean_attended_pairs(pl_module.config, batch["document_ids"], batch.get("branch_ids"))
        self._pairs = self._pairs + pairs
        if not stepped or trainer.global_step % trainer.log_every_n_steps:
            return
        done = self._flops_since(trainer, pl_module)
        seconds = time.monotonic() - self._since - self._paused
        self._done += done
        flops = done / seconds
        ranks = (trainer.distributed_sampler_kwargs or {"num_replicas": 1})["num_replicas"]
        assert self.peak is not None
        rates = {
            "tokens_per_second": self._tokens * ranks / seconds,
            "model_flops_per_second": flops,
            "share_of_peak": flops / (self.peak * trainer.world_size),
        }
        pl_module.log_dict({f"throughput/{name}": rate for name, rate in rates.items()})
        self._restart()

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        # A run that was complete already keeps the facts of its training.
        if not self._trained:
            return
        self._memory.end_first_steps()
        data = attached_data(trainer)
        sizes = data.batch_sizes() if isinstance(data, ResumableData) else []
        measured = {
            "peak_memory_bytes": self._memory.bytes(),
            # Of batches that grow the first say little of the others.
            "first_steps_memory_bytes": self._memory.of_first_steps if len(sizes) < 2 else None,
            "reserved_memory_bytes": self._memory.reserved(),
        }
        self._facts |= {name: _of_every_rank(value) for name, value in measured.items()}
        if trainer.is_global_zero:
            self._write(trainer)

    def teardown(self, trainer: lightning.Trainer, pl_module: Any, stage: str) -> None:
        self._memory.end_first_steps()

    def _write(self, trainer: lightning.Trainer) -> None:
        self._facts["seconds_of_last_start"] = round(time.monotonic() - self._fit_start, 1)
        self._facts["steps"] = trainer.global_step
        write_text_atomically(Path(trainer.default_root_dir) / RUN_FACTS, json.dumps(self._facts, indent=1))

    def _restart(self) -> None:
        self._since, self._paused, self._tokens = time.monotonic(), 0.0, 0
        self._pairs = 0


def _of_every_rank(value: int | None) -> list[int | None]:
    if not torch.distributed.is_initialized():
        return [value]
    values: list[int | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    if device.type == "cpu" and cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        if names:
            return f"{names[0]} x {len(names)} ({torch.backends.cpu.get_cpu_capability()})"
    return f"{device.type} {platform.processor() or platform.machine()}"

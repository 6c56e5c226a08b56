"""Saver of sharded checkpoints: all ranks write one folder, at once or in a thread while training continues.

A folder gets its name when every rank's bytes are on disk. A rank that cannot write its part, as on a full disk, ends
the save on all ranks with the same line; the price is a message between ranks where a barrier would do.
"""

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import FileSystemWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.tensor import DTensor

from common.errors import InputError
from common.files import refuse_failed_save, sync
from models.weights.sharded_folder import METADATA, TRAINER, rank_and_size, remove, write_checksum


class _Writer(FileSystemWriter):
    """DCP writer with a checksum beside each file of a rank, and beside the index."""

    def write_data(self, plan: Any, planner: Any) -> Any:
        written = super().write_data(plan, planner)
        for name in {result.storage_data.relative_path for result in written.wait()}:
            write_checksum(Path(self.path) / name)
        return written

    def finish(self, metadata: Metadata, results: Any) -> None:
        super().finish(metadata, results)
        write_checksum(Path(self.path) / METADATA)


class CheckpointSaver:
    """Saver of checkpoint folders, synchronous or asynchronous.

    Args:
        asynchronous: whether to copy the tensors and write them in a thread while training continues; a save waits for
            the one before.
    """

    def __init__(self, asynchronous: bool = False) -> None:
        self.asynchronous = asynchronous
        self._thread: threading.Thread | None = None
        self._result: Future[None] = Future()
        self._group: torch.distributed.ProcessGroup | None = None

    def save(self, folder: Path, tensors: dict[str, Tensor], rest: dict[str, Any]) -> None:
        """Write a checkpoint; the folder gets its name when all ranks' bytes are on disk.

        Args:
            folder: checkpoint folder to write or replace.
            tensors: this rank's whole tensors or DTensors by name.
            rest: trainer state, written by the first rank.

        Raises:
            InputError: on all ranks, when one cannot write; of an asynchronous save, at the next `save` or `wait`.
        """
        self.wait()
        partial = folder.with_name(f".{folder.name}.partial")

        def begin() -> None:
            folder.parent.mkdir(parents=True, exist_ok=True)
            for leftover in [*folder.parent.glob(".*.partial"), *folder.parent.glob(".*.removed")]:
                remove(leftover)
            partial.mkdir()
            torch.save(rest, partial / TRAINER)
            write_checksum(partial / TRAINER)

        _on_first_rank(begin, folder, partial)
        if self.asynchronous:
            if rank_and_size()[1] > 1 and self._group is None:
                self._group = torch.distributed.new_group(backend="gloo")
            copies = {name: _copy_to_cpu(tensor) for name, tensor in tensors.items()}
            self._result = Future()
            self._thread = threading.Thread(target=self._write, args=(folder, partial, copies), name="checkpoint")
            self._thread.start()
        else:
            self._write_in(folder, partial, tensors)

    def wait(self) -> None:
        """Wait for the current save; its error is raised here."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self._result.result()

    def _write(self, folder: Path, partial: Path, tensors: dict[str, Tensor]) -> None:
        try:
            self._write_in(folder, partial, tensors)
        except BaseException as error:  # raised in `wait`
            self._result.set_exception(error)
        else:
            self._result.set_result(None)

    def _write_in(self, folder: Path, partial: Path, tensors: dict[str, Tensor]) -> None:
        alone = not torch.distributed.is_initialized()
        writer = _Writer(partial, sync_files=True)
        try:
            with refuse_failed_save(folder):
                try:
                    dcp.save(
                        cast(dict[str, Any], tensors), storage_writer=writer, process_group=self._group, no_dist=alone
                    )
                except CheckpointException as error:  # on all ranks, whichever failed
                    raise next(iter(error.failures.values()))[0] from error
        except InputError:
            if rank_and_size()[0] == 0:
                shutil.rmtree(partial, ignore_errors=True)  # makes room for what the run still writes
            raise

        def finish() -> None:
            sync(partial)
            remove(folder)
            partial.rename(folder)
            sync(folder.parent)

        _on_first_rank(finish, folder, partial, self._group)


def _on_first_rank(
    act: Callable[[], None], folder: Path, partial: Path, group: torch.distributed.ProcessGroup | None = None
) -> None:
    """Have the first rank act, and all wait for it; where it cannot write, all raise the same line."""
    rank, size = rank_and_size()
    mistake: list[str | None] = [None]
    if rank == 0:
        try:
            with refuse_failed_save(folder):
                act()
        except InputError as error:
            shutil.rmtree(partial, ignore_errors=True)
            mistake = [str(error)]
    if size > 1:
        torch.distributed.broadcast_object_list(mistake, src=0, group=group)
    if mistake[0] is not None:
        raise InputError(mistake[0])


def _copy_to_cpu(tensor: Tensor) -> Tensor:
    if isinstance(tensor, DTensor):
        # `DTensor.from_local` would move the copy back to the device of the mesh.
        local = tensor.to_local().detach().to("cpu", copy=True)
        return cast(Tensor, DTensor(local, tensor._spec, requires_grad=False))
    return tensor.detach().to("cpu", copy=True)

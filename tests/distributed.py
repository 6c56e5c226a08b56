"""Runs a function in several processes that stay warm: forked from a server that has everything imported.

A layout's test costs what its steps cost; spawned interpreters would cost four seconds each on top.
"""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.preload"])


def _work(rank: int, world: int, port: int, sender: Connection, function: Callable[..., Any], arguments: Any) -> None:
    import torch

    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "LOCAL_RANK": str(rank),
        "RANK": str(rank),
        "WORLD_SIZE": str(world),
        "NODE_RANK": "0",
    }
    torch.set_num_threads(1)
    try:
        sender.send((True, function(*arguments)))
    except BaseException as error:
        sender.send((False, f"rank {rank}: {error!r}\n{traceback.format_exc()}"))
    finally:
        sender.close()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def run_ranks(world: int, function: Callable[..., Any], *arguments: Any, timeout: float = 120) -> list[Any]:
    """What `function(*arguments)` returns on each of `world` ranks.

    Raises:
        AssertionError: with the traceback of the first rank that failed, or when one takes longer than `timeout`.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pairs = [_CONTEXT.Pipe(duplex=False) for _ in range(world)]
    processes = [
        _CONTEXT.Process(target=_work, args=(rank, world, port, pairs[rank][1], function, arguments))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    for _, sender in pairs:
        sender.close()
    results: list[Any] = []
    try:
        for rank, (receiver, _) in enumerate(pairs):
            assert receiver.poll(timeout), f"rank {rank} of {world} is silent after {timeout} s"
            try:
                fine, result = receiver.recv()
            except EOFError:
                fine, result = False, f"rank {rank} died"
            assert fine, result
            results.append(result)
    finally:
        for process in processes:
            process.join(timeout=2 if len(results) < world else timeout)
            if process.is_alive():
                process.kill()
    return results

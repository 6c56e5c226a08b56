"""Execution engine of Daft plans: the cores of this machine or a Ray cluster.

In both cases results pass through the driver, which writes them, so that one place decides names and order. On a
cluster its network and compression are the limit, some hundreds of megabytes per second.
"""

import contextlib
import importlib.util
import itertools
import os
from typing import Literal

import daft
import pyarrow
from daft import DataFrame
from daft.exceptions import DaftCoreException
from daft.runners import get_or_create_runner

from common.compute.cpu_threads import available_cores
from common.errors import InputError

PARTITIONS_PER_CORE = 4
"""Partitions per core, so that one of long texts does not keep a core busy alone."""
MIN_ROWS = 16


def use_engine(engine: Literal["native", "ray"]) -> None:
    """Let Daft run on one engine for the rest of this process.

    Raises:
        InputError: when Ray is not installed, or Daft has already run on the other engine.
    """
    if engine == "ray" and importlib.util.find_spec("ray") is None:
        raise InputError(
            "engine=ray: Ray is not installed, pip install 'lightning-language-models[ray]' or take native"
        )
    if engine == "ray":
        # Fails where there is a runner, whose name is compared below.
        with contextlib.suppress(DaftCoreException):
            daft.set_runner_ray(os.environ.get("RAY_ADDRESS"), noop_if_initialized=True)
    if (other := get_or_create_runner().name) != engine:
        raise InputError(f"engine={engine}: this process already runs Daft on {other}, start another one")


def workers() -> int:
    """Number of tasks the engine runs at once; on one machine Daft spreads every plan over the cores by itself."""
    if get_or_create_runner().name == "ray":
        import ray

        return max(1, int(ray.cluster_resources().get("CPU", 1)))
    return 1


def spread(table: pyarrow.Table) -> DataFrame:
    """Data frame of a table, rows in order, in enough partitions for all workers or cores.

    Plans follow each other: two in flight at once end Daft's actor on Ray (0.7.26), so a plan has to fill the cluster.
    On one machine a table in memory is one part to Daft, which a function of ours sees as one batch on one core; its
    own setting for smaller ones (`default_morsel_size`) made the same plan six times slower.
    """
    if workers() > 1:
        return daft.from_arrow(table).into_partitions(workers())
    parts = max(1, min(len(table) // MIN_ROWS, PARTITIONS_PER_CORE * available_cores()))
    bounds = [len(table) * part // parts for part in range(parts + 1)]
    return daft.from_arrow([table.slice(a, b - a) for a, b in itertools.pairwise(bounds)])

"""Where Daft's plans run: on the cores of this machine or on a Ray cluster.

Results pass through the driver in both cases, which writes them: one place decides names and order. On a cluster its
network and compression are the limit, some hundreds of megabytes a second.
"""

import contextlib
import importlib.util
import os
from typing import Literal

import daft
from daft import DataFrame
from daft.exceptions import DaftCoreException
from daft.runners import get_or_create_runner

from errors import InputError


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
        # Fails where there is a runner, which is asked for its name below.
        with contextlib.suppress(DaftCoreException):
            daft.set_runner_ray(os.environ.get("RAY_ADDRESS"), noop_if_initialized=True)
    if (other := get_or_create_runner().name) != engine:
        raise InputError(f"engine={engine}: this process already runs Daft on {other}, start another one")


def workers() -> int:
    """How many tasks the engine runs at once; on one machine Daft spreads every plan over the cores by itself."""
    if get_or_create_runner().name == "ray":
        import ray

        return max(1, int(ray.cluster_resources().get("CPU", 1)))
    return 1


def spread(df: DataFrame) -> DataFrame:
    """The same rows in the same order, in as many parts as there are workers.

    Plans follow each other: two in flight at once end Daft's actor on Ray (0.7.26), so a plan has to fill the cluster.
    """
    return df.into_partitions(workers()) if workers() > 1 else df

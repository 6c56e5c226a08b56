"""Where Daft's plans run: on the cores of this machine or on a Ray cluster.

Results pass through the driver in both cases, which writes them: one place decides names and order. On a cluster its
network and compression are the limit, some hundreds of megabytes a second.
"""

import importlib.util
import os
from typing import Literal

import daft

from errors import InputError

_chosen: list[str] = []


def use_engine(engine: Literal["native", "ray"]) -> None:
    """Let Daft run on one engine for the rest of this process.

    Raises:
        InputError: when Ray is not installed, or Daft has already run on the other engine.
    """
    if engine == "ray" and importlib.util.find_spec("ray") is None:
        raise InputError("engine=ray: Ray is not installed, pip install 'lightning-language-models[ray]' or take native")
    if _chosen and _chosen[0] != engine:
        raise InputError(f"engine={engine}: this process already runs Daft on {_chosen[0]}, start another one")
    if _chosen:
        return
    try:
        if engine == "ray":
            daft.set_runner_ray(os.environ.get("RAY_ADDRESS"), noop_if_initialized=True)
        else:
            daft.set_runner_native()
    except RuntimeError as error:
        raise InputError(f"engine={engine}: Daft already runs on another engine in this process: {error}") from error
    _chosen.append(engine)


def plans_at_once() -> int:
    """Plans to keep in flight: one saturates a machine, a cluster takes one for each of its processors."""
    if _chosen == ["ray"]:
        import ray

        return max(1, int(ray.cluster_resources().get("CPU", 1)))
    return 1

"""`parity`: a parallel layout against one process, on a scaled-down twin of a configuration.

The imports of the comparison come after the arguments are read: its help and its mistakes need no PyTorch.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from commands.argument_parser import CommandArguments
from common.errors import InputError

PROGRAM = [sys.executable, str(Path(__file__).parents[2] / "main.py")]
Resolve = Callable[[list[str]], tuple[dict[str, Any], list[Path]]]


def parity(arguments: list[str], resolve: Resolve) -> None:
    """Compare a layout with one process on a scaled-down twin; exit status 1 where they differ.

    Args:
        arguments: those after the command's name.
        resolve: makes the whole configuration of `fit` from its arguments.
    """
    parser = CommandArguments("parity", "everything else (--config FILE, --key value) is read as fit reads it")
    parser.add_argument("--steps", type=int, default=10, help="optimizer steps (default: 10)")
    parser.add_argument(
        "--tolerance",
        type=float,
        help="largest difference of losses and gradient norms, relative above 1; by default 1e-5 in float32, 5e-2 in "
        "bfloat16",
    )
    parser.add_argument(
        "--max_axis", type=int, default=2, help="axes of the mesh are cut down to this many processes (default: 2)"
    )
    given, rest = parser.parse_with_fit(arguments)
    if not rest:
        raise InputError("parity: give --config FILE as for fit")
    if given.steps < 1:
        raise InputError(f"--steps {given.steps}: must be at least 1")
    if given.max_axis < 2:
        raise InputError(f"--max_axis {given.max_axis}: must be at least 2, fewer leave one process and no layout")
    if given.tolerance is not None and not given.tolerance >= 0:
        raise InputError(f"--tolerance {given.tolerance:g}: must be at least 0")
    configuration, _ = resolve(["fit", *rest])
    from commands.training.twin_comparison import compare
    from models.weights.source import WeightSource

    settings = configuration["model"]["init_args"]
    if settings.get("decoder") is None and settings.get("init_from"):
        settings["decoder"] = WeightSource(Path(settings["init_from"])).config
    if not compare(configuration, given.steps, given.tolerance, given.max_axis, PROGRAM):
        sys.exit(1)

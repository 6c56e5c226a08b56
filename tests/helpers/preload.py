"""Imports of the fork server of `tests.helpers.distributed`, once for all processes that it forks.

Packages export their classes lazily, so each exported class is named here; a forked process then imports nothing.
"""

import importlib
import warnings

import torch

from commands.registry import COMMANDS

for package in ("models", "datamodules", "strategies", "alignment", "callbacks"):
    exports = importlib.import_module(package)
    for name in exports.__all__:
        getattr(exports, name)
for module in (
    "commands.cli",
    "commands.resolve",
    "commands.training.lightning_cli",
    "commands.plan.dry_run",
    "commands.plan.planning",
):
    importlib.import_module(module)
for command in COMMANDS.values():
    if ":" in command.target:
        command.load()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    # What Lightning, FSDP2 and DTensor import when they are first used.
    for module in (
        "torch._dynamo",
        "torch.distributed.checkpoint",
        "torch.distributed.fsdp",
        "torch.distributed.pipelining",
        "torch.distributed.tensor.parallel",
    ):
        importlib.import_module(module)

torch.set_num_threads(1)

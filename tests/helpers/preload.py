"""Imports of the fork server of `tests.helpers.distributed`, once for all processes that it forks.

Packages export their classes lazily, so each exported class is named here; a forked process then imports nothing. What
a process does once and keeps in memory is done here too: reading the options of every class of a configuration, the
source code behind fingerprints, the fonts of charts.
"""

import importlib
import warnings

import torch

from callbacks.reports.charts import draw
from commands.registry import COMMANDS
from commands.resolve import resolve_config
from common.fingerprint import code_fingerprint
from tests.helpers.corpus import ROOT

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
        # What tests import that run a function of theirs in such a process.
        "hypothesis",
        "pytest",
        "tests.helpers.policy_training",
        "tests.helpers.layouts",
    ):
        importlib.import_module(module)
    resolve_config(["fit", "--config", str(ROOT / "configs/quickstart.yaml")])
    code_fingerprint("datamodules.curation.pipeline", "datamodules.prepare")
    draw({"": ([0, 1], [0.0, 1.0])}, smooth=False)

torch.set_num_threads(1)

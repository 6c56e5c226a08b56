"""Imported once by the fork server of `tests.helpers.distributed`."""

import lightning  # noqa: F401
import torch

import datamodules  # noqa: F401
import main  # noqa: F401
import models  # noqa: F401
import strategies  # noqa: F401

torch.set_num_threads(1)

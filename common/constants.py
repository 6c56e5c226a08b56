"""Constants and type aliases of more than one package: the ignored label, split names, stop signals, messages.

Each of them was written down twice before, and two spellings of one constant agree only until one is edited.
"""

import signal
from typing import Any

IGNORE = -100
"""Label of a token that adds nothing to a loss; `torch.nn.functional.cross_entropy`'s own default."""

SPLITS = ("train", "validation")
"""Names of the two parts of a data set, in this order."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that ask a run to save and stop: a scheduler's end, Ctrl-C, a closed terminal, and the warnings SLURM can
be told to send."""

Messages = list[dict[str, Any]]
"""A conversation: `{"role": ..., "content": ...}` by message, as chat templates take it."""

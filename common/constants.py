"""Constants and type aliases of more than one package: the ignored label, split names, chat messages.

Each of them was written down twice before, and two spellings of one constant agree only until one is edited.
"""

from typing import Any

IGNORE = -100
"""Label of a token that adds nothing to a loss; `torch.nn.functional.cross_entropy`'s own default."""

SPLITS = ("train", "validation")
"""Names of the two parts of a data set, in this order."""

Messages = list[dict[str, Any]]
"""A conversation: `{"role": ..., "content": ...}` by message, as chat templates take it."""

"""Chunked losses under their former name, until every caller uses `models.head.OutputHead`."""

from common.constants import IGNORE
from models.chunked_losses import (
    token_kl as token_divergence,
)
from models.chunked_losses import (
    token_log_probabilities,
    token_log_probabilities_and_entropies,
)

__all__ = ["IGNORE", "token_divergence", "token_log_probabilities", "token_log_probabilities_and_entropies"]

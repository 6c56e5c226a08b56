"""Weights to begin from (`init_from`): shape and tokenizer come with them, and reward models and critics are opened.

A configuration of alignment names a run and nothing of its shape, so that the two cannot contradict each other.
"""

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from common.contracts import WeightSourcesUser
from common.errors import InputError
from datamodules.conversations.template_check import require_same_template
from datamodules.tokenization.base import Tokenizer
from datamodules.tokenization.files import find_tokenizer, load_tokenizer
from models.weights.source import WeightSource

Sources = WeightSource | list[WeightSource] | None


def begin_from(config: Any, trains: bool) -> Sources:
    """Fill shape and tokenizer of a configuration from the weights to begin from, where it gives no others.

    Args:
        config: of a command with `model` and `data`; changed in place.
        trains: whether the command is `fit`, which also reads weights whose shape is given.

    Returns:
        The weights, opened; None where the model is drawn or comes from a checkpoint.
    """
    model, data = config.model.init_args, config.data.init_args
    stored: Sources = None
    if model.get("init_from") is None:
        return None
    if isinstance(model.init_from, list):
        if not model.init_from:
            raise InputError("model.init_args.init_from: [] is empty, name at least one run")
        stored = [WeightSource(Path(path)) for path in model.init_from]
        # A name of the hub is saved with its commit: the run reads the same weights ever after.
        model.init_from = [one.name for one in stored]
        model.decoder = Namespace(**stored[0].config)
    elif model.get("decoder") is None or trains or Path(model.init_from).exists():
        # What only evaluates may need them too, such as a reference whose log-probabilities are known by them.
        stored = WeightSource(Path(model.init_from))
        model.init_from = stored.name
    if model.get("decoder") is None and isinstance(stored, WeightSource):
        model.decoder = Namespace(**stored.config)
    if "tokenizer" in data and data.tokenizer is None:
        data.tokenizer = model.init_from[0] if isinstance(model.init_from, list) else model.init_from
    return stored


def vocabulary_size(stored: Sources, of_data: int) -> int:
    """Rows of the embedding: those of the weights to begin from, which may be more than the tokenizer has tokens.

    Raises:
        InputError: when the tokenizer has more tokens than the weights have rows.
    """
    first = stored[0] if isinstance(stored, list) else stored
    if first is None:
        return of_data
    rows: int = first.config["vocabulary_size"]
    if of_data > rows:
        raise InputError(f"the tokenizer has {of_data} token ids, the weights of init_from {rows}: take theirs")
    return rows


def open_weights(model: Any, data: Any, stored: Sources) -> None:
    """Give a model, its rewards and its critic the weights that they begin from."""
    if stored is not None:
        model.stored = stored

    def tokenizer_of(path: Path) -> Tokenizer:
        require_same_template(path, data.template)
        return load_tokenizer(find_tokenizer(path))

    if isinstance(model, WeightSourcesUser):
        model.load_weight_sources(data.tokenizer, tokenizer_of)

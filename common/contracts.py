"""Contracts between packages: what a model, a module, a data module, a strategy and a callback offer each other.

Packages that may not import each other agree here. The protocols are structural: a class follows one by having its
members, and mypy checks that at the place of use, where a `hasattr` would find out during training. They hold what is
used across a package boundary and nothing else, so each is shorter than the class behind it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypedDict, runtime_checkable


class PackedBatch(TypedDict, total=False):
    """Batch of packed rows, as `models.decoder.Decoder.forward` takes it. B rows, T tokens a row."""

    tokens: Any
    """Token ids, int64 [B, T]."""
    labels: Any
    """Next tokens, int64 [B, T]; `common.constants.IGNORE` where nothing is learned."""
    document_ids: Any
    """Document of each token, int64 [B, T], ascending in a row; tokens attend within their document only."""
    positions: Any
    """Rotary position of each token, int64 [B, T]; counted within documents where absent."""
    branch_ids: Any
    """Response of each token, int64 [B, T]; 0 is the prompt, which the responses behind it share."""
    label_count: Any
    """Labels of the whole step over all ranks and micro-batches, float32 []; the loss is their mean."""
    source_ids: Any
    """Source of each row, int64 [B], an index into `ResumableData.source_names`."""


@runtime_checkable
class ResumableData(Protocol):
    """Data module whose samples are numbered: which have been learned from is one integer."""

    source_names: list[str]

    def batch_sizes(self) -> list[int]:
        """Micro-batch sizes that occur in training, in samples per rank."""


@runtime_checkable
class PairData(Protocol):
    """Data module of preference pairs."""

    def every_pair(self, split: str) -> Any:
        """Loader of each pair of a split once, in order."""


class StoredPairs(PairData, Protocol):
    """Data module of preference pairs beside which log-probabilities can be stored."""

    @property
    def folder(self) -> Path:
        """Folder of prepared data."""

    @property
    def pairs_key(self) -> str:
        """Identity of the pairs and of how many responses each is laid out with."""

    def attach_reference(self, log_probabilities: Mapping[str, Any]) -> None:
        """Give batches the reference's log-probabilities, float32 [examples, responses] by split."""


@runtime_checkable
class PromptSource(Protocol):
    """Data module of prompts for reinforcement learning."""

    def every_row(self) -> Iterator[Mapping[str, Any]]:
        """Validation rows, in order."""


@runtime_checkable
class SummarizedData(Protocol):
    """Data module that can say what became of its raw text."""

    def summary(self) -> dict[str, Any]:
        """Counts of curation, as the report shows them."""


@runtime_checkable
class Preflight(Protocol):
    """Module that holds its settings against the trainer before processes start."""

    def preflight(self, trainer: Any) -> None:
        """Refuse what cannot work.

        Raises:
            InputError: for settings that do not go together.
        """


@runtime_checkable
class ShardedStrategy(Protocol):
    """Strategy that spreads weights over ranks and can bring them together."""

    def unsharded(self, model: Any) -> AbstractContextManager[Any]:
        """The model whole on every rank while the context lasts, for generation."""


@runtime_checkable
class SettlingCallback(Protocol):
    """Callback with a decision open that a checkpoint must not cut in two."""

    def settle(self, trainer: Any, module: Any) -> None:
        """Decide now."""


@runtime_checkable
class WaitingCallback(Protocol):
    """Callback that reports what it waits for."""

    def waiting(self) -> AbstractContextManager[Any]:
        """Context in which time is waiting time."""


@runtime_checkable
class GradientSyncStrategy(Protocol):
    """Strategy whose exchange of gradients can be put off while micro-batches accumulate."""

    def block_backward_sync(self) -> AbstractContextManager[None]:
        """Context in which gradients stay on their rank."""


@runtime_checkable
class GatheringStrategy(Protocol):
    """Strategy whose forward passes gather weights that a backward pass would release."""

    def release_gathered_weights(self) -> None:
        """Keep nothing but this rank's shards."""


@runtime_checkable
class WeightSourcesUser(Protocol):
    """Module that needs the weights of further models, such as reward models and critics."""

    def load_weight_sources(self, tokenizer: Any, tokenizer_of: Callable[[Path], Any]) -> None:
        """Open them, before processes start.

        Args:
            tokenizer: tokenizer of the data.
            tokenizer_of: tokenizer of the run or file at a path; packages of models do not read tokenizers.

        Raises:
            InputError: for weights that are missing, of another kind or of another tokenizer.
        """

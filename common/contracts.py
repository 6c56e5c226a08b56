"""Contracts between packages: what a model, a module, a data module, a strategy and a callback offer each other.

Packages that may not import each other agree here. The protocols are structural: a class follows one by having its
members, and mypy checks that at the place of use, where a `hasattr` would find out during training. They hold what is
used across a package boundary and nothing else, so each is shorter than the class behind it.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
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
class ParallelizableModel(Protocol):
    """Model that the strategies can spread over ranks: sub-modules by name, None where a pipeline stage has none."""

    tok_embeddings: Any
    """Embedding of token ids."""
    layers: Any
    """`ModuleDict` of blocks by number."""
    norm: Any
    """Norm behind the blocks."""
    output: Any
    """Output head."""


@runtime_checkable
class DecoderModule(Protocol):
    """LightningModule that trains a decoder."""

    config: Any
    """Shape of the decoder, a `models.config.DecoderConfig`."""


@runtime_checkable
class WholeBatchLoss(Protocol):
    """LightningModule whose loss may need all pairs of a batch in one row."""

    whole_rows: bool
    """The batch cannot be cut by rows."""


@runtime_checkable
class WindowedData(Protocol):
    """Data module of packed windows."""

    sequence_length: int
    """Tokens in a window."""


@runtime_checkable
class BatchedData(Protocol):
    """Data module that knows its batch sizes."""

    def batch_sizes(self) -> list[int]:
        """Micro-batch sizes that occur in training, in samples per rank."""


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

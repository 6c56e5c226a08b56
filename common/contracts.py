"""Contracts between packages: Protocols of models, data modules, strategies and callbacks, and the type of a batch.

Packages that may not import each other agree here. The protocols are structural: a class follows one by having its
members, and mypy checks that at the place of use, where a `hasattr` would find out during training. They hold what is
used across a package boundary and nothing else, so each is shorter than the class behind it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypedDict, runtime_checkable


class PackedBatch(TypedDict, total=False):
    """Batch of packed rows, as `models.decoder.Decoder.forward` takes it. B rows, T tokens per row."""

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
    """Source of each row, int64 [B], an index into `NamedSources.source_names`."""


class SkippedSamples(Protocol):
    """Ranges of sample numbers that are left out of training."""

    def add(self, first: int, stop: int) -> None:
        """Leave `first` to `stop` - 1 out."""

    def within(self, start: int, stop: int) -> int:
        """Number of samples left out from `start` to `stop` - 1."""


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
class NamedSources(Protocol):
    """Data module of one or more sources."""

    source_names: list[str]


@runtime_checkable
class ResumableData(NamedSources, BatchedData, Protocol):
    """Data module with numbered samples: the position in their order is one integer."""

    @property
    def skipped(self) -> SkippedSamples:
        """Samples left out of training."""

    def order(self) -> dict[str, Any]:
        """What the order of samples depends on."""

    def position(self) -> int:
        """First sample number that no completed optimizer step has learned from."""

    def position_at(self, step: int) -> int:
        """The same after `step` optimizer steps."""

    def samples_of_step(self, step: int) -> list[int]:
        """Sample numbers of the optimizer step that made `step` of them complete, over all ranks."""

    def origins(self, samples: Sequence[int]) -> list[dict[str, Any]]:
        """Source and documents of each sample, as far as they are known; at least `sample`, its number."""


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
    """Data module with a summary of its raw text for the report."""

    def summary(self) -> dict[str, Any]:
        """Counts of curation, or examples where nothing was curated."""


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
class ModelParallelStrategy(Protocol):
    """Strategy that may split one copy of the model over several ranks; known once its processes run."""

    @property
    def holds_whole_model(self) -> bool:
        """Whether one process has all parameters."""

    @property
    def is_model_parallel_leader(self) -> bool:
        """Whether this rank is the first of those that see the same batches."""


class CheckpointWriter(Protocol):
    """Writer of checkpoints that may still be at work when training goes on."""

    def wait(self) -> None:
        """Wait until the last checkpoint is on disk."""


@runtime_checkable
class CheckpointingStrategy(Protocol):
    """Strategy that writes checkpoints itself."""

    saver: CheckpointWriter


@runtime_checkable
class TimedStrategy(Protocol):
    """Strategy that reports what it does within a step: `schedule` around it, `action` around each computation."""

    watch: Callable[[str], AbstractContextManager[None]]


class NormHistory(Protocol):
    """Gradient norms of the last steps."""

    skipped: Any
    """Optimizer steps left out so far, float32 []."""


@runtime_checkable
class SpikeSkippingModule(Protocol):
    """Module that can leave out a step of outsized gradient."""

    norm_history: NormHistory | None
    """None where it never leaves one out."""


@runtime_checkable
class SettlingCallback(Protocol):
    """Callback with an open decision that must be taken before a checkpoint is saved."""

    def settle(self, trainer: Any, pl_module: Any) -> None:
        """Decide now."""


@runtime_checkable
class WaitingCallback(Protocol):
    """Callback that waits for the device, and does so within a context that another callback may time."""

    waiting: Callable[[], AbstractContextManager[None]]


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
            tokenizer_of: tokenizer of the run or file at a path, refused where its chat template is another than the
                data's; packages of models do not read tokenizers.

        Raises:
            InputError: for weights that are missing, of another kind or of another tokenizer.
        """


def attached_data(trainer: Any) -> Any:
    """The data module of a Lightning trainer, None where it has none: it sets the attribute only with one."""
    return getattr(trainer, "datamodule", None)

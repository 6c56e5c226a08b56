"""Name of each strategy that YAML uses as `strategies.NAME`, imported when it is first used."""

from typing import TYPE_CHECKING

from common.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from models.weights.single_file import AtomicCheckpointIO
    from strategies.pipeline_parallel import PipelineParallelStrategy
    from strategies.tensor_parallel import TensorParallelStrategy

__all__ = ["AtomicCheckpointIO", "PipelineParallelStrategy", "TensorParallelStrategy"]

__getattr__ = lazy_exports(__name__, __file__)

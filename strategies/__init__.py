from models.weights.single_file import AtomicCheckpointIO
from strategies.pipeline_parallel import PipelineParallelStrategy
from strategies.tensor_parallel import TensorParallelStrategy

__all__ = ["AtomicCheckpointIO", "PipelineParallelStrategy", "TensorParallelStrategy"]

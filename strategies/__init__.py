from strategies.checkpoint import AtomicCheckpointIO
from strategies.tensor_parallel import TensorParallelStrategy

__all__ = ["AtomicCheckpointIO", "TensorParallelStrategy"]

from strategies.checkpoint import AtomicCheckpointIO

__all__ = ["AtomicCheckpointIO"]

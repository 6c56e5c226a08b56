"""CUDA graphs of decoding steps, so that a GPU does not wait for Python to launch its kernels.

A graph has fixed shapes and addresses. So all slots are computed, empty ones too, and there is one graph per length of
the cache that is read: memory for the graphs, and work on empty slots, in return for some hundred launches per token.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from common.errors import InputError
from models.decoder import Decoder
from models.kv_cache import KVCache


class DecodeGraphs:
    """Logits of the next token of each slot, from a CUDA graph of the step.

    Args:
        decoder: whole language model on a GPU.
        cache: KV cache, all of whose slots are computed each time.

    Raises:
        InputError: on other devices.
    """

    def __init__(self, decoder: Decoder, cache: KVCache) -> None:
        if cache.device.type != "cuda":
            raise InputError(f"cuda_graphs=true on {cache.device.type}: only CUDA devices record, set it to false")
        self.decoder, self.cache = decoder, cache
        self.tokens = torch.zeros(len(cache.lengths), 1, dtype=torch.int64, device=cache.device)
        self.steps: dict[int, Callable[[], Tensor]] = {}

    def __call__(self, tokens: Sequence[int]) -> Tensor:
        """Float32 [slots, V] after one more token in each of the first slots; the next call overwrites it."""
        slots = len(self.cache.lengths)
        self.cache.extend(len(tokens), spare=slots - len(tokens))
        self.tokens[: len(tokens), 0].copy_(torch.tensor(tokens))
        if self.cache.longest not in self.steps:
            self.steps[self.cache.longest] = self.record()
        return self.steps[self.cache.longest]()

    def step(self) -> Tensor:
        """The step that is recorded: a function of fixed tensors alone."""
        return self.decoder.output.logits(self.decoder(self.tokens, cache=self.cache)[:, 0])

    def record(self) -> Callable[[], Tensor]:
        """Graph of the step as it would run now; running it twice writes the same values twice."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self.step()  # libraries allocate at first use, which cannot be recorded
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = self.step()

        def replay() -> Tensor:
            graph.replay()
            return logits

        return replay

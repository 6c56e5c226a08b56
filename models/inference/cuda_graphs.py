"""Steps of decoding recorded once and replayed, so that a GPU does not wait for Python to launch its kernels.

What is recorded has fixed shapes and addresses. So all slots are computed, also those nobody is in, and there is one
recording for every stretch of the cache that is read: memory for the recordings, and work on empty slots, in return for
some hundred launches a token.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from common.errors import InputError
from models.decoder import Decoder
from models.kv_cache import KeyValueCache


class DecodeGraphs:
    """Scores of the next token of every slot, from a recording of the step.

    Args:
        decoder: the model, on a GPU, whole.
        cache: with as many slots as are computed each time.

    Raises:
        InputError: on other devices.
    """

    def __init__(self, decoder: Decoder, cache: KeyValueCache) -> None:
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
        """What is recorded: a function of fixed tensors alone."""
        return self.decoder.output.logits(self.decoder(self.tokens, cache=self.cache)[:, 0])

    def record(self) -> Callable[[], Tensor]:
        """The step as it would run now, without its Python; running it twice writes the same twice."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self.step()  # libraries allocate what they need at first use, which cannot be recorded
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = self.step()

        def replay() -> Tensor:
            graph.replay()
            return logits

        return replay

"""Batched text generation with continuous batching: packed prefill, then a token per step in refilled slots.

Shared by `generate`, the samples of a run and reinforcement learning, which needs the log-probability of each token
drawn. A row's result does not depend on its neighbors. The price is Python: it launches each operation of a token and a
GPU waits for it, unless steps are replayed as CUDA graphs (`models.inference.cuda_graphs`).
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from common.errors import InputError
from models.decoder import Decoder
from models.inference.cuda_graphs import DecodeGraphs
from models.inference.sampling import Sampling, draw, uniforms
from models.kv_cache import KVCache


@dataclass
class Generated:
    """Response to one prompt.

    Attributes:
        tokens: token ids without the prompt, with the stop token if one was drawn.
        log_probabilities: log-probability of each token at the sampling's temperature (1 where that is 0), before any
            filter: the value a trainer computes from the same logits.
        finish: `stop` where a stop token was drawn, `length` at the maximum length.
    """

    tokens: list[int]
    log_probabilities: list[float]
    finish: Literal["stop", "length"]


def unpadded(tokens_BT: Tensor, attention_mask_BT: Tensor) -> list[list[int]]:
    """Prompts of a padded batch, as `generate` takes them; padding may be on either side.

    Args:
        tokens_BT: token ids.
        attention_mask_BT: 1 or True for tokens, 0 for padding.
    """
    rows = zip(tokens_BT, attention_mask_BT.bool(), strict=True)
    return [tokens[counts].tolist() for tokens, counts in rows]


@torch.inference_mode()
def generate(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    sampling: Sampling = Sampling(),
    stop: Collection[int] = (),
    slots: int = 32,
    rows: Sequence[int] | None = None,
    cuda_graphs: bool = False,
    on_token: Callable[[int, int], None] | None = None,
) -> list[Generated]:
    """Responses to prompts.

    Args:
        decoder: language model, on any device.
        prompts: token ids, at least one each, without padding; see `unpadded`.
        max_new_tokens: tokens of a response at most.
        sampling: temperature and filters.
        stop: token ids that end a response.
        slots: rows decoded together; a finished one makes room for the next prompt.
        rows: number of each prompt in the seed's stream; its index by default. Equal prompts with different numbers
            are different samples.
        cuda_graphs: replay recorded steps; pays off for many tokens on a GPU.
        on_token: function of a prompt's index and a token id, called as soon as the token is drawn.

    Returns:
        One response per prompt, in their order.

    Raises:
        InputError: for an empty prompt, or sizes below 1.
    """
    if not all(len(prompt) for prompt in prompts):
        raise InputError("prompt is empty: give at least one token, the beginning-of-text token will do")
    if max_new_tokens < 0 or slots < 1:
        raise InputError(f"max_new_tokens={max_new_tokens}, slots={slots}: need max_new_tokens >= 0 and slots >= 1")
    results = [Generated([], [], "length") for _ in prompts]
    if not prompts or not max_new_tokens:
        return results
    run = _Run(decoder, prompts, results, max_new_tokens, sampling, frozenset(stop), slots, rows, cuda_graphs, on_token)
    while run.prompts_of or run.waiting:
        run.admit()
        run.step()
    return results


class _Run:
    """State of a generation: `prompts_of` has the prompt's number of each occupied slot, the first ones."""

    def __init__(
        self,
        decoder: Decoder,
        prompts: Sequence[Sequence[int]],
        results: list[Generated],
        max_new_tokens: int,
        sampling: Sampling,
        stop: frozenset[int],
        slots: int,
        rows: Sequence[int] | None,
        cuda_graphs: bool,
        on_token: Callable[[int, int], None] | None,
    ) -> None:
        self.decoder, self.prompts, self.results, self.on_token = decoder, prompts, results, on_token
        self.max_new_tokens, self.sampling, self.stop = max_new_tokens, sampling, stop
        self.rows = list(range(len(prompts))) if rows is None else list(rows)
        # The longest first: those admitted together are alike, and the last ones to finish are short.
        self.waiting = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
        self.slots = min(slots, len(prompts))
        capacity = max(map(len, prompts)) + max_new_tokens
        self.cache = KVCache(decoder.config, self.slots, capacity, decoder.tok_embeddings.weight)
        self.graphs = DecodeGraphs(decoder, self.cache) if cuda_graphs else None
        self.prompts_of: list[int] = []
        self.last: list[int] = []  # the token of each slot that is not yet in the cache
        self.seen: Tensor | None = None
        if sampling.repetition_penalty != 1:
            self.seen = torch.zeros(self.slots, decoder.config.vocabulary_size, dtype=torch.bool, device=self.device)

    @property
    def device(self) -> torch.device:
        return self.cache.device

    def admit(self) -> None:
        """Prefill of the free slots: their prompts are computed together, packed as documents."""
        first = len(self.prompts_of)
        new = [self.waiting.pop() for _ in range(min(self.slots - first, len(self.waiting)))]
        if not new:
            return
        prompts = [self.prompts[number] for number in new]
        lengths = [len(prompt) for prompt in prompts]
        if self.seen is not None:
            for slot, prompt in enumerate(prompts, first):
                self.seen[slot] = False
                self.seen[slot, list(prompt)] = True
        tokens = torch.tensor([token for prompt in prompts for token in prompt], device=self.device)[None]
        documents = torch.repeat_interleave(torch.arange(len(prompts)), torch.tensor(lengths))[None].to(self.device)
        self.cache.prefill(range(first, first + len(new)), lengths)
        hidden = self.decoder(tokens, documents, self.cache)[0]
        self.prompts_of += new
        self.last += [0] * len(new)
        last = torch.tensor(lengths, device=self.device).cumsum(0) - 1
        self._draw(first, self.decoder.output.logits(hidden[last]))

    def step(self) -> None:
        """Decoding step: one more token for each occupied slot."""
        if not self.prompts_of:
            return
        if self.graphs is not None:
            self._draw(0, self.graphs(self.last)[: len(self.last)])
            return
        self.cache.extend(len(self.last))
        tokens = torch.tensor(self.last, device=self.device)[:, None]
        self._draw(0, self.decoder.output.logits(self.decoder(tokens, cache=self.cache)[:, 0]))

    def _draw(self, first: int, logits: Tensor) -> None:
        """Draw the next token of the slots from `first` on."""
        seen = None if self.seen is None else self.seen[first : first + len(logits)]
        slots = range(first, len(self.prompts_of))
        results = [self.results[self.prompts_of[slot]] for slot in slots]
        numbers = [self.rows[self.prompts_of[slot]] for slot in slots]
        uniform = uniforms(self.sampling.seed, numbers, [len(result.tokens) for result in results]).to(logits.device)
        drawn = draw(logits, self.sampling, uniform, seen)
        scaled = logits / (self.sampling.temperature or 1.0)
        log_probabilities = scaled.gather(-1, drawn[:, None]).squeeze(-1) - scaled.logsumexp(-1)
        if seen is not None:
            seen.scatter_(1, drawn[:, None], True)
        self.last[first:] = drawn.tolist()
        finished = []
        for slot, result, value in zip(slots, results, log_probabilities.tolist(), strict=True):
            token = self.last[slot]
            result.tokens.append(token)
            result.log_probabilities.append(value)
            if self.on_token is not None:
                self.on_token(self.prompts_of[slot], token)
            if token in self.stop or len(result.tokens) == self.max_new_tokens:
                result.finish = "stop" if token in self.stop else "length"
                finished.append(slot)
        for slot in reversed(finished):
            self._leave(slot)

    def _leave(self, slot: int) -> None:
        """Free a slot; the last occupied one moves into it."""
        last = len(self.prompts_of) - 1
        if slot != last:
            self.cache.move(last, slot)
            self.prompts_of[slot], self.last[slot] = self.prompts_of[last], self.last[last]
            if self.seen is not None:
                self.seen[slot] = self.seen[last]
        del self.prompts_of[last], self.last[last]

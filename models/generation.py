"""Sampling from a decoder: one prefill of the prompt, then one token a step against a key/value cache.

All rows of a call share one prompt, so that no padding and no attention mask is needed.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from errors import InputError
from models.attention import KeyValueCache
from models.decoder import Decoder


def sample_token(logits_BV: Tensor, temperature: float, top_p: float, generator: torch.Generator) -> Tensor:
    """Draw one token id a row.

    Args:
        logits_BV: scores of the next token.
        temperature: 0 takes the most likely token, 1 samples the model's own distribution.
        top_p: keep the smallest set of tokens that holds this share of the probability (Holtzman et al. 2020).
        generator: source of randomness.

    Returns:
        int64 [B].
    """
    if temperature == 0:
        return logits_BV.argmax(-1)
    probabilities, order = (logits_BV.float() / temperature).softmax(-1).sort(descending=True)
    # A token goes when those before it already hold the share: the first one always stays.
    before = probabilities.cumsum(-1) - probabilities
    probabilities = probabilities.masked_fill(before >= top_p, 0.0)
    return order.gather(-1, torch.multinomial(probabilities, 1, generator=generator)).squeeze(-1)


@torch.inference_mode()
def generate(
    decoder: Decoder,
    prompt: Sequence[int],
    *,
    new_tokens: int,
    samples: int = 1,
    temperature: float = 0.8,
    top_p: float = 0.95,
    stop: int | None = None,
    seed: int = 0,
) -> list[list[int]]:
    """Continue a prompt.

    Args:
        decoder: the model, on any device.
        prompt: token ids, at least one.
        new_tokens: tokens to add at most.
        samples: continuations to draw.
        temperature, top_p: see `sample_token`.
        stop: token id that ends a continuation and is left out of it.
        seed: the same seed gives the same continuations on the same device.

    Returns:
        `samples` lists of new token ids, without the prompt.

    Raises:
        InputError: for an empty prompt or a value out of its range.
    """
    if not prompt:
        raise InputError("prompt is empty: give at least one token, the beginning-of-text token will do")
    if temperature < 0 or not 0 < top_p <= 1:
        raise InputError(f"temperature={temperature}, top_p={top_p}: need temperature >= 0 and 0 < top_p <= 1")
    if samples < 1 or new_tokens < 0:
        raise InputError(f"samples={samples}, new_tokens={new_tokens}: need samples >= 1 and new_tokens >= 0")
    config, weight = decoder.config, decoder.tok_embeddings.weight
    assert config.head_width is not None
    generator = torch.Generator(weight.device).manual_seed(seed)
    capacity = len(prompt) + new_tokens
    cache = KeyValueCache(config.layers, samples, capacity, config.key_value_heads, config.head_width, weight)
    tokens = torch.tensor(list(prompt), device=weight.device).expand(samples, -1)
    done = torch.zeros(samples, dtype=torch.bool, device=weight.device)
    continuation: list[Tensor] = []
    for _ in range(new_tokens):
        logits = decoder.output(decoder(tokens, cache=cache)[:, -1])
        token = sample_token(logits, temperature, top_p, generator)
        continuation.append(token)
        if stop is not None:
            done |= token == stop
            if done.all():
                break
        tokens = token[:, None]
    rows = torch.stack(continuation, dim=1).tolist() if continuation else [[] for _ in range(samples)]
    return [row[: row.index(stop)] if stop in row else row for row in rows]

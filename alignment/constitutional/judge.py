"""LLM judge: the interface of models that complete a conversation or choose between options, and the local one.

One interface for a model of ours and for one behind an endpoint (`alignment.constitutional.endpoint_judge`), so that
critiques and preferences do not care who is asked. A request carries the number of its draws, never a position in a
stream of random numbers: what is asked beside it, before it or again after a kill changes nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

import torch

from common.constants import Messages
from common.errors import InputError
from common.stop_tokens import response_tokens, stop_tokens
from models.decoder import Decoder
from models.inference.generation import generate
from models.inference.likelihood import log_likelihoods
from models.inference.sampling import Sampling


@dataclass(frozen=True)
class Request:
    """Request to a model.

    Attributes:
        messages: end with what is to be responded to.
        number: of its draws, below 2^63; equal requests with different numbers are different samples.
    """

    messages: Messages
    number: int


@dataclass(frozen=True)
class Response:
    """Response to a request.

    Attributes:
        text: without the stop token.
        finish: `stop` where it ended by itself, `length` where no room was left, `refused` where nothing was asked
            because it cannot be; `text` is the reason then.
        prompt_tokens, response_tokens: computed or paid for.
    """

    text: str
    finish: Literal["stop", "length", "refused"]
    prompt_tokens: int = 0
    response_tokens: int = 0


@dataclass(frozen=True)
class ChoiceLogProbs:
    """Choice log-probabilities: how likely each option is as the response.

    Attributes:
        log_probabilities: in nats, one per option; empty where there is no verdict.
        reason: why there is none.
        prompt_tokens, response_tokens: computed or paid for.
    """

    log_probabilities: tuple[float, ...]
    reason: str = ""
    prompt_tokens: int = 0
    response_tokens: int = 0


@dataclass(frozen=True)
class LoadedModel:
    """A language model with what turns messages into its tokens and back.

    Attributes:
        decoder: on the device where it computes.
        tokenizer: has `encode`, `decode`, `control_ids`, `eos` and `pad`.
        template: has `encode` and `encode_prompt`, of messages; raises InputError for what it cannot write down.
        question_batches: makes batches for `models.inference.likelihood.log_likelihoods` of (context, response) pairs.
        identity: changes with the weights, JSON-able.
    """

    decoder: Decoder
    tokenizer: Any
    template: Any
    question_batches: Callable[..., Any]
    identity: Any


OpenModel = Callable[[str, str | None, torch.dtype], LoadedModel]
"""Opens the model at a path with a chat template, or its own where that is None, in a precision."""


class Judge(ABC):
    """LLM judge: a model that completes conversations and chooses between options."""

    prompt_price: float = 0.0
    response_price: float = 0.0
    """Of a million tokens, in any currency."""

    def prepare(self, open_model: OpenModel, journal: Path) -> None:  # noqa: B027 (some need nothing)
        """Load or open what is needed, before the first question.

        Args:
            open_model: opens models of ours.
            journal: file for responses that are not yet in the records, for those who pay for them.
        """

    def commit(self) -> None:  # noqa: B027 (some need nothing)
        """All responses so far are in the records: none will be asked for again."""

    @abstractmethod
    def identity(self) -> Any:
        """Identity of model and sampling, JSON-able, known once prepared; equal identities give equal responses."""

    @abstractmethod
    def complete(self, requests: Sequence[Request]) -> list[Response]:
        """A text in response to each request, in their order."""

    @abstractmethod
    def choose(self, requests: Sequence[Request], options: Sequence[str]) -> list[ChoiceLogProbs]:
        """Log-probabilities of each option as the whole response to each request, in their order."""


class DecoderJudge(Judge):
    """A language model of ours, or a Hugging Face folder of a family that the decoder knows.

    Args:
        init_from: a run's folder, a checkpoint, a file that `convert` wrote, or a Hugging Face folder.
        chat_template: `chatml`, `plain`, `transcript` or a Jinja file; null takes the model's own, else ChatML.
        max_new_tokens: of a response, at most.
        max_prompt_tokens: longer conversations are refused, for a model has seen none; null refuses none.
        temperature, top_p: of the sampling; 1 and 1 are Bai et al.'s (2022).
        stop: texts that end a response, for models that go on with the other's turn; what follows is computed in vain.
        slots: responses decoded together.
        batch_tokens: whose likelihood is computed at once.
        dtype: of the weights and of what is computed.
        prompt_price, response_price: of a million tokens, in any currency, to lay beside an endpoint's.

    Raises:
        InputError: for sizes below 1 or an empty stop.
    """

    def __init__(
        self,
        init_from: str,
        chat_template: str | None = None,
        max_new_tokens: int = 256,
        max_prompt_tokens: int | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
        stop: list[str] | None = None,
        slots: int = 32,
        batch_tokens: int = 4096,
        dtype: Literal["float32", "bfloat16"] = "float32",
        prompt_price: float = 0.0,
        response_price: float = 0.0,
    ) -> None:
        sizes = {"max_new_tokens": max_new_tokens, "slots": slots, "batch_tokens": batch_tokens}
        if max_prompt_tokens is not None:
            sizes["max_prompt_tokens"] = max_prompt_tokens
        require_sizes(sizes, stop)
        require_prices(prompt_price, response_price)
        self.init_from, self.chat_template = init_from, chat_template
        self.max_new_tokens, self.max_prompt_tokens, self.stop = max_new_tokens, max_prompt_tokens, stop or []
        self.sampling = Sampling(temperature=temperature, top_p=top_p)
        self.slots, self.batch_tokens, self.dtype = slots, batch_tokens, dtype
        self.prompt_price, self.response_price = prompt_price, response_price

    def prepare(self, open_model: OpenModel, journal: Path) -> None:
        """Load the weights."""
        self.model = open_model(self.init_from, self.chat_template, getattr(torch, self.dtype))
        self.stop_tokens = stop_tokens(self.model.tokenizer, self.model.template)

    def identity(self) -> Any:
        """The weights, the template and the sampling; sizes of batches too, which change the last digits of a sum."""
        names = ("max_new_tokens", "max_prompt_tokens", "stop", "slots", "batch_tokens", "dtype")
        settings = {name: getattr(self, name) for name in names}
        settings |= {"temperature": self.sampling.temperature, "top_p": self.sampling.top_p}
        return {"weights": self.model.identity, "chat_template": self.model.template.source, **settings}

    def complete(self, requests: Sequence[Request]) -> list[Response]:
        """A text in response to each request, in their order."""
        prompts = [self._prompt(request) for request in requests]
        asked = {number: prompt for number, prompt in enumerate(prompts) if isinstance(prompt, list)}
        generated = generate(
            self.model.decoder,
            list(asked.values()),
            max_new_tokens=self.max_new_tokens,
            sampling=self.sampling,
            stop=self.stop_tokens,
            slots=self.slots,
            rows=[requests[number].number for number in asked],
        )
        responses = [Response(str(prompt), "refused") for prompt in prompts]
        for number, response in zip(asked, generated, strict=True):
            tokens = response.tokens[:-1] if response.finish == "stop" else response.tokens
            whole = self.model.tokenizer.decode_continuation(tokens)
            text = cut_at(whole, self.stop)
            finish = response.finish if text == whole else "stop"
            responses[number] = Response(text, finish, len(prompts[number]), len(response.tokens))
        return responses

    def choose(self, requests: Sequence[Request], options: Sequence[str]) -> list[ChoiceLogProbs]:
        """Log-probabilities of each option as the beginning of the response, in the template's tokens.

        What the options' tokens have in common at their beginning counts for neither.
        """
        prompts = [self._prompt(request) for request in requests]
        encoded = [response_tokens(self.model.template, option, self.stop_tokens) for option in options]
        shared = [tokens[0] for tokens in takewhile(lambda tokens: len({*tokens}) == 1, zip(*encoded, strict=False))]
        responses = [tokens[len(shared) :] for tokens in encoded]
        if not all(responses):
            raise InputError(f"options {', '.join(options)}: one is the beginning of another, take other words")
        contexts = [[*prompt, *shared] for prompt in prompts if isinstance(prompt, list)]
        longest = max(map(len, contexts), default=0) + max(map(len, responses))
        batches = self.model.question_batches(
            [[(context, response) for response in responses] for context in contexts],
            self.batch_tokens,
            self.model.tokenizer.pad,
            longest,
        )
        found = iter(log_likelihoods(self.model.decoder, batches, len(contexts) * len(options), show_progress=False))
        return [
            ChoiceLogProbs(tuple(next(found) for _ in options), prompt_tokens=len(prompt) + len(shared))
            if isinstance(prompt, list)
            else ChoiceLogProbs((), reason=prompt)
            for prompt in prompts
        ]

    def _prompt(self, request: Request) -> list[int] | str:
        """Token ids up to where the response begins, or why there are none."""
        try:
            ids: list[int] = self.model.template.encode_prompt(request.messages)
        except InputError as refusal:
            return f"refused_by_template: {str(refusal)[:80]}"
        if self.max_prompt_tokens is not None and len(ids) > self.max_prompt_tokens:
            return "prompt_too_long"
        return ids or "empty_prompt"


def cut_at(text: str, stop: Sequence[str]) -> str:
    """A text up to the first of these, or all of it."""
    found = [place for place in map(text.find, stop) if place >= 0]
    return text[: min(found, default=len(text))]


def require_sizes(sizes: dict[str, int], stop: Sequence[str] | None) -> None:
    """Refuse sizes below 1 and an empty text to stop at."""
    for name, size in sizes.items():
        if size < 1:
            raise InputError(f"{name}={size}: must be at least 1")
    if stop and not all(stop):
        raise InputError("stop holds an empty text, which would end every response at once: leave it out")


def require_prices(prompt: float, response: float) -> None:
    """Refuse prices that are none."""
    for name, price in (("prompt_price", prompt), ("response_price", response)):
        if not 0 <= price < float("inf"):
            raise InputError(f"{name}={price}: must be a number, not negative")

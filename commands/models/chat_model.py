"""A model that is talked to: weights, tokenizer and chat template, with responses streamed as text.

One way to open and to ask a model for `chat` and `generate`. The whole conversation is computed again for each
response: a cache of the turns before would save a second or two and could not survive an edited history.
"""

from collections.abc import Callable
from pathlib import Path

from common.constants import Messages
from common.errors import InputError
from common.stop_tokens import stop_tokens
from datamodules.conversations.chat_template import ChatTemplate
from datamodules.tokenization.base import Tokenizer
from datamodules.tokenization.files import find_tokenizer, load_tokenizer, own_template
from models.inference.generation import Generated, generate
from models.inference.sampling import Sampling
from models.weights.load import load_decoder
from models.weights.source import WeightSource


class ChatModel:
    """A language model that continues text and responds to conversations.

    Args:
        name: path or name, see `common.stored_models.names`.
        chat_template: in place of the model's own.

    Raises:
        InputError: where there is none, or it is a reward model.

    Attributes:
        parameters: number of them, without the tied copy.
        positions: maximum context in tokens, None where it is not stored.
        template: None for a model without one.
    """

    def __init__(self, name: str, chat_template: str | None = None) -> None:
        stored = WeightSource(Path(name), "--input")
        if stored.config.get("scalar_output"):
            raise InputError(f"input={name}: this is a reward model, which scores text and writes none")
        file = find_tokenizer(stored.path)
        self.tokenizer: Tokenizer = load_tokenizer(file)
        named = chat_template or own_template(file)
        self.template = None if named is None else ChatTemplate(named, self.tokenizer)
        self.stop = stop_tokens(self.tokenizer, self.template)
        self.decoder = load_decoder(stored)
        self.parameters = sum(parameter.numel() for parameter in self.decoder.parameters())
        self.positions = stored.positions

    def require_template(self, name: str) -> ChatTemplate:
        """The chat template.

        Raises:
            InputError: for a model without one.
        """
        if self.template is None:
            raise InputError(
                f"input={name}: the model has no chat template of its own, it continues text; name one with "
                "--chat_template chatml, or train it by SFT"
            )
        return self.template

    def prompt_ids(self, prompt: str) -> list[int]:
        """Token ids of a text that is to be continued."""
        return [*self.tokenizer.beginning, *self.tokenizer.encode(prompt)] or [self.tokenizer.before_text]

    def text_of(self, response: Generated) -> str:
        """Text of a response without its stop token."""
        tokens = response.tokens[:-1] if response.finish == "stop" else response.tokens
        return self.tokenizer.decode_continuation(tokens)

    def respond(
        self,
        messages: Messages,
        max_new_tokens: int,
        sampling: Sampling,
        on_text: Callable[[str], None] = lambda text: None,
    ) -> Generated:
        """A response to a conversation.

        Args:
            messages: end with what is responded to.
            max_new_tokens: tokens of the response at most.
            sampling: temperature and filters.
            on_text: called with each piece of text as soon as it is whole characters.
        """
        assert self.template is not None
        stream = TextStream(self.tokenizer, on_text)

        def on_token(_: int, token: int) -> None:
            if token not in self.stop:
                stream.add(token)

        ids = self.template.encode_prompt(messages)
        (response,) = generate(
            self.decoder, [ids], max_new_tokens=max_new_tokens, sampling=sampling, stop=self.stop, on_token=on_token
        )
        stream.end()
        return response


class TextStream:
    """Text of tokens that come one by one, in pieces of whole characters.

    A token may end within a character, and what it adds depends on the token before it, so that two tokens are decoded
    at a time and not all.

    Args:
        tokenizer: decodes.
        on_text: takes each piece.
    """

    def __init__(self, tokenizer: Tokenizer, on_text: Callable[[str], None]) -> None:
        self._decode, self._on_text = tokenizer.decode_continuation, on_text
        self._tokens: list[int] = []
        self._context = self._written = 0

    def add(self, token: int) -> None:
        """One more token."""
        self._tokens.append(token)
        self._write(whole=False)

    def end(self) -> None:
        """No more tokens: what is half a character is written as it is."""
        self._write(whole=True)

    def _write(self, whole: bool) -> None:
        before = self._decode(self._tokens[self._context : self._written])
        text = self._decode(self._tokens[self._context :])
        if len(text) <= len(before) or (text.endswith("\ufffd") and not whole):
            return
        self._on_text(text[len(before) :])
        self._context, self._written = self._written, len(self._tokens)

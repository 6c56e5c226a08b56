"""Chat templates: messages to token ids, with a mask of the tokens that are trained on.

A template is Jinja, as the ecosystem writes it, and its output is a string; tokens are what counts. Encoding that
string whole would let a user's text forge control tokens, and would merge pieces across the place where generation
begins. So the string is cut at control tokens and at the edges of the responses, and each piece between is encoded
alone: exactly what a model sees when it responds, at the price of now and then one token more.
"""

import re
import warnings
from collections.abc import Collection
from dataclasses import dataclass

import jinja2

from common.constants import Messages
from common.errors import InputError
from datamodules.conversations.messages import TEMPLATE_KEYS, WEIGHT
from datamodules.conversations.template_environment import (
    BEGIN,
    END,
    HiddenText,
    is_known,
    read_template,
    template_environment,
)
from datamodules.tokenization.base import Tokenizer

REASONING = ("reasoning_content", "reasoning", "thinking")
"""Keys of a turn whose text many templates write for the last turn only."""


class TemplateRefusalError(InputError):
    """A template cannot write a conversation down."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of a conversation.

    Attributes:
        ids: of all of it.
        trained: which of them a model is to learn.
        last_response: where the last response begins; the length where there is none.
    """

    ids: list[int]
    trained: list[bool]
    last_response: int

    def prompt_and_response(self) -> tuple[list[int], list[int]]:
        """Everything before the last response, and the last response."""
        return self.ids[: self.last_response], self.ids[self.last_response :]


class ChatTemplate:
    """A chat template bound to a tokenizer.

    Args:
        template: `chatml`, `plain`, `transcript`, or the path of a Jinja file or of a `tokenizer_config.json` that
            holds one. A template without generation blocks is rendered once more for each response, to see where it
            begins.
        tokenizer: its control tokens are what the template's own text may turn into.

    Raises:
        InputError: for a file that is absent or no Jinja, or a control token of the first three that the tokenizer
            lacks.
    """

    def __init__(self, template: str, tokenizer: Tokenizer) -> None:
        self.tokenizer, self.source = tokenizer, read_template(template, bool(tokenizer.beginning))
        self._marked = re.search(r"{%-?\s*generation\s*-?%}", self.source) is not None
        self.control = tokenizer.control_ids()
        lacking = sorted({*re.findall(r"<\|\w+\|>", self.source)} - {*self.control})
        if lacking and is_known(template):
            raise InputError(
                f"chat template {template} writes {', '.join(lacking)}, no control token of the tokenizer: add it to "
                "tokenizer.control_tokens and train again, or take another template"
            )
        if lacking:  # Zephyr's and Tulu's roles are meant to be text
            warnings.warn(
                f"chat template {template} writes {', '.join(lacking)} as text, for they are not control tokens of the "
                "tokenizer: messages can say the same",
                stacklevel=2,
            )
        # The longest first: one control token may begin like another.
        names = sorted(self.control, key=len, reverse=True)
        self._hidden = HiddenText(re.compile("|".join(map(re.escape, names))))
        self._late_ends = re.compile(f"({'|'.join(map(re.escape, names))})(\\s+){END}")
        self._edges = re.compile(f"({BEGIN}|{END}|{'|'.join(map(re.escape, names))})")
        self._special = {
            f"{key}_token": name
            for key in ("bos", "eos", "pad")
            for name, number in self.control.items()
            if number == getattr(tokenizer, key)
        }
        try:
            self._template = template_environment(self._hidden).from_string(self.source)
        except jinja2.TemplateSyntaxError as error:
            raise InputError(f"chat template {template}, line {error.lineno}: {error.message}") from error

    def encode(self, messages: Messages) -> Encoded:
        """A whole conversation: one beginning-of-text token, and after the last response one end-of-text token,
        learned.

        An assistant's turn with `weight: 0` is not learned. What the template writes after the last learned response is
        left out: it is never generated.

        Raises:
            TemplateRefusalError: when the template cannot take the messages, or leaves out what they say.
        """
        self._require_written(messages, learned=True)
        if self._marked:
            text, unlearned = self._render(messages), self._unlearned_regions(messages)
        else:
            text, unlearned = self._rendered_by_response(messages)
        ids, trained, response = self._encode(text, unlearned)
        if True in trained:
            last = len(trained) - trained[::-1].index(True)
            ids, trained = ids[:last], trained[:last]
            if response < last and ids[-1] != self.tokenizer.eos:
                ids.append(self.tokenizer.eos)
                trained.append(True)
        before = len(ids)
        ids, trained = self._begin(ids, trained)
        return Encoded(ids, trained, min(response + len(ids) - before, len(ids)))

    def encode_prompt(self, messages: Messages) -> list[int]:
        """A conversation up to where a response is to be generated.

        Raises:
            TemplateRefusalError: when the template cannot take the messages, or leaves out what they say.
        """
        self._require_written(messages, learned=False)
        text = self._render(messages, add_generation_prompt=True)
        ids, trained, _ = self._encode(text)
        return self._begin(ids, trained)[0]

    def _require_written(self, messages: Messages, learned: bool) -> None:
        """Refuse messages with a key that the template does not write: the output is the same without it.

        Templates leave the reasoning of earlier turns out on purpose, so that only what is learned of it has to be
        written. A tool's result says by its place which call it is for.
        """
        keys = {
            key
            for message in messages
            for key in message.keys() & {*TEMPLATE_KEYS}
            if key != "tool_call_id" and (key, message["role"]) != ("name", "tool")
            if key not in REASONING or (learned and WEIGHT not in message)
        }
        for key in sorted(keys):
            without = [{name: value for name, value in message.items() if name != key} for message in messages]
            if self._written(messages) == self._written(without):
                raise TemplateRefusalError(f"the template writes no {key}")

    def _written(self, messages: Messages, add_generation_prompt: bool = False) -> str | None:
        """The template's output, None where it refuses."""
        try:
            return self._render(messages, add_generation_prompt)
        except TemplateRefusalError:
            return None

    def _unlearned_regions(self, messages: Messages) -> set[int]:
        """Numbers of the marked regions of the output that belong to turns with `weight: 0`."""
        responses = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
        unlearned = [place for place, number in enumerate(responses) if messages[number].get(WEIGHT) == 0]
        if not unlearned:
            return set()
        # A template may mark a turn in several parts: they are counted as turns are added.
        ends = [self._render(messages[: number + 1]).count(BEGIN) for number in responses]
        return {region for place in unlearned for region in range(ends[place - 1] if place else 0, ends[place])}

    def _begin(self, ids: list[int], trained: list[bool]) -> tuple[list[int], list[bool]]:
        """With exactly one beginning-of-text token in front where texts have one, written by the template or not."""
        beginning, written = self.tokenizer.beginning, 0
        while beginning and ids[written : written + 1] == beginning:
            written += 1
        return [*beginning, *ids[written:]], [*([False] * len(beginning)), *trained[written:]]

    def _render(self, messages: Messages, add_generation_prompt: bool = False) -> str:
        shown = [{key: value for key, value in message.items() if key != WEIGHT} for message in messages]
        try:
            text = self._template.render(
                messages=self._hidden.hide(shown),
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._special,
            )
        except Exception as error:  # a template is a program: it may raise anything
            raise TemplateRefusalError(f"the chat template refuses a conversation: {error}") from error
        # What a template marks may reach behind the line end; a response ends at its control token.
        return self._late_ends.sub(rf"\1{END}\2", text) if self._marked else text

    def _rendered_by_response(self, messages: Messages) -> tuple[str, set[int]]:
        """The output with marks put around each response: what the response adds to the output before it.

        Templates that write reasoning into the last turn alone write earlier turns in two ways. That matters where one
        of them is learned: others are left unmarked then.

        Returns:
            The output, and the numbers of marked regions that are not learned.
        """
        text, weights = "", list[bool]()
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            is_learned = message.get(WEIGHT) != 0
            after = self._render(messages[: number + 1])
            before = self._rendered_before(messages[:number], after)
            plain = text.replace(BEGIN, "").replace(END, "")
            if not before.startswith(plain) and not any(weights):
                text, plain, weights = "", "", []
            if not after.startswith(before) or not before.startswith(plain):
                if not is_learned:
                    continue
                raise TemplateRefusalError(
                    "the chat template writes earlier turns differently when a response follows: put "
                    "{% generation %} and {% endgeneration %} around what the assistant says"
                )
            response = after[len(before) :]
            text += before[len(plain) :] + BEGIN + response.rstrip() + END + response[len(response.rstrip()) :]
            weights.append(is_learned)
        return text, {region for region, is_learned in enumerate(weights) if not is_learned}

    def _rendered_before(self, messages: Messages, after: str) -> str:
        """The output up to where a response to some messages begins.

        Args:
            messages: those before the response; many templates refuse none, so where the assistant opens a conversation
                the response begins behind what would be before any other.
            after: the output with the response.
        """
        if any(message["role"] == "user" for message in messages):
            return self._render(messages, add_generation_prompt=True)
        before = self._written(messages, add_generation_prompt=True)
        if before is not None and after.startswith(before):
            return before
        asked = [{"role": "user", "content": "?"}]
        opens = self._render(asked, add_generation_prompt=True).removeprefix(self._render(asked))
        if opens not in after:
            raise TemplateRefusalError("the chat template cannot begin with the assistant")
        return after[: after.find(opens) + len(opens)]

    def _encode(self, rendered: str, unlearned: Collection[int] = ()) -> tuple[list[int], list[bool], int]:
        """Ids, which are learned, and where the last response begins; `unlearned` are numbers of marked regions."""
        ids: list[int] = []
        trained: list[bool] = []
        inside, response, region = False, None, 0
        controls = {*self.control.values()}
        for piece in self._edges.split(rendered):
            if piece == BEGIN:
                inside, response, region = region not in unlearned, len(ids), region + 1
                continue
            if piece == END:
                inside = False
                continue
            if piece in self.control:
                new = [self.control[piece]]
            else:
                text = self._hidden.show(piece)
                # A tokenizer that puts a space in front of a text puts none where one is cut.
                new = (
                    self.tokenizer.encode_continuation(text, behind_control=ids[-1] in controls)
                    if ids
                    else self.tokenizer.encode(text)
                )
            ids += new
            trained += [inside] * len(new)
        return ids, trained, len(ids) if response is None else response

"""`chat`: a conversation with a model in the terminal, its responses streamed.

Lines are read one by one, so that a conversation can also be piped in; the price is that a message is one line.
"""

import builtins
import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from common.constants import Messages
from common.errors import InputError
from common.stored_models.names import require_stored_model

if TYPE_CHECKING:
    from commands.models.chat_model import ChatModel
    from models.inference.sampling import Sampling

HELP = "/reset forgets the conversation, /system TEXT sets the system prompt, /undo takes back a turn, /quit ends"


def chat(
    input: str,
    system: str | None = None,
    chat_template: str | None = None,
    max_new_tokens: int = 512,
    temperature: float = 0.7,
    top_k: int = 0,
    top_p: float = 0.95,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    seed: int = 0,
) -> None:
    """Talk with a model in the terminal.

    A message is a line. /reset forgets the conversation, /system TEXT sets the system prompt, /undo takes back a turn,
    /quit or the end of the input ends. Ctrl-C ends a response.

    Args:
        input: a run's folder, a checkpoint, a file that `convert` wrote, a Hugging Face folder, a GGUF file, or a name:
            smollm2-135m-instruct, or owner/name of the hub.
        system: system prompt; null leaves it to the template.
        chat_template: chatml, plain, transcript or a file, in place of the model's own.
        max_new_tokens: tokens of a response at most.
        temperature: temperature of sampling; 0 takes the most likely token.
        top_k: number of most likely tokens to sample from; 0 is all.
        top_p: share of the probability to sample from.
        min_p: least probability of a token to sample, relative to the most likely one.
        repetition_penalty: above 1 makes tokens that occurred less likely.
        seed: seed of sampling.
    """
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens={max_new_tokens}: must be at least 1")
    require_stored_model(input, "--input")

    from commands.models.chat_model import ChatModel
    from models.inference.sampling import Sampling

    Sampling(repetition_penalty, temperature, top_k, top_p, min_p, seed)  # refused before weights are read
    model = ChatModel(input, chat_template)
    model.require_template(input)
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 (arrows and history in `input`)
        print(f"{input}: {model.parameters / 1e6:.1f} M parameters. {HELP}")
    history: Messages = []
    for turn, line in enumerate(_lines("> " if is_terminal else "")):
        message = line.strip()
        if message.startswith("/"):
            name, _, text = message.partition(" ")
            if name == "/quit":
                break
            if name == "/reset":
                history = []
            elif name == "/undo":
                history = history[:-2]
            elif name == "/system":
                system = text.strip() or None
            else:
                print(HELP)
            continue
        if not message:
            continue
        asked: Messages = [*history, {"role": "user", "content": message}]
        try:
            sampling = Sampling(repetition_penalty, temperature, top_k, top_p, min_p, seed + turn)
            history = _turn(model, system, asked, max_new_tokens, sampling)
        except InputError as error:
            # The conversation goes on: only this message cannot be written down.
            print(f"error: {error}", file=sys.stderr)


def _turn(model: "ChatModel", system: str | None, asked: Messages, room: int, sampling: "Sampling") -> Messages:
    """The conversation with the response, which is printed while it is made."""
    first: Messages = [] if system is None else [{"role": "system", "content": system}]
    if model.positions is not None:
        assert model.template is not None
        left_out = 0
        while len(asked) > 1 and len(model.template.encode_prompt([*first, *asked])) + room > model.positions:
            asked, left_out = asked[2:], left_out + 1
        if left_out:
            print(f"({left_out} turns left out: the context is {model.positions} tokens)", file=sys.stderr)
    written: list[str] = []

    def write(text: str) -> None:
        written.append(text)
        print(text, end="", flush=True)

    with contextlib.suppress(KeyboardInterrupt):  # what was said so far stays
        model.respond([*first, *asked], room, sampling, write)
    print(flush=True)
    return [*asked, {"role": "assistant", "content": "".join(written)}]


def _lines(prompt: str) -> Iterator[str]:
    while True:
        try:
            yield builtins.input(prompt)
        except EOFError:
            return
        except KeyboardInterrupt:
            print()
            return

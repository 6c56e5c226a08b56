"""Chat template environment: Jinja as transformers has it, with marks around responses.

Templates are written for transformers, whose own functions, filters and names they use. The date that they may write is
that of the environment's making, so that one conversation is never written on two days.
"""

import json
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

from common.errors import InputError
from common.stored_models.gguf_metadata import gguf_metadata, is_gguf

BEGIN, END, ESCAPE = "\ue010", "\ue011", "\ue012"
"""Marks around a response in a template's output, and what hides them and control tokens in messages' own text."""

TEMPLATES = Path(__file__).parent / "templates"
_BEGINNING = "{{- bos_token -}}\n"
_HIDDEN = {"0": ESCAPE, "1": BEGIN, "2": END, "3": ""}


class Generation(jinja2.ext.Extension):
    """`{% generation %}...{% endgeneration %}` around what the model is to say, as in Hugging Face's templates."""

    tags = {"generation"}  # noqa: RUF012 (Jinja's own name for it)

    def parse(self, parser: Any) -> Any:
        """A call to `_mark` around the block."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller: Any) -> str:
        return f"{BEGIN}{caller()}{END}"


class HiddenText:
    """Control tokens and marks in messages' own text, hidden from what cuts a template's output.

    Args:
        control: matches a control token's name.
    """

    def __init__(self, control: re.Pattern[str]) -> None:
        self._control = control

    def hide(self, value: Any) -> Any:
        """A value with control tokens and marks hidden in every text of it."""
        if isinstance(value, str):
            for digit in "012":
                value = value.replace(_HIDDEN[digit], f"{ESCAPE}{digit}")
            return self._control.sub(lambda match: f"{match[0][0]}{ESCAPE}3{match[0][1:]}", value)
        return _in_every_text(self.hide, value)

    def show(self, value: Any) -> Any:
        """The value that was hidden."""
        if isinstance(value, str):
            return re.sub(f"{ESCAPE}([0-3])", lambda match: _HIDDEN[match[1]], value)
        return _in_every_text(self.show, value)


def _in_every_text(function: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, dict):
        return {function(key): function(item) for key, item in value.items()}
    return [function(item) for item in value] if isinstance(value, list | tuple) else value


def template_environment(hidden: HiddenText) -> jinja2.Environment:
    """The environment that templates are compiled in.

    Args:
        hidden: text that is shown before it is written as JSON, and hidden again.
    """
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    made = datetime.now()

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        # Jinja's own escapes what HTML needs, which is no HTML here.
        written = json.dumps(
            hidden.show(value), ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )
        return str(hidden.hide(written))

    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = made.strftime
    return environment


def is_known(template_name: str) -> bool:
    """Whether a template is named, as those of this project, and no path."""
    return "/" not in template_name and "." not in template_name


def read_template(template_name: str, has_beginning: bool = True) -> str:
    """The Jinja source of a template given by name or path.

    Args:
        template_name: `chatml`, `plain`, `transcript`, or a path.
        has_beginning: whether the tokenizer puts a beginning-of-text token before texts. Many only name one, SmolLM2's
            is ChatML's `<|im_start|>`: of these templates it is left out then, in every text and in the export.

    Raises:
        InputError: when there is no such file, or it is no text.
    """
    path = TEMPLATES / f"{template_name}.jinja" if is_known(template_name) else Path(template_name)
    if not path.is_file():
        known = ", ".join(sorted(path.stem for path in TEMPLATES.glob("*.jinja")))
        raise InputError(f"chat_template={template_name}: neither one of {known} nor a file")
    try:
        if is_gguf(path):
            return str(gguf_metadata(path)["tokenizer.chat_template"])
        text = path.read_text(encoding="utf-8")
        template = json.loads(text)["chat_template"] if path.suffix == ".json" else text
        if isinstance(template, list):  # several, by name
            template = next(one["template"] for one in template if one["name"] == "default")
    except (UnicodeDecodeError, KeyError, ValueError, StopIteration) as error:
        raise InputError(f"chat_template={template_name}: holds no template in UTF-8 ({error!r})") from error
    return str(template) if has_beginning or not is_known(template_name) else str(template).replace(_BEGINNING, "")


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)

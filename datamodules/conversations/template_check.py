"""Chat template check: models that read one conversation have to read it in the same tokens.

What two templates write is compared, and not their text, for many spell the same thing in their own way.
"""

from pathlib import Path

from common.errors import InputError
from datamodules.conversations.chat_template import ChatTemplate
from datamodules.conversations.template_environment import read_template
from datamodules.tokenization.files import find_tokenizer, own_template


def require_same_template(path: Path, template: ChatTemplate) -> None:
    """Refuse a reward model or critic that reads conversations in other tokens than a template writes.

    Args:
        path: its run or file; one without a template may be of any.
        template: in which it is to read responses.

    Raises:
        InputError: for another one.
    """
    named = own_template(find_tokenizer(path))
    if named is None or (source := read_template(named)) == template.source:
        return
    try:
        alike = _writes(ChatTemplate(named, template.tokenizer)) == _writes(template)
    except InputError:
        alike = False
    if not alike:
        raise InputError(
            f"{path} was trained with another chat template ({source[:40]!r}...) than the one in use: take "
            f"chat_template={named}, or train it with this one"
        )


def _writes(template: ChatTemplate) -> list[list[int]]:
    talk = [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c"}]
    return [template.encode(talk).ids, template.encode_prompt([*talk, talk[0]])]

"""Which part of a response is its program."""

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment.rewards.code_blocks import code_of, fenced_blocks

CODE = "def f(x):\n    return x\n"


@pytest.mark.parametrize(
    "text",
    {
        "python": f"Text\n```python\n{CODE}```\nmore",
        "untagged": f"```\n{CODE}```",
        "capitals": f"```Python\n{CODE}```",
        "py": f"``` py\n{CODE}```",
        "attributes": f"```python title='a.py'\n{CODE}```",
        "braces": f"```{{.python}}\n{CODE}```",
        "the last": f"```python\nwrong\n```\nBetter:\n```python\n{CODE}```",
        "Python before its output": f"```python\n{CODE}```\nIt prints\n```\n3\n```\nor\n```text\n3\n```",
        "a shell before and after": f"```bash\npip install x\n```\n```\n{CODE}```\n```sh\npython a.py\n```",
        "never closed": f"So:\n```python\n{CODE}",
        "never closed after another": f"```python\nwrong\n```\n```python\n{CODE}",
        "in a list": "1. Do:\n" + textwrap.indent(f"```python\n{CODE}```\n", "   ") + "2. Done",
        "in a list, first": "1. ```python\n" + textwrap.indent(f"{CODE}```\n", "   "),
        "with a tab": textwrap.indent(f"```python\n{CODE}```\n", "\t"),
        "quoted": textwrap.indent(f"```python\n{CODE}```\n", "> "),
        "longer fences": f"````python\n{CODE}````",
        "closed by a longer one": f"```python\n{CODE}`````",
        "tildes": f"~~~python\n{CODE}~~~",
        "Windows": f"```python\r\n{CODE}```\r\n".replace("\n", "\r\n").replace("\r\r", "\r"),
        "behind a thought": f"<think>\n```python\nwrong\n```\nHm, ```python\n</think>\n```python\n{CODE}```",
        "behind a thought on its line": f"<think>Let us```see</think>```python\n{CODE}```",
        "behind an open fence in a thought": f"<think>\n```python\nwrong\n</think>\n\n```python\n{CODE}```",
        "a thought that the prompt began": f"so\n```\nwrong\n```\n</think>\n```\n{CODE}```",
        "a line of code in the text": f"Use ```x``` here\n```python\n{CODE}```\n```and``` here",
        "no block": CODE,
        "no block behind a thought": f"<think>a</think>{CODE}",
    }.items(),
    ids=lambda pair: pair[0],
)
def test_the_program_of_a_response(text: tuple[str, str]) -> None:
    assert code_of(text[1]) == CODE


def test_fences_within_a_block_are_code() -> None:
    """Only one at least as long, of the same sign and with nothing behind it closes."""
    code = 'a = """\n~~~\n```python\n``\n"""\n'
    assert code_of(f"```python\n{code}```") == code
    assert fenced_blocks("````\n```\na\n```\n````\n```js\nb\n```") == [("", "```\na\n```\n"), ("js", "b\n")]


def test_only_other_languages_are_no_program() -> None:
    text = "```json\n{}\n```"
    assert code_of(text) == text


def test_indentation_is_taken_off_as_far_as_the_fence_has_it() -> None:
    assert code_of("  ```python\n  a\n    b\n c\n\n  ```") == "a\n  b\nc\n\n"


@given(code=st.text(alphabet="ab \n"), around=st.text(alphabet="xy \n"))
def test_the_last_untagged_block_is_the_code(code: str, around: str) -> None:
    assert code_of(f"{around}\n```\nearlier\n```\n{around}\n```\n{code}\n```\n{around}") == f"{code}\n"
    assert code_of(around) == around


@given(st.text(alphabet="`~ py\n>-1.<think>/"))
def test_any_text_has_a_program(text: str) -> None:
    assert isinstance(code_of(text), str)

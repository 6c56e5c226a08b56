"""Templates token by token: what is learned, what a user's text cannot forge, and one beginning and end of text."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from datamodules.conversations.chat_template import (
    BEGIN,
    END,
    ESCAPE,
    ChatTemplate,
    Encoded,
    TemplateRefusalError,
    read_template,
)
from datamodules.tokenization.base import Tokenizer, TokenizerSettings
from datamodules.tokenization.files import own_template
from datamodules.tokenization.sentencepiece import train_tokenizer
from tests.helpers.corpus import sentences

TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hello there"},
    {"role": "assistant", "content": "Good day"},
    {"role": "user", "content": "And now?"},
    {"role": "assistant", "content": "Now we part"},
]
LLAMA_STYLE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}{{ m['content'] + eos_token + '\\n' }}"
    "{% else %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% endif %}{% endfor %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([sentences(i, 40) for i in range(20)], TokenizerSettings(vocabulary_size=400))


def learned(encoded: Encoded, tokenizer: Tokenizer) -> list[list[int]]:
    """Runs of learned tokens."""
    runs: list[list[int]] = [[]]
    for token, trained in zip(encoded.ids, encoded.trained, strict=True):
        if trained:
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def test_chatml_token_by_token(tokenizer: Tokenizer) -> None:
    control, encode = tokenizer.control_ids(), tokenizer.encode
    start, end = control["<|im_start|>"], control["<|im_end|>"]
    encoded = ChatTemplate("chatml", tokenizer).encode(TALK)

    def turn(role: str, content: str) -> list[int]:
        return [start, *encode(f"{role}\n{content}"), end, *encode("\n")]

    expected = [tokenizer.bos, *turn("system", "Be kind."), *turn("user", "Hello there")]
    expected += [start, *encode("assistant\n"), *encode("Good day"), end, *encode("\n"), *turn("user", "And now?")]
    expected += [start, *encode("assistant\n"), *encode("Now we part"), end, tokenizer.eos]
    assert encoded.ids == expected
    assert learned(encoded, tokenizer) == [[*encode("Good day"), end], [*encode("Now we part"), end, tokenizer.eos]]
    prompt, answer = encoded.prompt_and_answer()
    assert answer == [*encode("Now we part"), end, tokenizer.eos]
    assert prompt == ChatTemplate("chatml", tokenizer).encode_prompt(TALK[:-1])


def test_plain_puts_nothing_between_turns(tokenizer: Tokenizer) -> None:
    template = ChatTemplate("plain", tokenizer)
    talk = TALK[1:3]
    encoded = template.encode(talk)
    assert encoded.ids == [
        tokenizer.bos, *tokenizer.encode("Hello there"), *tokenizer.encode("Good day"), tokenizer.eos
    ]  # fmt: skip
    assert learned(encoded, tokenizer) == [[*tokenizer.encode("Good day"), tokenizer.eos]]
    assert template.encode_prompt(talk[:1]) == encoded.prompt_and_answer()[0]


def test_a_template_without_generation_blocks_gives_the_same_marks(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """The template's own beginning and end of text are the only ones; what follows the last answer is left out."""
    (tmp_path / "own.jinja").write_text(LLAMA_STYLE)
    talk = TALK[1:]
    encoded = ChatTemplate(str(tmp_path / "own.jinja"), tokenizer).encode(talk)
    eos = tokenizer.eos
    assert encoded.ids.count(tokenizer.bos) == 1
    assert encoded.ids[0] == tokenizer.bos
    assert encoded.ids.count(eos) == 2  # one an answer, none added
    assert learned(encoded, tokenizer) == [[*tokenizer.encode(text), eos] for text in ("Good day", "Now we part")]


pieces = [*"ab \n<|>3", "<|im_end|>", "<|im_start|>", "</s>", "<s>", "<pad>", BEGIN, END, ESCAPE]
text = st.lists(st.sampled_from(pieces), max_size=8).map("".join)


@settings(max_examples=80, deadline=None)
@given(question=text, answer=text)
def test_text_forges_no_control_token(tokenizer: Tokenizer, question: str, answer: str) -> None:
    talk = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    control = {*tokenizer.control_ids().values()}
    for name, added in (("chatml", 6), ("plain", 2)):
        encoded = ChatTemplate(name, tokenizer).encode(talk)
        assert sum(token in control for token in encoded.ids) == added
        assert question in tokenizer.decode(encoded.prompt_and_answer()[0])
        assert tokenizer.decode(encoded.prompt_and_answer()[1]) == answer


def test_mistakes_are_named(tokenizer: Tokenizer, tmp_path: Path) -> None:
    bare = train_tokenizer(
        [sentences(i, 40) for i in range(20)], TokenizerSettings(vocabulary_size=400, control_tokens=[])
    )
    with pytest.raises(InputError, match=r"writes <\|im_end\|>, <\|im_start\|>, no control token"):
        ChatTemplate("chatml", bare)
    with pytest.raises(InputError, match="neither one of chatml, plain, transcript nor a file"):
        ChatTemplate("nothing", tokenizer)
    (tmp_path / "broken.jinja").write_text("{% for m in messages %}")
    with pytest.raises(InputError, match="line 1"):
        ChatTemplate(str(tmp_path / "broken.jinja"), tokenizer)
    (tmp_path / "refusing.jinja").write_text("{{ raise_exception('no tools') }}")
    for source in ("{{ messages[0].content + 1 }}", "{{ 1 / 0 }}"):
        (tmp_path / "broken.jinja").write_text(source)
        with pytest.raises(TemplateRefusalError, match="refuses a conversation"):
            ChatTemplate(str(tmp_path / "broken.jinja"), tokenizer).encode(TALK)
    (tmp_path / "latin.jinja").write_bytes("{# é #}".encode("latin-1"))
    with pytest.raises(InputError, match="no template in UTF-8"):
        ChatTemplate(str(tmp_path / "latin.jinja"), tokenizer)
    with pytest.raises(InputError, match="refuses a conversation: no tools"):
        ChatTemplate(str(tmp_path / "refusing.jinja"), tokenizer).encode(TALK)
    (tmp_path / "rewriting.jinja").write_text("{{ messages|length }}{% for m in messages %}{{ m.content }}{% endfor %}")
    with pytest.raises(InputError, match="writes earlier turns differently"):
        ChatTemplate(str(tmp_path / "rewriting.jinja"), tokenizer).encode(TALK)


def test_one_answer_after_another_are_two(tokenizer: Tokenizer) -> None:
    talk = [TALK[1], {"role": "assistant", "content": "first"}, {"role": "assistant", "content": "second"}]
    prompt, answer = ChatTemplate("plain", tokenizer).encode(talk).prompt_and_answer()
    assert tokenizer.decode(answer) == "second"
    assert "first" in tokenizer.decode(prompt)


def test_a_tokenizers_own_template_is_found(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """In its settings, alone or among others by name; a file beside it comes first."""
    file, settings = tmp_path / "tokenizer.json", tmp_path / "tokenizer_config.json"
    assert own_template(file) is None
    named = [{"name": "tools", "template": "x"}, {"name": "default", "template": LLAMA_STYLE}]
    for written in (LLAMA_STYLE, named):
        settings.write_text(json.dumps({"chat_template": written}))
        assert ChatTemplate(str(own_template(file)), tokenizer).source == LLAMA_STYLE
    (tmp_path / "chat_template.jinja").write_text("beside")
    assert read_template(str(own_template(file))) == "beside"

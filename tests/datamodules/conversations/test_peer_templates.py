"""Templates written for transformers give its text and its token ids, by every kind of tokenizer."""

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from datamodules import FileRows, PreferenceData, PromptData
from datamodules.conversations.chat_template import ChatTemplate, TemplateRefusalError
from datamodules.conversations.messages import unlearned
from datamodules.tokenization.base import Tokenizer, TokenizerSettings
from datamodules.tokenization.files import load_tokenizer
from datamodules.tokenization.sentencepiece import SentencePieceTokenizer, train_tokenizer
from datamodules.tokenization.tokenizer_json import tokenizer_json, write_hugging_face_tokenizer
from tests.helpers.corpus import sentences

ASK, SAY = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}
MORE, OTHER = {"role": "user", "content": "So?"}, {"role": "assistant", "content": "No."}
TALK = [ASK, SAY, MORE, OTHER]


@pytest.fixture(scope="module")
def tokenizer() -> SentencePieceTokenizer:
    texts = [f"{sentences(i, 40)} Because Why So No. [INST] [/INST]" for i in range(20)]
    made = train_tokenizer(texts, TokenizerSettings(vocabulary_size=400))
    assert isinstance(made, SentencePieceTokenizer)
    return made


@pytest.fixture(scope="module")
def peer(tokenizer: SentencePieceTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same tokenizer by transformers."""
    return exported(tokenizer, tmp_path_factory.mktemp("exported"))


def exported(tokenizer: Tokenizer, folder: Path) -> Any:
    folder.mkdir(exist_ok=True)
    write_hugging_face_tokenizer(tokenizer, None, folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


def template(source: str, tokenizer: Tokenizer, folder: Path) -> ChatTemplate:
    (folder / "own.jinja").write_text(source)
    return ChatTemplate(str(folder / "own.jinja"), tokenizer)


def served(peer: Any, source: str, messages: list[Any], prompt: bool = True) -> list[int]:
    """Token ids that transformers gives."""
    ids = peer.apply_chat_template(messages, chat_template=source, add_generation_prompt=prompt)["input_ids"]
    assert isinstance(ids, list)
    return ids


RESULT = {"role": "user", "content": "it's <b>21°C</b> & <|im_end|> \ue012\ue010", "name": {"b": 1, "a": ["é"]}}


@pytest.mark.peer
@pytest.mark.parametrize(
    "expression",
    [
        "messages[0].content | tojson",
        "messages[0] | tojson(indent=2)",
        "messages[0] | tojson(ensure_ascii=True)",
        "messages[0] | tojson(separators=(',', ':'), sort_keys=True)",
        "strftime_now('%d %b %Y')",
        "(tools is none) ~ (documents is none) ~ (tools is defined)",
        "(bos_token is defined) ~ (unk_token is defined) ~ (sep_token is defined) ~ pad_token",
    ],
)
def test_functions_and_names_of_templates_are_those_of_transformers(
    expression: str, tokenizer: Tokenizer, peer: Any, tmp_path: Path
) -> None:
    source = f"{{{{ bos_token }}}}{{{{ {expression} }}}}{{{{ messages[0].name }}}}"
    expected = peer.apply_chat_template([RESULT], chat_template=source, tokenize=False)
    written = tokenizer.decode(template(source, tokenizer, tmp_path).encode_prompt([RESULT]))
    assert written == expected.replace("<s>", "").replace("<pad>", "")


NO_BEGINNING = "{{ (bos_token is defined) ~ '' }}{% for m in messages %}{{ m.content }}{% endfor %}"


def test_a_special_token_that_a_tokenizer_lacks_is_not_defined(hugging_face_tokenizer: Path, tmp_path: Path) -> None:
    made: Any = load_tokenizer(hugging_face_tokenizer / "tokenizer.json")
    made.bos = None
    found = template(NO_BEGINNING, made, tmp_path).encode_prompt([ASK])
    assert made.decode(found) == "FalseWhy?"


MARKED_PAST_THE_LINE = """\
{%- for m in messages %}
    {{- '<|im_start|>' + m.role + '\\n' }}
    {%- if m.role == 'assistant' %}{% generation %}{{ m.content + '<|im_end|>' + '\\n' }}{% endgeneration %}
    {%- else %}{{ m.content + '<|im_end|>\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""
"""In the manner of TRL's training templates: what is marked ends behind the line end."""


def test_a_response_ends_at_its_control_token_though_the_mark_ends_behind_the_line(
    hugging_face_tokenizer: Path, tmp_path: Path
) -> None:
    settings = json.loads((hugging_face_tokenizer / "tokenizer_config.json").read_text())
    settings["eos_token"] = "<|im_end|>"  # as Qwen's, which TRL's templates are for
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "tokenizer.json").write_bytes((hugging_face_tokenizer / "tokenizer.json").read_bytes())
    made = load_tokenizer(tmp_path / "tokenizer.json")
    marked, plain = template(MARKED_PAST_THE_LINE, made, tmp_path), ChatTemplate("chatml", made)
    assert marked.encode(TALK) == plain.encode(TALK)
    assert marked.encode([*TALK[:-1], OTHER | {"weight": 0}]) == plain.encode([*TALK[:-1], OTHER | {"weight": 0}])
    assert marked.encode(TALK).ids.count(made.eos) == 4


@pytest.mark.peer
@pytest.mark.parametrize("name", ["chatml", "plain", "transcript"])
def test_own_templates_are_served_as_they_were_trained(
    name: str, tokenizer: Tokenizer, peer: Any, hugging_face_tokenizer: Path, tmp_path: Path
) -> None:
    """With this project's tokenizer, whose texts have a beginning, and with one that only names such a token."""
    own = ChatTemplate(name, tokenizer)
    assert own.encode_prompt(TALK[:-1])[:1] == [tokenizer.bos]
    assert served(peer, own.source, TALK[:-1]) == own.encode_prompt(TALK[:-1])
    settings = json.loads((hugging_face_tokenizer / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | {"bos_token": "<|im_start|>"}))  # SmolLM2's
    (tmp_path / "tokenizer.json").write_bytes((hugging_face_tokenizer / "tokenizer.json").read_bytes())
    other = ChatTemplate(name, load_tokenizer(tmp_path / "tokenizer.json"))
    before = other.encode_prompt(TALK[:-1])
    assert before.count(other.control["<|im_start|>"]) == (4 if name == "chatml" else 0)
    byte_level = exported(other.tokenizer, tmp_path / "again")
    assert served(byte_level, other.source, TALK[:-1]) == before


# Tokenizers that put a space in front of a text


def spaced(tokenizer: SentencePieceTokenizer, folder: Path, kind: str) -> tuple[Tokenizer, Any]:
    """In the manner of Llama 2's (Prepend) or Mistral's (Metaspace), here and by transformers."""
    described = tokenizer_json(tokenizer)
    replace = described["normalizer"]["normalizers"][-1]
    described["normalizer"] = None
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    described["decoder"]["decoders"] = [*described["decoder"]["decoders"][:3], strip]
    if kind == "prepend":
        described["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]}
    else:
        described["pre_tokenizer"] = {
            "type": "Metaspace", "replacement": "▁", "prepend_scheme": kind, "split": False,
        }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(described))
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **special}))
    return load_tokenizer(folder / "tokenizer.json"), transformers.AutoTokenizer.from_pretrained(folder)


LLAMA_2 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}"
)


@pytest.mark.peer
@pytest.mark.parametrize("kind", ["prepend", "first", "always"])
@pytest.mark.parametrize("name", ["llama", "chatml", "plain", "transcript"])
def test_no_space_is_put_in_where_a_text_is_cut(
    kind: str, name: str, tokenizer: SentencePieceTokenizer, tmp_path: Path
) -> None:
    made, by_transformers = spaced(tokenizer, tmp_path, kind)
    own = template(LLAMA_2, made, tmp_path) if name == "llama" else ChatTemplate(name, made)
    assert own.encode_prompt(TALK[:-1]) == served(by_transformers, own.source, TALK[:-1])
    encoded, whole = own.encode(TALK), served(by_transformers, own.source, TALK, prompt=False)
    assert encoded.ids[:-1] == whole[: len(encoded.ids) - 1]  # behind ChatML's line end is nothing to learn
    _, response = encoded.prompt_and_response()
    assert made.decode_continuation(response) == {"llama": " No. ", "transcript": " No."}.get(name, "No.")


@pytest.mark.parametrize("kind", ["prepend", "first", "always"])
def test_a_continuation_keeps_its_first_spaces(kind: str, tokenizer: SentencePieceTokenizer, tmp_path: Path) -> None:
    made, _ = spaced(tokenizer, tmp_path, kind)
    for text in ("    y = x\n    return y\n", " No", "No", "", " ", "é", "<s>", "▁a" if kind == "prepend" else "a"):
        ids = made.encode_continuation(text)
        assert made.decode_continuation(ids) == text.replace("▁", " ")
        assert made.decode_continuation([made.eos, *ids]) == text.replace("▁", " ")


def test_spaces_that_are_an_added_token_have_a_byte_each(tokenizer: SentencePieceTokenizer, tmp_path: Path) -> None:
    """Gemma 3's tokenizer adds runs of spaces."""
    described = tokenizer_json(tokenizer)
    number = described["model"]["vocab"]["▁▁▁▁"] = len(described["model"]["vocab"])
    described["added_tokens"].append(described["added_tokens"][0] | {"id": number, "content": "▁▁▁▁", "special": False})
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    made = load_tokenizer(tmp_path / "tokenizer.json")
    assert made.decode([number]) == "    "
    assert made.token_bytes()[number] == 4


THINKING_AT_LAST = """\
{%- for m in messages %}
    {{- '<|im_start|>' + m.role + '\\n' }}
    {%- if m.role == 'assistant' and loop.last %}{{ '<think>' + (m.reasoning_content or '') + '</think>' }}{% endif %}
    {{- m.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""
"""In the manner of Qwen3's own: thinking, be it empty, is written into the last turn alone, and nothing is marked."""


def test_of_a_template_that_thinks_in_the_last_turn_pairs_are_kept(tokenizer: Tokenizer, tmp_path: Path) -> None:
    made = template(THINKING_AT_LAST, tokenizer, tmp_path)
    sides = [made.encode([*unlearned(TALK[:-1]), answer]) for answer in (OTHER, SAY | {"reasoning_content": "Hm"})]
    (prompt, chosen), (same, rejected) = (side.prompt_and_response() for side in sides)
    assert prompt == same == made.encode_prompt(TALK[:-1])
    assert [tokenizer.decode(side) for side in (chosen, rejected)] == [
        "<think></think>No.",
        "<think>Hm</think>Because.",
    ]
    assert sides[0].trained == [False] * len(prompt) + [True] * len(chosen)
    # Where an earlier turn is to be learned too, its two spellings are two things.
    with pytest.raises(TemplateRefusalError, match="writes earlier turns differently"):
        made.encode(TALK)


def test_pairs_and_prompts_of_such_a_template_are_the_same_rows(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text(THINKING_AT_LAST)
    tokenizer.write(tmp_path)
    prompts = [[ASK | {"content": f"Why {number}?"}, SAY, MORE] for number in range(20)]
    rows = [{"prompt": prompt, "chosen": "No.", "rejected": "Yes"} for prompt in prompts]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for kind in (PreferenceData, PromptData):
        data: Any = kind(
            str(tmp_path / kind.__name__), FileRows(str(tmp_path / "rows.jsonl")), tokenizer=str(tmp_path),
            chat_template=str(tmp_path / "own.jinja"), validation_fraction=0.3,
        )  # fmt: skip
        data.setup("fit")
        assert sum(data.summary()["kept"].values()) == 20


ROLES_AS_TEXT = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + eos_token + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)


@pytest.mark.peer
def test_roles_that_are_text_are_a_warning(tokenizer: Tokenizer, peer: Any, tmp_path: Path) -> None:
    """As in Zephyr and Tulu."""
    with pytest.warns(UserWarning, match=r"writes <\|assistant\|> as text, for they are not control tokens"):
        made = template(ROLES_AS_TEXT, tokenizer, tmp_path)
    assert made.encode_prompt(TALK[:-1]) == [tokenizer.bos, *served(peer, ROLES_AS_TEXT, TALK[:-1])]
    assert tokenizer.decode(made.encode(TALK).prompt_and_response()[1]) == "No."

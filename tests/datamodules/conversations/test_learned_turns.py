"""Turns that are learned, token by token, through every kind of template; what one does not write is dropped."""

import json
from pathlib import Path
from typing import Any

import pytest

from datamodules import FileRows, PreferenceData, PromptData, SFTData
from datamodules.conversations.chat_template import ChatTemplate, Encoded, TemplateRefusalError
from datamodules.conversations.row_formats import instruction
from datamodules.tokenization.base import Tokenizer
from datamodules.tokenization.files import load_tokenizer

ASK, SAY = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}
MORE, OTHER = {"role": "user", "content": "So?"}, {"role": "assistant", "content": "No."}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": "1 <|im_end|>"}}}
CALLING = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": "18 degrees", "tool_call_id": "1", "name": "f"}
UNMARKED = """\
{%- if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nBe kind.<|im_end|>\\n' }}{% endif %}
{%- for m in messages %}
    {{- '<|im_start|>' + m.role + '\\n' + (m.content or '') }}
    {%- for call in m.tool_calls or [] %}{{ '<call>' + call.function.name + '(' }}
    {%- for name, value in call.function.arguments.items() %}{{ name + '=' + value }}{% endfor %}{{ ')' }}{% endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""
"""In the manner of Qwen2.5's: a system message of its own, tool calls, no generation blocks."""
THINKING = """\
{%- for m in messages %}
    {{- '<|im_start|>' + m.role + '\\n' }}
    {%- if m.role == 'assistant' %}{% generation %}
        {%- if loop.last and m.reasoning_content %}{{ '(' + m.reasoning_content + ')' }}{% endif %}
        {{- m.content + '<|im_end|>' }}{% endgeneration %}
    {%- else %}{{ m.content + '<|im_end|>' }}{% endif %}{{ '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""
"""In the manner of Qwen3's: only the last turn's reasoning is written."""


@pytest.fixture(scope="module")
def tokenizer(tokenizer_file: Path) -> Tokenizer:
    return load_tokenizer(tokenizer_file)


@pytest.fixture(params=["chatml", "plain", "transcript", "unmarked", "thinking"])
def template(request: pytest.FixtureRequest, tokenizer: Tokenizer, tmp_path: Path) -> ChatTemplate:
    for name, source in (("unmarked", UNMARKED), ("thinking", THINKING)):
        (tmp_path / f"{name}.jinja").write_text(source)
    own = request.param in ("unmarked", "thinking")
    return ChatTemplate(str(tmp_path / f"{request.param}.jinja") if own else request.param, tokenizer)


def unmarked(tokenizer: Tokenizer, folder: Path, source: str = UNMARKED) -> ChatTemplate:
    (folder / "own.jinja").write_text(source)
    return ChatTemplate(str(folder / "own.jinja"), tokenizer)


def learned(encoded: Encoded, tokenizer: Tokenizer) -> list[str]:
    """Texts that are learned, `|` for a control token at their end."""
    runs: list[list[int]] = [[]]
    for token, trained in zip(encoded.ids, encoded.trained, strict=True):
        if trained:
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    control = {*tokenizer.control_ids().values(), tokenizer.eos}
    return ["".join("|" if token in control else tokenizer.decode([token]) for token in run) for run in runs if run]


def texts(found: list[str]) -> list[str]:
    """Learned texts without their ends and the space that a tokenizer puts in front."""
    return [text.rstrip("|").strip() for text in found]


def test_of_a_prompt_and_a_response_only_the_response_is_learned(template: ChatTemplate, tokenizer: Tokenizer) -> None:
    encoded = template.encode(instruction({"prompt": [ASK, SAY, MORE], "response": "No."}))
    assert texts(learned(encoded, tokenizer)) == ["No."]
    whole = template.encode([ASK, SAY, MORE, OTHER])
    assert encoded.ids == whole.ids  # the same conversation, less of it learned
    assert encoded.last_response == whole.last_response


def test_a_turn_of_no_weight_is_written_and_not_learned(template: ChatTemplate, tokenizer: Tokenizer) -> None:
    talk = [ASK, SAY, MORE, OTHER, ASK, SAY | {"content": "Yes."}]
    weights = [(1, 0, 1), (0, 1, 0), (1, 1, 0), (0, 0, 1)]
    for given in weights:
        marked = [turn | ({"weight": 0} if not w else {}) for turn, w in zip(talk[1::2], given, strict=True)]
        encoded = template.encode([turn for pair in zip(talk[::2], marked, strict=True) for turn in pair])
        kept = [text for text, weight in zip(["Because.", "No.", "Yes."], given, strict=True) if weight]
        assert texts(learned(encoded, tokenizer)) == kept
        whole = template.encode(talk)
        assert encoded.ids == whole.ids[: len(encoded.ids)]  # and no end of text in the middle


def test_a_conversation_that_the_assistant_opens_is_learned(template: ChatTemplate, tokenizer: Tokenizer) -> None:
    hello = {"role": "assistant", "content": "Hello."}
    for system in ([], [{"role": "system", "content": "Be kind."}]):
        encoded = template.encode([*system, hello, ASK, SAY])
        assert texts(learned(encoded, tokenizer)) == ["Hello.", "Because."]
        context = template.encode([*system, hello | {"weight": 0}, ASK, SAY])
        assert texts(learned(context, tokenizer)) == ["Because."]
        assert context.ids == encoded.ids
        prompt, _ = encoded.prompt_and_response()
        assert prompt == template.encode_prompt([*system, hello, ASK])


def test_tool_calls_are_learned_where_the_template_writes_them(tokenizer: Tokenizer, tmp_path: Path) -> None:
    template = unmarked(tokenizer, tmp_path)
    encoded = template.encode(instruction({"messages": [ASK, CALLING, RESULT, SAY]}))
    assert texts(learned(encoded, tokenizer)) == ["<call>f(x=1 <|im_end|>)", "Because."]
    assert "<call>f(x=1 <|im_end|>)" in tokenizer.decode(template.encode_prompt([ASK, CALLING, RESULT]))
    # What an argument says forges no control token.
    control = tokenizer.control_ids()["<|im_end|>"]
    assert encoded.ids.count(control) == 5


def test_what_a_template_does_not_write_is_refused_by_name(template: ChatTemplate) -> None:
    if "tool_calls" not in template.source:
        for messages in ([ASK, CALLING, RESULT, SAY], [ASK, CALLING | {"content": None}, RESULT, SAY]):
            with pytest.raises(TemplateRefusalError, match="the template writes no tool_calls"):
                template.encode(messages)
            with pytest.raises(TemplateRefusalError, match="the template writes no tool_calls"):
                template.encode_prompt(messages[:-1])
    for read, messages in ((template.encode, [ASK | {"name": "Ann"}, SAY]), (template.encode_prompt, [ASK | {"name":
                           "Ann"}])):  # fmt: skip
        with pytest.raises(TemplateRefusalError, match="the template writes no name"):
            read(messages)
    # The name and the number of a call are of the result's, which its place says.
    template.encode([ASK, SAY, RESULT, OTHER])


def test_reasoning_is_learned_or_refused(template: ChatTemplate, tokenizer: Tokenizer) -> None:
    thinking = SAY | {"reasoning_content": "Hm"}
    if "reasoning_content" not in template.source:
        with pytest.raises(TemplateRefusalError, match="the template writes no reasoning_content"):
            template.encode([ASK, thinking])
    else:
        assert texts(learned(template.encode([ASK, thinking]), tokenizer)) == ["(Hm)Because."]
        # Templates leave earlier reasoning out on purpose.
        template.encode([ASK, thinking, MORE, OTHER | {"reasoning_content": "Ah"}])
    template.encode_prompt([ASK, thinking, MORE])
    template.encode([ASK, thinking | {"weight": 0}, MORE, OTHER])


def data(kind: Any, tokenizer: Path, rows: list[Any], folder: Path, **settings: Any) -> Any:
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    reader, arguments = FileRows(str(folder / "rows.jsonl")), {"chat_template": "chatml", "validation_fraction": 0.3}
    return kind(str(folder / "data"), reader, tokenizer=str(tokenizer), **(arguments | settings))


def test_every_row_of_tools_and_weights_is_kept_or_counted(tokenizer_file: Path, tmp_path: Path) -> None:
    good = [{"messages": [{"role": "user", "content": f"q {i}", "id": i}, SAY, MORE, OTHER]} for i in range(30)]
    odd = [
        {"messages": [ASK, CALLING, RESULT, SAY]},
        {"messages": [ASK, {"role": "assistant", "content": ""}]},
        {"messages": [ASK, SAY | {"weight": 0}]},
        {"messages": [ASK, SAY], "tools": [{}, {}]},
        {"prompt": "q", "response": "a", "input": "i"},
        {"prompt": "q", "response": "a", "label": False},
    ]
    made = data(SFTData, tokenizer_file, good + odd, tmp_path)
    made.setup("fit")
    assert sum(made.summary()["kept"].values()) == 30
    assert made.summary()["unread"] == {"id": 30}
    assert made.summary()["dropped"] == {
        "refused_by_template: the template writes no tool_calls": 1, "empty_response": 1, "nothing_to_learn": 1,
        "unread_key: tools": 1, "unread_key: input": 1, "label: false": 1,
    }  # fmt: skip


def test_pairs_and_prompts_carry_calls_to_the_template(tokenizer_file: Path, tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text(UNMARKED)
    rows = [
        {"chosen": [{"role": "user", "content": f"q {i}"}, CALLING], "rejected": [{"role": "user", "content": f"q {i}"},
         SAY]} for i in range(20)
    ]  # fmt: skip
    pairs = data(PreferenceData, tokenizer_file, rows, tmp_path, chat_template=str(tmp_path / "own.jinja"))
    pairs.setup("fit")
    _, chosen, rejected = (tokens.tolist() for tokens, _ in pairs.examples["train"].segments(0))
    tokenizer = load_tokenizer(tokenizer_file)
    assert tokenizer.decode(chosen).strip().startswith("<call>f(x=1 <|im_end|>)")
    assert "Because." in tokenizer.decode(rejected)
    prompts = data(PromptData, tokenizer_file, rows, tmp_path, chat_template=str(tmp_path / "own.jinja"))
    prompts.setup("fit")
    assert sum(prompts.summary()["kept"].values()) == 20


@pytest.mark.parametrize("kind", [SFTData, PreferenceData, PromptData])
def test_rows_of_another_format_are_refused_in_one_line(kind: Any, tokenizer_file: Path, tmp_path: Path) -> None:
    rows = [{"instruction": "a", "input": "", "output": "b"}] * 3
    with pytest.raises(ValueError, match=r"3 rows leave no example .* a row has instruction, input, output: give it "):
        data(kind, tokenizer_file, rows, tmp_path).setup("fit")

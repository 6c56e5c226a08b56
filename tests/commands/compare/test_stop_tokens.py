"""Compared responses end where the template ends a turn, and a reward model reads them in its own template."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from commands.compare import command as compare
from datamodules.conversations.template_environment import read_template
from datamodules.tokenization.files import TEMPLATE, find_tokenizer, load_tokenizer
from models.inference.generation import Generated
from tests.commands.compare.comparison import compared
from tests.helpers.command_line import refused


@pytest.mark.end_to_end
def test_responses_end_at_the_token_that_the_template_puts_behind_them(
    models: dict[str, str], prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    tokenizer = load_tokenizer(find_tokenizer(Path(models["base"])))
    ends = {"chatml": {tokenizer.control_ids()["<|im_end|>"], tokenizer.eos}, "plain": {tokenizer.eos}}
    seen: list[set[int]] = []

    def generate(decoder: Any, ids: list[list[int]], *, stop: Collection[int], **further: Any) -> list[Generated]:
        seen.append({*stop})
        return [Generated([min(stop)], [-1.0], "stop")] * len(ids)

    monkeypatch.setattr(compare, "generate", generate)
    for name, expected in ends.items():
        seen.clear()
        compared(models, prompts, tmp_path / name, f"--chat_template={name}")
        assert seen == [expected] * len(seen) != []
    template = Path(models["reward"]).with_suffix(".tokenizer") / TEMPLATE
    template.write_text(read_template("transcript"))
    arguments = [
        "compare", f"--models.base={models['base']}", f"--models.moved={models['moved']}", "--chat_template=plain",
        f"--reward_model={models['reward']}", f"--prompts=[{prompts}]", f"--output={tmp_path / 'none'}",
    ]  # fmt: skip
    assert "trained with another chat template" in refused(arguments, capsys)

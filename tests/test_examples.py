"""Examples, run as scripts or through their functions."""

import json
from pathlib import Path
from types import ModuleType

import pytest

from tests.helpers.corpus import sentences

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def load(name: str) -> ModuleType:
    """An example as a module."""
    import importlib.util

    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / f"examples/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_tested() -> None:
    tested = {"train_a_decoder_in_40_lines", "clean_a_folder", "add_a_filter", "generate"}
    assert {path.stem for path in EXAMPLES} == tested


@pytest.mark.end_to_end
def test_a_decoder_learns_a_sentence_in_40_lines(capsys: pytest.CaptureFixture[str]) -> None:
    example = load("train_a_decoder_in_40_lines")
    _, losses = example.train(steps=100)
    assert losses[0] > 5
    assert losses[-1] < 2
    assert "step  99" in capsys.readouterr().out
    lines = Path(example.__file__).read_text(encoding="utf-8").split("TEXT = ")[1].split("\nif __name__")[0]
    assert len(lines.splitlines()) <= 40


def test_a_folder_is_cleaned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text").mkdir()
    for number in range(12):
        text = f"It is that we have to be with the {number}. {sentences(number, 20)}"
        (tmp_path / f"text/{number}.txt").write_text(text, encoding="utf-8")
    (tmp_path / "text/copy.txt").write_text((tmp_path / "text/0.txt").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "text/short.txt").write_text("Too short.", encoding="utf-8")
    documents = load("clean_a_folder").clean(str(tmp_path / "text"), str(tmp_path / "data"))
    summary = json.loads((documents / "curation.json").read_text(encoding="utf-8"))
    assert "too_short" in json.dumps(summary)
    assert "too_short" in capsys.readouterr().out
    assert list((documents / "documents").glob("*.parquet"))


def test_the_new_filter_drops_what_shouts() -> None:
    assert load("add_a_filter").decide(["A calm sentence.", "BUY NOW!!!"]) == [False, True]


@pytest.mark.end_to_end
def test_text_is_generated_from_a_run(base_run: Path) -> None:
    written = load("generate").write(str(base_run), "Ba", max_new_tokens=5)
    assert written.startswith("Ba")
    assert len(written) > 2

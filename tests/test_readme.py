"""README: its size, links and figures, and every command in it, run small."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.code_blocks import code_blocks, commands, run_command
from tests.helpers.corpus import tiny_configuration

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
LAST_LINES = [block.text for block in code_blocks(ROOT / "README.md") if block.language == "text"][1]
BENCHMARKS = (ROOT / "benchmarks/README.md").read_text(encoding="utf-8")


def test_the_readme_is_short() -> None:
    assert len(README.encode()) <= 8192


def slug(heading: str) -> str:
    """Anchor of a heading, as repositories' browsers make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def test_links_lead_somewhere() -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]+)#?([^)]*)\)", README):
        path = ROOT / target
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in map(slug, headings), f"{target}#{anchor}"


def test_figures_are_recorded() -> None:
    rows = re.findall(r"^\|.*\(benchmarks/README.md#.*$", README, flags=re.MULTILINE)
    assert len(rows) == 5
    for row in rows:
        _, _, ours, theirs, _ = row.split("|")
        for figure in re.findall(r"\d+(?:[,.]\d+)*(?:e-?\d+)?", ours + re.sub(r"\[.*", "", theirs)):
            assert re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d])", BENCHMARKS), figure


def test_targets_of_make_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    found = set(re.findall(r"`make (\w+)`", README)) | set(re.findall(r"^make (\w+)$", README, flags=re.MULTILINE))
    assert {"quickstart", "test", "recipe", "docs"} <= found
    for target in found:
        recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, flags=re.MULTILINE)
        assert recipe is not None, target
        for config in re.findall(r"--config (\S+)", recipe[1]):
            assert (ROOT / config).is_file()


def test_the_map_names_folders() -> None:
    listed = re.findall(r"^(\w+)/ ", README, flags=re.MULTILINE)
    assert len(listed) == 12
    assert all((ROOT / folder).is_dir() for folder in listed)


@pytest.mark.end_to_end
def test_snippets_are_configurations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    snippets = [block.text for block in code_blocks(ROOT / "README.md") if block.language == "yaml"]
    assert len(snippets) == 3
    dpo = next(config for config in re.findall(r"--config (\S+?)`", README) if "dpo" in config)
    for text, config in zip(snippets, (dpo, "configs/quickstart.yaml", "configs/quickstart.yaml"), strict=True):
        Path("overlay.yaml").write_text(text, encoding="utf-8")
        run_command(["fit", "--config", config, "--config", "overlay.yaml", "--print_config"])


# Every command


@pytest.mark.end_to_end
def test_every_command_runs(
    corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the order of the README, in one folder: the first run is what the others begin from."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    write_overlays(corpus_folder)
    blocks = [block for block in code_blocks(ROOT / "README.md") if block.language == "bash"]
    found = [arguments for block in blocks for arguments in commands(block.text)]
    found += [arguments for text in re.findall(r"`(llm [^`]*)`", README) for arguments in commands(text)]
    found = [arguments for arguments in found if arguments and arguments[0].islower() and "X.yaml" not in arguments]
    assert len(found) >= 10
    for arguments in sorted(found, key=needs):
        capsys.readouterr()
        run_command([*arguments, *small(arguments)])
        shown = capsys.readouterr().out
        if "--hardware" in arguments:  # the one whose output no machine and no run changes
            assert shown.strip().endswith(LAST_LINES.strip())
    assert Path("runs/quickstart/report.html").is_file()


def needs(arguments: list[str]) -> int:
    """Rank in an order in which no command lacks what it reads."""
    line = " ".join(arguments)
    order = ("prepare", "quickstart.yaml", "align/sft", "align/reward")
    return next(
        (number for number, part in enumerate(order) if part in line and "constitution" not in line), len(order)
    )


def small(arguments: list[str]) -> list[str]:
    """Options that make a command take seconds."""
    command, line = arguments[0], " ".join(arguments)
    if command in ("fit", "prepare") and "align/" not in line:
        return ["--config", "pretraining.yaml"]
    if command == "fit":
        kind = next(kind for kind in ("sft", "reward", "dpo", "ppo") if kind in line)
        return ["--config", f"{kind}.yaml"]
    if command == "constitution":
        rows = "{class_path: datamodules.FileRows, init_args: {paths: [rows.jsonl]}}"
        few = [f"--{name}={rows}" for name in ("prompts", "helpful_instructions", "helpful_pairs")]
        return [*few, "--samples=2", "--generator.init_args.max_new_tokens=4", "--judge.init_args.max_new_tokens=4"]
    return ["--max_new_tokens", "4"] if command == "generate" else []


def write_overlays(corpus: Path) -> None:
    """An overlay for each kind of training: a tiny model, few rows, two steps."""
    pretraining = tiny_configuration(corpus)
    pretraining["trainer"] |= {"default_root_dir": "runs/quickstart", "max_steps": 4, "val_check_interval": 4}
    Path("pretraining.yaml").write_text(yaml.safe_dump(pretraining), encoding="utf-8")
    rows = [
        {"prompt": f"{number} ba?", "response": "ba " * (number % 5 + 1), "chosen": "ba ", "rejected": "BA! " * 3}
        for number in range(40)
    ]
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    trainer = {
        "accelerator": "cpu",
        "precision": "32-true",
        "max_steps": 2,
        "val_check_interval": 2,
        "log_every_n_steps": 1,
        "logger": [{"class_path": "callbacks.MetricsTable"}],
        "callbacks": [{"class_path": "callbacks.Checkpoints"}],
    }
    data = {
        "batch_size": 4,
        "validation_fraction": 0.2,
        "rows": {"class_path": "datamodules.FileRows", "init_args": {"paths": ["rows.jsonl"]}},
    }
    further: dict[str, dict[str, Any]] = {
        "sft": {"data": {"sequence_length": 64}},
        "reward": {"data": {"max_tokens": 64}},
        "dpo": {"data": {"max_tokens": 64}},
        "ppo": {"data": {"max_prompt_tokens": 32, "validation_prompts": 2}, "model": {"max_new_tokens": 4}},
    }
    schedule = {"class_path": "models.Cosine", "init_args": {"warmup_steps": 1}}
    for kind, changed in further.items():
        overlay = {
            "trainer": trainer,
            "data": {"init_args": data | changed["data"]},
            "model": {"init_args": {"schedule": schedule} | changed.get("model", {})},
        }
        Path(f"{kind}.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")

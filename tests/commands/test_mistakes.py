"""Paths and options that cannot work get one line and status 2, never a traceback."""

import errno
import os
import sys
from pathlib import Path

import pytest

from commands.cli import main
from commands.config_files import read_config_file
from commands.mistakes import unusable_path
from commands.resolve import resolve_config
from tests.helpers.command_line import refused
from tests.helpers.corpus import ROOT, Configure
from tests.helpers.distributed import Command

QUICKSTART = ["--config", str(ROOT / "configs/quickstart.yaml")]
TP2 = ["--config", str(ROOT / "configs/layouts/tp2.yaml")]
TP = "--trainer.strategy.init_args.tensor_parallel_size"
HARDWARE, RECIPE = (str(ROOT / f"configs/{name}.yaml") for name in ("hardware/h100", "recipes/quickstart"))
CLASSIFIER = ["classifier", "--positive", "a", "--negative", "b", "--output", "c"]
CONSTITUTION = ["constitution", "--config", str(ROOT / "configs/constitution/quickstart.yaml")]


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["parity", *QUICKSTART, *TP2, "--max_axis", "0"], "--max_axis 0: must be at least 2"),
        (["parity", *QUICKSTART, *TP2, "--max_axis", "-1"], "--max_axis -1: must be at least 2"),
        (["parity", *QUICKSTART, *TP2, "--tolerance", "nan"], "--tolerance nan: must be at least 0"),
        (["parity", *QUICKSTART], "the configuration trains in one process"),
        (["fit", "--config"], "--config: give a YAML file"),
        (["fit", "--config="], "--config: give a YAML file"),
        (["recipe", "-c", "--dry-run"], "-c: give a YAML file"),
        (["fit", "--dry-run"], "fit: give a configuration, as: llm fit --config"),
        (["fit", "--dry-run", "--trainer.max_steps=3"], "model: required, give a configuration, as: llm fit --config"),
        (["plan", "--trainer.max_steps=3"], "model: required, give a configuration, as: llm fit --config"),
        (["plan", *QUICKSTART, "--data=null"], "data: required, give a configuration, as: llm fit --config"),
        (["parity", "--trainer.max_steps=3"], "model: required, give a configuration, as: llm fit --config"),
        (["fit", "--trainer.max_steps=3"], "data, model: required, give a configuration with --config FILE"),
        (["evaluate"], "--input: required, give a value"),
        (["classifier", "--positive", "a"], "--negative, --output: required, give values"),
        (["export", *QUICKSTART, "--output", "x", "--format", "parquet"], "format=parquet: must be megatron"),
        (["convert", "--input", "a", "--output", "b", "--dtype", "x"], "dtype=x: must be keep or float32 or"),
        (
            ["compare", "--models", "a=runs/a", "--prompts", "x"],
            "models=a=runs/a: must be a mapping, as --models.a=runs/a",
        ),
        (["report", "--nope"], "report: no option is called --nope; it takes those of fit"),
        (["plan", *QUICKSTART, "--memory_limit", "-3"], "--memory_limit -3: must be above 0"),
        (["plan", *QUICKSTART, "--price", "nan"], "--price nan: must be at least 0 and finite"),
        (["plan", *QUICKSTART, "--mtbf_hours", "0"], "--mtbf_hours 0: must be above 0"),
        (["plan", "--budget", "-1"], "--budget -1: must be above 0"),
        (["plan", *QUICKSTART, "--search", "--devices", "64"], "data parallelism alone would need 64 windows"),
        (["generate", "--input", str(ROOT / "docs")], "docs is not a run, checkpoint (.ckpt)"),
        (["convert", "--input", str(ROOT / "docs"), "--output", "x"], "docs is not a run, checkpoint (.ckpt)"),
        (["convert", "--input", "a", "--output", "x", "--positions", "0"], "error: positions=0: must be at least 1"),
        (["convert", "--input", "a", "--output", "x", "--shard_gigabytes", "0"], "error: shard_gigabytes=0.0: must be"),
        (["evaluate", "--input", "a", "--text", "b", "--window", "1"], "error: window=1: must be at least 2"),
        (["evaluate", "--input", "a", "--text", "b", "--limit", "0"], "error: limit=0: must be at least 1"),
        ([*CLASSIFIER, "--documents", "-1"], "error: documents=-1: must be at least 1"),
        ([*CLASSIFIER, "--bucket_bits", "30"], "error: bucket_bits=30: must lie between 8 and 24"),
        ([*CLASSIFIER, "--l2", "0"], "error: l2=0.0: must be above 0"),
        ([*CONSTITUTION, "--batch_size", "0"], "error: batch_size=0: must be at least 1"),
        ([*CONSTITUTION, "--worked_examples", "-1"], "error: worked_examples=-1: must be at least 0"),
        (["fit", "--config", HARDWARE], "the file is hardware, take llm plan"),
        (["plan", "--config", HARDWARE], "the file is hardware, take llm plan"),
        (["fit", "--config", RECIPE], f"the file is a recipe, take llm recipe --config {RECIPE}"),
        (["prepare", *CONSTITUTION[1:]], "take llm constitution --config"),
        (
            ["fit", *QUICKSTART, "--trainer.strategy", "ddpp"],
            "trainer.strategy=ddpp: no strategy is called so: did you",
        ),
        (["fit", *QUICKSTART, "--trainer.devices", "0"], "trainer.devices=0: must be at least 1, or auto for all"),
        (["fit", *QUICKSTART, "--trainer.max_steps", "-5"], "trainer.max_steps=-5: must be at least 1, or -1"),
        (["fit", *QUICKSTART, "--trainer.accelerator", "cdua"], "no accelerator is called so: did you mean cuda"),
        (["fit", *QUICKSTART, "--trainer.accelerator", "tpu"], "trainer.accelerator=tpu: this machine has none"),
        (
            ["fit", *QUICKSTART, *TP2, f"{TP}=3"],
            f"{TP[2:].rpartition('.')[2]}=3: the product of all sizes, 3, does not",
        ),
    ],
    ids=lambda value: " ".join(map(str, value)).replace(str(ROOT), "") if isinstance(value, list) else "",
)
def test_options_that_cannot_work(capsys: pytest.CaptureFixture[str], arguments: list[str | Path], said: str) -> None:
    assert said in refused(arguments, capsys)


@pytest.mark.end_to_end
def test_a_mistake_is_the_only_line(configure: Configure, tmp_path: Path) -> None:
    """Nothing that Lightning says of a run that does not come to be."""
    config = configure(data__init_args__sources__notes__weight=-2)
    process = Command(tmp_path, "fit", "--config", config)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert output == ""
    assert [line for line in errors.splitlines() if "Warning" not in line and line[:1] != " "] == [
        errors.splitlines()[-1]
    ]
    assert errors.splitlines()[-1].startswith("error: ")


@pytest.mark.end_to_end
def test_paths_that_cannot_be_written(configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    assert f"{tmp_path} is a folder, and a file is to be written" in refused(["schema", "--output", tmp_path], capsys)
    said = f"{file} is a file, and a folder is needed there: give another path"
    assert said in refused(["schema", "--output", file / "schema.json"], capsys)
    config = configure()
    # Nothing can be made in /proc, by any user.
    for key in ("data.init_args.folder", "trainer.default_root_dir"):
        assert "/proc/made" in refused(["fit", "--config", config, f"--{key}=/proc/made"], capsys)
        assert str(file) in refused(["fit", "--config", config, f"--{key}={file}"], capsys)
    said = f"{file}: it or what is above it is a file, name a folder"
    assert said in refused(["prepare", "--config", config, f"--data.init_args.folder={file}"], capsys)


def test_an_error_that_no_path_of_the_user_causes_is_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        (tmp_path / "part of an artifact").read_bytes()
    assert unusable_path(missing.value) is None
    with pytest.raises(FileNotFoundError) as unmade:
        (tmp_path / "absent/folder").mkdir()
    assert "No such file or directory" in (unusable_path(unmade.value) or "")
    assert unusable_path(BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))) is None


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("trainer: {max_steps: 1}\nmodel: {}\ntrainer: {max_steps: 2}\n", "line 3: trainer is also given at line 1"),
        ("trainer:\n  max_steps: 1\n  max_steps: 2\n", "line 3: trainer.max_steps is also given at line 2"),
        ("a:\n  - b: 1\n    b: 2\n", "line 3: a.0.b is also given at line 2"),
        ("trainer:\n  max_steps: 012\n", "line 2: 012 has a leading zero, which makes it a number of base 8 (10)"),
        ("a: [1, {b: -07}]\n", "line 1: -07 has a leading zero"),
        ("- a\n", "holds a list, a configuration is a mapping"),
        ("text", "holds a str, a configuration is a mapping"),
        ("a: [1\nb: 2\n", "line 2 is not valid YAML"),
        ("a: \x07", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, said: str
) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(content, encoding="utf-8")
    for command in ("fit", "constitution"):
        line = refused([command, *QUICKSTART, "--config", path], capsys)
        assert said in line
        assert str(path) in line


def test_every_shipped_file_gives_each_key_once_and_merge_keys_are_not_repeated(tmp_path: Path) -> None:
    for path in (ROOT / "configs").rglob("*.yaml"):
        read_config_file(path)
    merged = tmp_path / "merged.yaml"
    merged.write_text("a: &a {b: 1}\nc:\n  <<: *a\n  b: 2\n", encoding="utf-8")
    assert read_config_file(merged)["c"] == {"b": 2}


@pytest.mark.end_to_end
def test_an_empty_file_changes_nothing(configure: Configure, tmp_path: Path) -> None:
    empty = tmp_path / "empty.yaml"
    empty.write_text("# nothing yet\n", encoding="utf-8")
    config = str(configure())
    for command in ("fit", "prepare"):
        arguments = [command, "--config", config]
        assert resolve_config([*arguments, "--config", str(empty)]) == resolve_config(arguments)


@pytest.mark.end_to_end
def test_what_fit_would_refuse_is_said_before_data_are_prepared(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("trainer: {max_stesp: 3}\n", encoding="utf-8")
    main(["prepare", "--config", str(configure()), "--config", str(overlay)])
    shown = capsys.readouterr().out
    assert shown.startswith("note: fit would refuse this configuration: no key is called trainer.max_stesp")
    assert "prepared: " in shown
    main(["prepare", "--config", str(configure()), "--model.init_args.z_loss", "0.1", "--data.init_args.seed", "0"])
    assert "note" not in capsys.readouterr().out


@pytest.mark.end_to_end
def test_mistakes_are_found_before_data_are_prepared(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure(data__init_args__folder=str(tmp_path / "untouched"))
    for command in ("fit", "validate", "test", "predict"):
        line = refused([command, "--config", config, "--ckpt_path", tmp_path / "absent"], capsys)
        assert "absent does not exist: correct it" in line
    assert "no checkpoint in" in refused(["validate", "--config", config], capsys)
    assert not (tmp_path / "untouched").exists()
    assert "--samples -3: must be at least 1" in refused(["inspect", "--config", config, "--samples", "-3"], capsys)
    assert not (tmp_path / "untouched").exists()


@pytest.mark.end_to_end
def test_two_recipes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / f"{name}.yaml" for name in "ab"]
    for path in paths:
        path.write_text(f"folder: {tmp_path}\nstages: [{{name: {path.stem}}}]\n", encoding="utf-8")
    line = refused(["recipe", "--config", paths[0], "--config", paths[1], "--dry-run"], capsys)
    assert f"--config {paths[0]} --config {paths[1]}: each has stages of its own" in line


@pytest.mark.end_to_end
def test_classes_of_the_working_directory_are_found_from_anywhere(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hinge_model.py").write_text("from models import LanguageModel\n\nclass Hinge(LanguageModel): ...\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path not in ("", str(tmp_path))])
    config = str(configure())
    with pytest.raises(SystemExit) as raised:
        main(["fit", "--config", config, "--model.class_path=hinge_model.Hinge", "--print_config"])
    assert not raised.value.code
    assert "class_path: hinge_model.Hinge" in capsys.readouterr().out
    line = refused(["fit", "--config", config, "--model.class_path=hinge_loss.Hinge"], capsys)
    assert "class_path=hinge_loss.Hinge: module hinge_loss is not found" in line

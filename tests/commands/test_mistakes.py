"""Paths and options that cannot work get one line and status 2, never a traceback."""

import errno
import os
from pathlib import Path

import pytest

from commands.mistakes import unusable_path
from tests.helpers.command_line import refused
from tests.helpers.corpus import ROOT, Configure

QUICKSTART = ["--config", str(ROOT / "configs/quickstart.yaml")]
TP2 = ["--config", str(ROOT / "configs/layouts/tp2.yaml")]


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["parity", *QUICKSTART, *TP2, "--max_axis", "0"], "--max_axis 0: must be at least 2"),
        (["parity", *QUICKSTART, *TP2, "--max_axis", "-1"], "--max_axis -1: must be at least 2"),
        (["parity", *QUICKSTART, *TP2, "--tolerance", "nan"], "--tolerance nan: must be above 0"),
        (["parity", *QUICKSTART], "the configuration trains in one process"),
        (["fit", "--config"], "--config: give a YAML file"),
        (["fit", "--config="], "--config: give a YAML file"),
        (["recipe", "-c", "--dry-run"], "-c: give a YAML file"),
        (["fit", "--dry-run"], "fit: give a configuration, as: llm fit --config"),
        (["fit", "--dry-run", "--trainer.max_steps=3"], "model: required, give a configuration, as: llm fit --config"),
        (["plan", "--trainer.max_steps=3"], "model: required, give a configuration, as: llm fit --config"),
        (["plan", *QUICKSTART, "--data=null"], "data: required, give a configuration, as: llm fit --config"),
        (["parity", "--trainer.max_steps=3"], "model: required, give a configuration, as: llm fit --config"),
    ],
    ids=lambda value: " ".join(map(str, value)).replace(str(ROOT), "") if isinstance(value, list) else "",
)
def test_options_that_cannot_work(capsys: pytest.CaptureFixture[str], arguments: list[str | Path], said: str) -> None:
    assert said in refused(arguments, capsys)


@pytest.mark.end_to_end
def test_paths_that_cannot_be_written(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
    assert said in refused(["prepare", "--config", config, f"--data.init_args.folder={file}"], capsys)


def test_an_error_that_no_path_of_the_user_causes_is_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        (tmp_path / "part of an artifact").read_bytes()
    assert unusable_path(missing.value) is None
    with pytest.raises(FileNotFoundError) as unmade:
        (tmp_path / "absent/folder").mkdir()
    assert "No such file or directory" in (unusable_path(unmade.value) or "")
    assert unusable_path(BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))) is None

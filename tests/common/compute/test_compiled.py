"""Compiled loops never outlive the files they were made from."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.corpus import ROOT

INNER = "from common.compute.compiled import compiled\n\n@compiled\ndef inner(x):\n    return x + {number}\n"
OUTER = """
from common import inner as ground
from common.compute.compiled import compiled
from datamodules import inner as data

add_ground, add_data = ground.inner, data.inner

@compiled
def outer(x):
    return add_data(add_ground(x))

print(outer(1), sum(outer.stats.cache_hits.values()))
"""


@pytest.mark.end_to_end
def test_an_edit_of_a_called_function_compiles_its_callers_again(tmp_path: Path) -> None:
    for package in ("common", "datamodules"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "common/compute").mkdir()
    (tmp_path / "common/compute/compiled.py").write_bytes((ROOT / "common/compute/compiled.py").read_bytes())
    (tmp_path / "datamodules/outer.py").write_text(OUTER)

    def result(ground: int, data: int) -> str:
        (tmp_path / "common/inner.py").write_text(INNER.format(number=ground))
        (tmp_path / "datamodules/inner.py").write_text(INNER.format(number=data))
        environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
        command = [sys.executable, "-m", "datamodules.outer"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    # Of another length: Python itself tells an edit within a second by the file's size alone.
    edits = [result(10, 1000), result(10, 1000), result(200, 1000), result(200, 30000)]
    assert edits == ["1011 0", "1011 1", "1201 0", "30201 0"]

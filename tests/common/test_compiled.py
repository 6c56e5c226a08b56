"""Compiled loops never outlive the files they were made from."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

INNER = "from common.compiled import compiled\n\n@compiled\ndef inner(x):\n    return x + {number}\n"
OUTER = """
from common.compiled import compiled
from {module} import inner

@compiled
def outer(x):
    return inner(x)

print(outer(1), sum(outer.stats.cache_hits.values()))
"""


@pytest.mark.parametrize("inner", ["common", "datamodules"])
def test_an_edit_of_a_called_function_compiles_its_callers_again(tmp_path: Path, inner: str) -> None:
    package = tmp_path / "datamodules"
    package.mkdir()
    (package / "__init__.py").touch()
    common = tmp_path / "common"
    common.mkdir()
    (common / "compiled.py").write_bytes((ROOT / "common/compiled.py").read_bytes())
    (package / "outer.py").write_text(OUTER.format(module=f"{inner}.inner"))

    def result(number: int) -> str:
        (tmp_path / inner / "inner.py").write_text(INNER.format(number=number))
        environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
        command = [sys.executable, "-m", "datamodules.outer"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    # Of another length: Python itself tells an edit within a second by the file's size alone.
    assert [result(10), result(10), result(200), result(200)] == ["11 0", "11 1", "201 0", "201 1"]

"""The same documents, whichever engine judged them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.compute.daft_engine import use_engine
from common.errors import InputError
from tests.helpers.corpus import ROOT
from tests.helpers.curation import checksums, curate_into, write_texts

SCRIPT = """
import sys
from pathlib import Path
from tests.helpers.curation import curate_into
curate_into(Path(sys.argv[1]), Path(sys.argv[2]), engine="ray")
"""


@pytest.mark.distributed
def test_ray_keeps_the_same_documents_in_the_same_order(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts")
    native = curate_into(tmp_path / "native", tmp_path / "texts")
    # Ray runs on a session of its own, in a process of its own: an engine is chosen once.
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_ADDRESS": "local"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "ray"), str(tmp_path / "texts")]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200)
    assert result.returncode == 0, result.stderr
    (ray,) = (tmp_path / "ray").glob("documents-*")
    assert ray.name == native.name
    assert checksums(ray) == checksums(native)


@pytest.mark.distributed
def test_another_engine_in_the_same_process_is_refused() -> None:
    use_engine("native")
    with pytest.raises(InputError, match="engine=ray: this process already runs Daft on native"):
        use_engine("ray")


def test_an_engine_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"Ray is not installed, pip install .*\[ray\]"):
        use_engine("ray")

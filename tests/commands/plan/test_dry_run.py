"""The command `fit --dry-run`."""

from pathlib import Path

import pytest

from commands.plan.dry_run import dry_run
from common.errors import InputError
from tests.helpers.planner import LAYOUTS, size_configuration, small


@pytest.mark.usefixtures("no_process_group")
def test_dry_run_builds_every_rank(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for layout in LAYOUTS:
        dry_run(["fit", "--config", "X"], lambda _, layout=layout: (small(tmp_path, layout), []))  # type: ignore[misc]
        out = capsys.readouterr().out
        assert "fits" in out
        assert "pp 0" in out
    loaded = size_configuration("70b")
    loaded["model"]["init_args"]["decoder"] |= {
        "layers": 8,
        "width": 1024,
        "feed_forward_width": 2048,
        "head_width": 128,
    }
    dry_run(["fit", "--config", "X"], lambda _: (loaded, []))
    assert "bubble" in capsys.readouterr().out


@pytest.mark.usefixtures("no_process_group")
def test_dry_run_of_what_does_not_fit_ends_with_status_1(tmp_path: Path) -> None:
    loaded = size_configuration("8b")
    for name in (["--hardware", "a100_40gb"], ["--hardware=a100_40gb"]):
        seen: list[list[str]] = []
        with pytest.raises(SystemExit) as raised:
            dry_run(["fit", *name, "--config", "X"], lambda rest, seen=seen: (seen.append(rest) or loaded, []))  # type: ignore[misc]
        assert raised.value.code == 1
        assert seen == [["fit", "--config", "X"]]
    for name in (["--hardware"], ["--hardware="]):
        with pytest.raises(InputError, match="--hardware: name a file"):
            dry_run(["fit", *name], lambda _: (loaded, []))

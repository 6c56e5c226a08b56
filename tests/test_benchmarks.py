"""Scripts of figures: that of GPUs runs where there is none, small; what fails is recorded and does not end it."""

import json

import pytest

from benchmarks import gpu, isoflop
from tests.helpers.distributed import warm_program


@pytest.mark.end_to_end
@pytest.mark.parametrize("run", ["ours-float8", "transformers", "generate-ours", "generate-transformers"])
def test_gpu_figures_at_toy_size(run: str) -> None:
    record = gpu.child(run, "toy")
    assert record["tokens_per_second"] > 0
    if run in gpu.TRAINING:
        assert record["of_measured_peak"] > 0


@pytest.mark.end_to_end
def test_a_run_that_fails_is_recorded(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["gpu", "--toy", "--runs", "generate-ours-graphs"])
    monkeypatch.setattr(gpu, "PROGRAM", [*warm_program(), "-m", "benchmarks.gpu"])
    gpu.main()
    (record,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert "cuda_graphs=true on cpu" in record["failed"]


def test_too_few_runs_for_a_law_are_refused_before_one_is_trained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["isoflop", "--flops", "3e11", "1e12", "--only", "24x2", "32x2"])
    monkeypatch.setattr(isoflop, "train", lambda *_: pytest.fail("trained"))
    with pytest.raises(SystemExit):
        isoflop.main()
    assert "4 runs of 2 sizes and 4 lengths: a scaling law has five" in capsys.readouterr().err
    for arguments, refusal in ((["--flops", "nan"], "--flops nan: must be"), (["--jobs", "0"], "--jobs 0: must be")):
        monkeypatch.setattr("sys.argv", ["isoflop", *arguments])
        with pytest.raises(SystemExit):
            isoflop.main()
        assert refusal in capsys.readouterr().err

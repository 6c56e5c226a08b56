"""A loss that is NaN or infinite ends the run before anything is saved, unless that is switched off."""

import math
from pathlib import Path

import pytest
import torch

from callbacks.finite_loss import zero_if_finite
from common.run_folder import checkpoints
from main import main
from models.language_model import LanguageModel
from tests.helpers.command_line import refused
from tests.helpers.corpus import Configure


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_value_that_is_no_number_is_enough(value: float) -> None:
    fine = [torch.tensor(3.0), torch.tensor(-1e38), torch.tensor(0, dtype=torch.int64)]
    assert zero_if_finite(fine) == 0
    assert zero_if_finite([*fine, torch.tensor(value)]).isnan()


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seventh step's loss is NaN or infinite, and so are the weights after it."""
    loss = LanguageModel.loss

    def poison(self: LanguageModel, hidden: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        found = loss(self, hidden, batch)  # type: ignore[arg-type]
        return found * float("nan") if self.training and self.trainer.global_step == 6 else found

    monkeypatch.setattr(LanguageModel, "loss", poison)


@pytest.mark.end_to_end
@pytest.mark.usefixtures("poisoned")
def test_a_loss_that_is_no_number_ends_the_run(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finite = {"class_path": "callbacks.FiniteLoss"}
    save = {"class_path": "callbacks.Checkpoints", "init_args": {"every_steps": 1}}
    config = configure(trainer__callbacks=[finite, save])
    line = refused(["fit", "--config", config], capsys)
    assert "gradient norm of step 7 (samples 24 to 27) is NaN or infinite" in line
    assert "step=6.ckpt" in line
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step=5.ckpt", "step=6.ckpt"]


@pytest.mark.end_to_end
@pytest.mark.usefixtures("poisoned")
def test_a_run_told_to_go_on_does_and_its_evaluation_is_refused(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finite = {"class_path": "callbacks.FiniteLoss", "init_args": {"enabled": False}}
    config = configure(trainer__callbacks=[finite, {"class_path": "callbacks.Checkpoints"}])
    main(["fit", "--config", str(config)])
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step=12.ckpt"]
    config = configure(trainer__callbacks=[{"class_path": "callbacks.FiniteLoss"}])
    assert "=nan is NaN or infinite: the weights are lost" in refused(["validate", "--config", config], capsys)

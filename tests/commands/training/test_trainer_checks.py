"""Arguments of the Trainer that would train nothing, or fail after hours, are refused in one line."""

import pytest

from tests.helpers.command_line import refused
from tests.helpers.corpus import Configure


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("val_check_interval=0", "trainer.val_check_interval=0: must be above 0"),
        ("val_check_interval=-3", "trainer.val_check_interval=-3: must be above 0"),
        ("val_check_interval=00:00:10:00", "give a number of micro-batches"),
        ("limit_train_batches=0", "trains nothing"),
        ("overfit_batches=1", "configs/debug/overfit.yaml"),
        ("accumulate_grad_batches=0", "must be at least 1"),
        ("accelerator=tpu", "error: trainer"),
        ("accelerator=abacus", "error: trainer"),
        ("strategy=abacus", "error: trainer"),
        ("precision=8", "trainer.precision=8: must be 64 or 32 or 16 or "),
        ("devices=0", "error: trainer"),
        ("max_steps=0", "max_steps=0"),
        ("max_epochs=2", "trainer.max_epochs=2: the order of samples never ends"),
        ("min_epochs=1", "set trainer.max_steps"),
        ("limit_train_batches=5", "set trainer.max_steps"),
        ("limit_train_batches=0.5", "set trainer.max_steps"),
        ("limit_val_batches=-1", "error: trainer"),
    ],
)
def test_an_argument_that_means_nothing(
    configure: Configure, capsys: pytest.CaptureFixture[str], argument: str, message: str
) -> None:
    assert message in refused(["fit", "--config", configure(), f"--trainer.{argument}"], capsys)

"""Layouts that cannot work are refused before a process starts: the value, the rule and the fix in one line."""

from typing import Any

import pytest

from common.errors import InputError
from main import main
from models.config import Experts
from strategies import TensorParallelStrategy
from tests.helpers.corpus import Configure
from tests.helpers.layouts import SHAPE, pipeline, preflight


@pytest.mark.parametrize(
    ("strategy", "processes", "message"),
    [
        (TensorParallelStrategy(tensor_parallel_size=2), 3, "product of all sizes, 2, does not divide the 3 processes"),
        (TensorParallelStrategy(2, 2), 2, "product of all sizes, 4, is not the 2 processes"),
        (TensorParallelStrategy(tensor_parallel_size=0), 2, "tensor_parallel_size=0: must be at least 1"),
        (TensorParallelStrategy(context_parallel_size=2), 2, "context_parallel_size=2: not supported"),
        (TensorParallelStrategy(tensor_parallel_size=3), 3, "does not divide heads=4: choose one of [1, 2]"),
        (TensorParallelStrategy(tensor_parallel_size=4), 4, "does not divide key_value_heads=2: choose one of [1, 2]"),
        (
            TensorParallelStrategy(2, compile_backend="inductor"),
            2,
            "compile_backend=inductor with tensor_parallel_size=2",
        ),
        (TensorParallelStrategy(2, float8=True), 2, "float8=true with tensor_parallel_size=2"),
        (pipeline(2, schedule="zbv", float8=True), 2, "float8=true: schedule zbv cuts"),
        (pipeline(1), 2, "pipeline_parallel_size=1: a pipeline needs at least 2"),
        (pipeline(2, microbatches=1), 2, "schedule 1f1b over 2 stages needs at least 2"),
        (pipeline(2, microbatches=3), 2, "microbatches=3 does not divide batch_size=8: choose one of [1, 2, 4, 8]"),
        (pipeline(2, microbatches=0), 2, "microbatches=0: must be at least 1"),
        (pipeline(2, schedule="zbv", stages_per_rank=1), 2, "stages_per_rank=1: schedule zbv needs exactly 2"),
        (pipeline(2, schedule="zbv", stages_per_rank=3), 2, "stages_per_rank=3: schedule zbv needs exactly 2"),
        (pipeline(2, schedule="interleaved_1f1b", stages_per_rank=1), 2, "needs at least 2"),
        (pipeline(2, schedule="1f1b", stages_per_rank=2), 2, "schedule 1f1b needs exactly 1"),
        (pipeline(2, schedule="zbv", compile_backend="inductor"), 2, "compile_backend=inductor: schedule zbv cuts"),
        (pipeline(2, schedule="zbv", activation_checkpointing="selective"), 2, "activation_checkpointing=selective"),
        (
            pipeline(2, schedule="zbv", activation_checkpointing="full"),
            2,
            "activation_checkpointing=full: schedule zbv",
        ),
        (
            pipeline(2, schedule="interleaved_zero_bubble", activation_checkpointing="full"),
            2,
            "recomputes the block each time; take none, or 1f1b or interleaved_1f1b",
        ),
        (pipeline(4, schedule="interleaved_1f1b"), 4, "layers=4: fewer than the 8 pipeline stages"),
    ],
)
def test_what_cannot_work_is_refused(strategy: Any, processes: int, message: str) -> None:
    with pytest.raises(InputError) as raised:
        preflight(strategy, processes)
    assert message in str(raised.value)


def test_an_unknown_schedule_is_refused_when_the_strategy_is_made() -> None:
    with pytest.raises(InputError, match="schedule=nothing: choose one of gpipe, 1f1b"):
        pipeline(2, schedule="nothing")


def test_vocabulary_and_sequence_must_divide(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="does not divide sequence_length=33"):
        preflight(TensorParallelStrategy(tensor_parallel_size=2), 2, length=33)
    monkeypatch.setitem(SHAPE, "vocabulary_size", 65)
    with pytest.raises(InputError, match="does not divide vocabulary_size=65"):
        preflight(TensorParallelStrategy(tensor_parallel_size=2), 2)


def test_rounds_of_micro_batches_must_be_whole() -> None:
    with pytest.raises(InputError, match="5 micro-batches per step.*multiple of 2"):
        preflight(pipeline(2, schedule="interleaved_1f1b", microbatches=1), 2, accumulate=5)


@pytest.mark.end_to_end
def test_the_command_line_refuses_in_one_line(configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    """Before any process is started: the second would print the line again."""
    strategy = {"class_path": "strategies.TensorParallelStrategy", "init_args": {"tensor_parallel_size": 2}}
    with pytest.raises(SystemExit) as raised:
        main(["fit", "--config", str(configure(trainer__strategy=strategy, trainer__devices=3))])
    assert raised.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "tensor_parallel_size=2" in errors[0]


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (TensorParallelStrategy(tensor_parallel_size=2), "experts are not cut"),
        (pipeline(2), "decoder.experts in a pipeline"),
    ],
    ids=["tensor parallel", "pipeline"],
)
def test_experts_are_refused_where_they_cannot_be_spread(strategy: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        preflight(strategy, 2, experts=Experts(4, 2))

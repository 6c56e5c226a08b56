"""Every layout trains as one process does: losses, gradient norms, validation and the samples of each batch."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from models import SpikeSkip
from tests.helpers.distributed import run_ranks
from tests.helpers.layouts import CONTINUED, LAYOUTS, fit, stop_early

_alone: dict[str, dict[str, Any]] = {}


def alone(folder: Path, options: dict[str, Any], shape: dict[str, Any]) -> dict[str, Any]:
    """The same run in one process, made once."""
    key = repr((sorted(options.items()), sorted(shape.items())))
    if key not in _alone:
        (_alone[key],) = fit("single", folder, options, shape)
    return _alone[key]


def assert_same(ranks: list[dict[str, Any]], expected: dict[str, Any], tolerance: float) -> None:
    for rank in ranks:
        for name in ("losses", "norms", "bits"):
            assert rank[name] == pytest.approx(expected[name], abs=tolerance), name


@pytest.mark.distributed
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "single"])
def test_float32_equals_one_process(layout: str, tmp_path: Path) -> None:
    """Clipped at every step, two batches accumulated, tied or untied in turn, validated twice."""
    options = {"max_steps": 4, "accumulate_grad_batches": 2, "val_check_interval": 4}
    shape = {"tied_embeddings": len(layout) % 2 == 0}
    expected = alone(tmp_path, options, shape)
    assert min(expected["norms"]) > 0.5  # clipping does something
    ranks = fit(layout, tmp_path, options, shape)
    assert_same(ranks, expected, 1e-5)
    # Which samples make up each step does not depend on the layout; peers along pp and tp see the same.
    per_step = [
        sorted({s for rank in ranks for batch in rank["samples"][2 * i : 2 * i + 2] for s in batch}) for i in range(4)
    ]
    assert per_step == [sorted(itertools.chain(*expected["samples"][2 * i : 2 * i + 2])) for i in range(4)]
    assert len(expected["bits"]) == 2


@pytest.mark.distributed
@pytest.mark.parametrize("layout", ["fsdp2", "zbv"])
def test_tied_and_untied_without_accumulation(layout: str, tmp_path: Path) -> None:
    for tied in (True, False):
        shape = {"tied_embeddings": tied}
        assert_same(fit(layout, tmp_path, {}, shape), alone(tmp_path, {}, shape), 1e-5)


@pytest.mark.distributed
@pytest.mark.parametrize("layout", ["tp2xfsdp2", "zbvxfsdp2"])
def test_muon_and_every_switch_of_the_decoder_equal_one_process(layout: str, tmp_path: Path) -> None:
    """Muon's products need whole matrices, of which each process holds a part; norms of heads and biases are cut or
    copied. A checkpoint continues in one process.
    """
    shape = {"optimizer": "Muon", "query_key_norm": True, "query_key_value_bias": True, "sliding_window": 5}
    shape |= {"embedding_scale": 2.0, "attention_scale": 0.2, "residual_scale": 0.5, "logit_divisor": 4.0}
    shape |= {"rope_pattern": [True, False]}
    checkpoint = str(tmp_path / "half.ckpt")
    expected = alone(tmp_path, {}, shape)
    assert_same(fit(layout, tmp_path, {}, shape, save=checkpoint), expected, 1e-5)
    (continued,) = fit("single", tmp_path, {}, shape, resume=checkpoint)
    assert continued["losses"] == pytest.approx(expected["losses"][3:], abs=1e-5)


@pytest.mark.distributed
@pytest.mark.parametrize("layout", ["tp2", "zbvxfsdp2"])
@pytest.mark.parametrize("optimizer", ["AdamW", "Muon"])
def test_skipped_steps_and_growing_batches_equal_one_process(layout: str, optimizer: str, tmp_path: Path) -> None:
    """Every rank leaves out the same steps, and a resumed run goes on with the same batches and the same history."""
    shape = {"optimizer": optimizer, "learning_rate": {"AdamW": 0.01, "Muon": 0.1}[optimizer]}
    shape |= {"spike_skip": SpikeSkip(0.5, window=4), "batch_size_warmup": True}
    options, checkpoint = {"max_steps": 8, "accumulate_grad_batches": 2}, str(tmp_path / "half.ckpt")
    expected = alone(tmp_path, options, shape)
    assert 1 <= expected["skipped"] <= 6
    assert [len(samples) for samples in expected["samples"]] == [4] * 8 + [8] * 8
    extra = {"microbatches": 2} if layout.startswith("zbv") else {}
    ranks = fit(layout, tmp_path, options, shape, save=checkpoint, extra=extra)
    assert_same(ranks, expected, 1e-5)
    (continued,) = fit("single", tmp_path, options, shape, resume=checkpoint)
    assert continued["losses"] == pytest.approx(expected["losses"][4:], abs=1e-5)
    assert continued["skipped"] == expected["skipped"] == ranks[0]["skipped"]
    assert continued["samples"] == expected["samples"][8:]


@pytest.mark.distributed
@pytest.mark.parametrize("layout", ["single", "fsdp2", "1f1b"])
def test_no_step_waits_at_a_barrier_or_copies_a_number_to_the_device(layout: str, tmp_path: Path) -> None:
    for rank in fit(layout, tmp_path, {"max_steps": 4, "accumulate_grad_batches": 2}, {}):
        assert len(rank["losses"]) == 4
        assert (rank["barriers"], rank["copies"]) == (0, 0)


@pytest.mark.distributed
def test_experts_equal_one_process(tmp_path: Path) -> None:
    """Balanced by row, so that cutting a batch over ranks changes nothing."""
    shape = {"experts": {"num_experts": 4, "experts_per_token": 2, "balance_weight": 0.1}, "optimizer": "Muon"}
    options = {"accumulate_grad_batches": 2}
    assert_same(fit("fsdp2", tmp_path, options, shape), alone(tmp_path, options, shape), 1e-5)


@pytest.mark.distributed
@pytest.mark.parametrize("layout", ["fsdp2", "tp2", "zbv"])
def test_bfloat16_stays_within_rounding(layout: str, tmp_path: Path) -> None:
    ranks = fit(layout, tmp_path, {"precision": "bf16-mixed"}, {})
    expected = alone(tmp_path, {}, {})
    for rank in ranks:
        assert rank["losses"] == pytest.approx(expected["losses"], rel=0.01)
        assert rank["norms"] == pytest.approx(expected["norms"], rel=0.05)
        assert rank["bits"] == pytest.approx(expected["bits"], rel=0.01)


@pytest.mark.distributed
@pytest.mark.parametrize(("layout", "mode"), [("1f1b", "selective"), ("interleaved_1f1b", "full"), ("tp2", "full")])
def test_recomputed_activations_change_nothing(layout: str, mode: str, tmp_path: Path) -> None:
    ranks = fit(layout, tmp_path, {}, {}, extra={"activation_checkpointing": mode})
    assert_same(ranks, alone(tmp_path, {}, {}), 1e-5)


@pytest.mark.distributed
@pytest.mark.parametrize("layout", ["1f1b"])
def test_compiled_blocks_change_nothing(layout: str, tmp_path: Path) -> None:
    ranks = fit(layout, tmp_path, {"max_steps": 3}, {"layers": 2}, extra={"compile_backend": "aot_eager"})
    assert_same(ranks, alone(tmp_path, {"max_steps": 3}, {"layers": 2}), 1e-5)


@pytest.mark.distributed
def test_any_layout_continues_any_other(tmp_path: Path) -> None:
    """Model, optimizer, schedule and data position; saved half-way by a run that goes on."""
    shape, options = {"tied_embeddings": True}, {"max_steps": 4, "limit_val_batches": 0, "num_sanity_val_steps": 0}
    expected = alone(tmp_path, options, shape)
    for layout in CONTINUED:
        fit(layout, tmp_path, options, shape, save=str(tmp_path / f"{layout}.ckpt"))
    # Each is written and read; benchmarks/layout_parity.py goes through all pairs.
    pairs = [*itertools.pairwise([*CONTINUED, "single"]), ("zbv", "tp2")]
    for saved, resumed in pairs:
        ranks = fit(resumed, tmp_path, options, shape, resume=str(tmp_path / f"{saved}.ckpt"))
        for rank in ranks:
            assert rank["losses"] == pytest.approx(expected["losses"][2:], abs=1e-5), (saved, resumed)
            assert rank["norms"] == pytest.approx(expected["norms"][2:], abs=1e-5), (saved, resumed)
        seen = sorted({sample for rank in ranks for batch in rank["samples"] for sample in batch})
        assert seen == list(range(16, 32)), (saved, resumed)


@pytest.mark.distributed
@pytest.mark.parametrize("layout", ["fsdp2", "tp2", "zbvxfsdp2"])
def test_early_stopping_best_checkpoint_and_testing_work(layout: str, tmp_path: Path) -> None:
    world, strategy, arguments = LAYOUTS[layout]
    batch_size = 4 if "fsdp2" in layout else 8
    expected = alone(tmp_path, {"max_steps": 12, "val_check_interval": 2}, {})
    for rank in run_ranks(world, stop_early, str(tmp_path), world, strategy, arguments, batch_size):
        assert rank["step"] == 4  # the second validation is no improvement by 10 bits
        assert rank["losses"] == pytest.approx(expected["losses"][:4], abs=1e-5)
        assert rank["test"] == pytest.approx(rank["best"], abs=1e-6)


@pytest.mark.distributed
def test_asynchronous_saving_writes_the_weights_of_its_step(tmp_path: Path) -> None:
    from models.weights.single_file import read_checkpoint

    for layout, asynchronous in (("fsdp2", False), ("fsdp2", True)):
        extra = {"asynchronous_checkpoints": asynchronous}
        fit(layout, tmp_path, {}, {}, save=str(tmp_path / f"{asynchronous}.ckpt"), extra=extra)
    plain, later = (read_checkpoint(tmp_path / f"{name}.ckpt")["state_dict"] for name in (False, True))
    assert plain.keys() == later.keys()
    assert all((plain[name] == later[name]).all() for name in plain)

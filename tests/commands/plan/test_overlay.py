"""What `plan --search` writes against what `fit` looks at before it starts."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import strategies
from commands.plan.command import plan
from commands.plan.overlay import overlay_of, same_step
from commands.plan.setup import setup_of
from commands.resolve import resolve_config
from datamodules.mixing.batch_size_warmup import BatchSizeWarmup
from datamodules.resumable import ResumableDataModule
from models.config import DecoderConfig
from strategies.parallel.mesh import MeshSizes
from strategies.planner.hardware import read_hardware
from strategies.planner.layout_search import candidates, refusal
from strategies.planner.training_setup import TrainingSetup
from tests.helpers.corpus import ROOT
from tests.helpers.planner import LAYOUTS, configuration

H100 = read_hardware(ROOT / "configs/hardware/h100.yaml")
CONFIG = DecoderConfig(32_000, width=512, layers=12, heads=8, key_value_heads=4, feed_forward_width=1024)
LENGTH = 256


def started(overlay: dict[str, Any]) -> tuple[Any, ResumableDataModule]:
    """The strategy after its preflight with this overlay, and the data."""
    trainer, data = overlay["trainer"], overlay["data"]["init_args"]
    warmup = data.get("batch_size_warmup")
    samples = ResumableDataModule(data["batch_size"], 0, warmup and BatchSizeWarmup(**warmup))
    kind = getattr(strategies, trainer["strategy"]["class_path"].removeprefix("strategies."))
    strategy = kind(**trainer["strategy"]["init_args"])
    strategy.num_nodes, strategy.parallel_devices = trainer["num_nodes"], [None] * trainer["devices"]
    strategy.cluster_environment = None
    samples.sequence_length = LENGTH  # type: ignore[attr-defined]
    strategy.preflight(
        SimpleNamespace(
            lightning_module=SimpleNamespace(config=CONFIG),
            datamodule=samples,
            accumulate_grad_batches=trainer["accumulate_grad_batches"],
        )
    )
    return strategy, samples


@given(
    world=st.integers(1, 48),
    each=st.sampled_from([1, 2, 3, 8]),
    warmup=st.sampled_from([None, (1, 1, 40), (2, 2, 7), (3, 4, 100), (4, 100, 5), (12, 1, 9)]),
    start=st.integers(0, 4),
)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_fit_accepts_every_overlay(world: int, each: int, warmup: tuple[int, int, int] | None, start: int) -> None:
    """As many processes as were asked for, equally many a machine, and the windows of every step as they were."""
    full, asked = 12, None if warmup is None else BatchSizeWarmup(*warmup)
    smaller = tuple(asked.smaller(full)) if asked else ()
    # The step of a run on `world` GPUs that accumulates `each` batches.
    setup = TrainingSetup(CONFIG, MeshSizes(dp_shard=world), LENGTH, full, each, steps=200, warmup_batches=smaller)
    accepted = (candidate for candidate in candidates(setup, H100, world) if refusal(candidate) is None)
    data = {"batch_size": full, "batch_size_warmup": asked and vars(asked)}
    for candidate in list(accepted)[start::5]:
        given_configuration = {"trainer": {"accumulate_grad_batches": each}, "data": {"init_args": data}}
        overlay = overlay_of(candidate, given_configuration, H100.gpus_per_node)
        strategy, samples = started(overlay)
        trainer = overlay["trainer"]
        assert trainer["devices"] * trainer["num_nodes"] == strategy.sizes.world == world
        assert trainer["devices"] <= H100.gpus_per_node
        assert trainer["devices"] % strategy.sizes.tp == 0
        batches = trainer["accumulate_grad_batches"] * strategy.sizes.data_parallel
        for step in (0, 1, 6, 8, 39, 99, 150):
            before = asked.size(step, full) if asked else full
            assert samples.batch_size_of(step) * batches == before * each * world
        assert candidate.tokens == setup.tokens


def test_machines_of_equal_numbers_of_processes() -> None:
    """8 x 2 was written for 12 processes; and 6 x 2 would cut groups of four."""
    setup = TrainingSetup(CONFIG, MeshSizes(dp_shard=12), LENGTH, 1)
    for sizes, devices in ((MeshSizes(dp_shard=12), 6), (MeshSizes(dp_shard=6, tp=2), 6), (MeshSizes(pp=3, tp=4), 4)):
        trainer = replace(setup, sizes=sizes).overlay(8)["trainer"]
        assert (trainer["devices"], trainer["num_nodes"]) == (devices, 12 // devices)


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        ({"val_check_interval": 32_000, "limit_train_batches": 6400}, (4000, 800)),
        ({"val_check_interval": 0.25, "limit_train_batches": 1.0}, (None, None)),
        ({"val_check_interval": None}, (None, None)),
        ({"val_check_interval": "00:12:00:00"}, (None, None)),
        ({"val_check_interval": 10}, (8, None)),
    ],
)
def test_validation_stays_at_the_same_steps(trainer: dict[str, Any], expected: tuple[int | None, int | None]) -> None:
    setup = TrainingSetup(CONFIG, MeshSizes(dp_shard=8), LENGTH, 8, accumulate=8)
    before = {"trainer": trainer | {"accumulate_grad_batches": 64}, "data": {"init_args": {}}}
    found = overlay_of(setup, before, 8)["trainer"]
    assert (found.get("val_check_interval"), found.get("limit_train_batches")) == expected


def test_the_whole_way_to_fit(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config, overlay = tmp_path / "config.yaml", tmp_path / "overlay.yaml"
    made = configuration(tmp_path / "run", *LAYOUTS["single"])
    made["trainer"] |= {"max_steps": 10, "accumulate_grad_batches": 12, "val_check_interval": 60}
    made["model"]["init_args"]["schedule"] = {"class_path": "models.Cosine", "init_args": {"warmup_steps": 2}}
    made["data"]["class_path"] = "datamodules.RandomTokens"
    made["data"]["init_args"]["batch_size_warmup"] = {"initial": 1, "increment": 1, "steps": 4}
    config.write_text(yaml.safe_dump(made))
    search = ["--config", str(config), "--hardware", "h100", "--devices", "12", "--search"]
    plan([*search, "--output", str(overlay)], resolve_config)
    capsys.readouterr()
    both, _ = resolve_config(["fit", "--config", str(config), "--config", str(overlay)])
    trainer = both["trainer"]
    assert (trainer["devices"], trainer["num_nodes"]) == (6, 2)
    assert trainer["val_check_interval"] == 5 * trainer["accumulate_grad_batches"]
    assert both["data"]["init_args"]["batch_size_warmup"]["steps"] == 4
    assert setup_of(both, H100).tokens == setup_of(made, H100).tokens == 128 * (4 * 12 + 6 * 24)
    plan([*search, "--json"], lambda _: (both, []))
    best = json.loads(capsys.readouterr().out)["best"][0]["overlay"]
    assert best == yaml.safe_load(overlay.read_text())


def test_a_warm_up_of_one_size_is_written_over() -> None:
    """It begins with more windows than a batch of the new layout has."""
    made = configuration(Path("run"), *LAYOUTS["single"])
    made["data"]["init_args"]["batch_size_warmup"] = {"initial": 2, "increment": 1, "steps": 4}
    setup = same_step(setup_of(made, H100, 2, accepted=False), made, 2)
    assert setup.rows == 2
    assert overlay_of(replace(setup, rows=1), made, 8)["data"]["init_args"] == {
        "batch_size": 1,
        "batch_size_warmup": None,
    }

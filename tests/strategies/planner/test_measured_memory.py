"""The plan's peak memory beside what training a model of 30 million parameters takes, in four layouts."""

import json
from pathlib import Path

import pytest
import yaml

from commands.plan.setup import setup_of
from commands.plan.verify import compare_run, hardware_it_ran_on
from strategies.planner.peak_memory import rank_memory
from tests.helpers.corpus import ROOT
from tests.helpers.distributed import run_ranks
from tests.helpers.planner import CPU, LAYOUTS, PIPELINE, configuration, train


@pytest.mark.distributed
@pytest.mark.parametrize("layout", LAYOUTS)
def test_peak_memory_within_a_tenth(layout: str, tmp_path: Path) -> None:
    world, strategy, arguments = LAYOUTS[layout]
    chosen = configuration(tmp_path, world, strategy, arguments)
    run_ranks(world, train, chosen, timeout=600)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(chosen))
    found = {row.name: row for row in compare_run(tmp_path, CPU)}
    memory = [row for name, row in found.items() if name.startswith("peak memory")]
    assert len(memory) == setup_of(chosen, CPU).sizes.pp
    facts = json.loads((tmp_path / "run.json").read_text())
    assert hardware_it_ran_on(tmp_path, facts, ROOT / "configs/hardware") == "cpu"
    parts = [rank_memory(setup_of(chosen, CPU), rank, CPU.overhead) for rank in range(len(memory))]
    for row, part in zip(memory, parts, strict=True):
        assert abs(row.difference) < 0.1, (layout, row, part, facts["peak_memory_bytes"])
    assert {"step time", "tokens per second"} <= found.keys()


@pytest.mark.distributed
def test_peak_memory_of_a_zero_bubble_schedule(tmp_path: Path) -> None:
    """A small model and many windows: without the gradients between the two backward passes the plan lay 11 and 16 %
    below what was measured, with them 5 %.
    """
    arguments = {
        "pipeline_parallel_size": 2, "schedule": "interleaved_zero_bubble", "microbatches": 4, "stages_per_rank": 2,
    }  # fmt: skip
    chosen = configuration(tmp_path, 2, PIPELINE, arguments, batch_size=16, vocabulary_size=1024)
    chosen["model"]["init_args"]["decoder"] |= {"width": 256, "layers": 8, "heads": 4, "feed_forward_width": 704}
    run_ranks(2, train, chosen, timeout=600)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(chosen))
    memory = [row for row in compare_run(tmp_path, CPU) if row.name.startswith("peak memory")]
    assert len(memory) == 2
    for row in memory:
        assert abs(row.difference) < 0.1, row

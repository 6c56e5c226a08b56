"""Loss and gradient parity of parallel layouts: python -m benchmarks.layout_parity [--pairs]

Every layout against one process: 20 optimizer steps of a small model (4 layers, width 32, grouped heads, z-loss,
weight decay, warm-up and cosine, clipping at 0.5 at every step) on CPU with gloo. Recorded: the largest difference of
the loss and of the global gradient norm over all steps and ranks. `--pairs` saves half-way in six layouts and continues
each in all six. Results: layout_parity.json and the tables in README.md.
"""

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from tests.helpers.distributed import run_ranks
from tests.helpers.layouts import CONTINUED, LAYOUTS, train

STEPS = 20
RESULT = Path(__file__).with_suffix(".json")


def fit(layout: str, folder: str, options: dict[str, Any], tied: bool, **checkpoints: str) -> list[dict[str, Any]]:
    """What each rank saw; the global batch is 8 samples a micro-batch in every layout."""
    world, strategy, arguments = LAYOUTS[layout]
    data_parallel = world // (arguments.get("tensor_parallel_size", 1) * arguments.get("pipeline_parallel_size", 1))
    return run_ranks(
        world,
        train,
        folder,
        world,
        strategy,
        arguments,
        {"max_steps": STEPS} | options,
        {"tied_embeddings": tied},
        8 // data_parallel,
        checkpoints.get("save"),
        checkpoints.get("resume"),
        timeout=600,
    )


def difference(ranks: list[dict[str, Any]], expected: dict[str, Any], since: int = 0) -> dict[str, float]:
    """Largest difference of each series from that of one process, over all ranks."""
    return {
        name: max(abs(a - b) for rank in ranks for a, b in zip(rank[name], expected[name][since:], strict=True))
        for name in ("losses", "norms")
    }


def parity(folder: str) -> list[dict[str, Any]]:
    rows = []
    for precision in ("32-true", "bf16-mixed"):
        for tied in (True, False):
            for accumulate in (1, 2):
                options = {"precision": precision, "accumulate_grad_batches": accumulate}
                (alone,) = fit("single", folder, options, tied)
                for layout in [name for name in LAYOUTS if name != "single"]:
                    start = time.monotonic()
                    found = difference(fit(layout, folder, options, tied), alone)
                    row = {"layout": layout, "precision": precision, "tied": tied, "accumulate": accumulate} | found
                    rows.append(row | {"seconds": round(time.monotonic() - start, 1)})
                    print(json.dumps(rows[-1]), flush=True)
    return rows


def pairs(folder: str) -> list[dict[str, Any]]:
    rows = []
    for tied in (True, False):
        (alone,) = fit("single", folder, {}, tied)
        for saved in CONTINUED:
            fit(saved, folder, {}, tied, save=f"{folder}/{tied}-{saved}.ckpt")
            for resumed in CONTINUED:
                ranks = fit(resumed, folder, {}, tied, resume=f"{folder}/{tied}-{saved}.ckpt")
                seen = sorted({sample for rank in ranks for batch in rank["samples"] for sample in batch})
                same_order = seen == list(range(8 * STEPS // 2, 8 * STEPS))
                row = {"saved": saved, "resumed": resumed, "tied": tied, "same_samples": same_order}
                rows.append(row | difference(ranks, alone, STEPS // 2))
                print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", action="store_true", help="save in each layout, continue in each")
    chosen = parser.parse_args()
    record = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        record["pairs" if chosen.pairs else "layouts"] = (pairs if chosen.pairs else parity)(folder)
    record["machine"] = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__}
    RESULT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

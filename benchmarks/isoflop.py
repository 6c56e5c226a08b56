"""IsoFLOP runs: small decoders of equal compute on the quickstart's text, and the scaling law through them.

    python -m benchmarks.isoflop --flops 3e11 1e12 3e12

For every compute each shape trains for as many steps as 6 N D allows, by `python main.py fit` with the quickstart's own
configuration, a schedule that ends with the run and a learning rate that follows the width: with one rate for all, the
wider ones learn less than they can. Runs that are finished are not run again. Then `main.py scaling_law` fits the
parametric law and the parabolas and draws isoflop.png; isoflop.json is its result. The defaults take about half an hour
on two cores; runs are in runs/isoflop.
"""

import argparse
import contextlib
import io
import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import yaml
from tqdm import tqdm

from commands.plan.scaling_law import scaling_law
from common.errors import InputError
from models.config import DecoderConfig
from models.flops import matmul_parameters
from strategies.planner.scaling_law_fit import require_enough

ROOT = Path(__file__).resolve().parent.parent
VOCABULARY, LENGTH, WINDOWS = 2048, 512, 2
METRIC = "validation/bits_per_byte/all"
TOKENS_PER_PARAMETER = (1, 128)
"""Runs are made between them: Hoffmann et al. 2022 find 20 best, and only near the best the loss is a parabola."""
SHAPES = {
    f"{width}x{layers}": {
        "width": width, "layers": layers, "heads": heads, "key_value_heads": heads,
        "feed_forward_width": 8 * round(width / 3),
    }
    for width, layers, heads in ((16, 2, 1), (24, 2, 1), (32, 2, 1), (48, 2, 2), (64, 2, 2), (64, 4, 2), (96, 4, 4))
}  # fmt: skip


def learning_rate(width: int) -> float:
    """Inverse to the width, 3e-3 at 32 (Yang et al. 2022, table 8: of matrices between hidden states)."""
    return 3e-3 * 32 / width


def steps(shape: dict[str, int], flops: float) -> tuple[int, float]:
    """Optimizer steps of 2 windows that 6 N D allows, and tokens per parameter."""
    config = DecoderConfig(vocabulary_size=VOCABULARY, tied_embeddings=False, **shape)  # type: ignore[arg-type]
    parameters = matmul_parameters(config)
    count = round(flops / (6 * parameters * LENGTH * WINDOWS))
    return count, count * LENGTH * WINDOWS / parameters


def train(folder: Path, shape: dict[str, int], count: int) -> None:
    """One run, continued where it was left, and left alone where it ended."""
    rate = learning_rate(shape["width"])
    if (folder / "config.yaml").is_file():
        saved = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        model = saved["model"]["init_args"]
        found = (saved["trainer"]["max_steps"], model["optimizer"]["init_args"]["learning_rate"])
        if found != (count, rate) or any(model["decoder"][name] != value for name, value in shape.items()):
            raise InputError(
                f"{folder}: it holds another run, of {found[0]} steps at {found[1]}: give another --folder"
            )
        record, table = folder / "run.json", folder / "metrics.csv"
        ended = record.is_file() and json.loads(record.read_text(encoding="utf-8")).get("steps") == count
        if ended and table.is_file() and METRIC in table.read_text(encoding="utf-8"):
            return
    changes = {
        "trainer.default_root_dir": folder,
        "trainer.max_steps": count,
        "trainer.val_check_interval": count,
        "trainer.accumulate_grad_batches": 1,
        "data.init_args.batch_size": WINDOWS,
        "model.init_args.optimizer.init_args.learning_rate": rate,
        "model.init_args.schedule.init_args.warmup_steps": max(1, count // 20),
        **{f"model.init_args.decoder.{name}": value for name, value in shape.items()},
    }
    call("fit", *(f"--{name}={value}" for name, value in changes.items()))


def call(subcommand: str, *arguments: str) -> None:
    """One of main.py's with the quickstart's configuration, on one thread: so small, a second one is of no use."""
    command = [sys.executable, str(ROOT / "main.py"), subcommand, "--config", str(ROOT / "configs/quickstart.yaml")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run([*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(f"{subcommand} {' '.join(arguments)}: status {ended.returncode}\n{ended.stderr[-2000:]}")


def main() -> None:
    """Every size of every compute, as many at once as there are cores, then the law."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flops", type=float, nargs="+", default=[3e11, 1e12, 3e12])
    parser.add_argument("--only", nargs="+", choices=sorted(SHAPES), default=sorted(SHAPES))
    parser.add_argument("--folder", type=Path, default=ROOT / "runs/isoflop")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="runs at once")
    arguments = parser.parse_args()
    least, most = TOKENS_PER_PARAMETER
    for flops in arguments.flops:
        if not 0 < flops < math.inf:
            parser.error(f"--flops {flops}: must be a number of FLOPs above 0, as 1e12")
    if arguments.jobs < 1:
        parser.error(f"--jobs {arguments.jobs}: must be at least 1")
    chosen = {
        arguments.folder / f"{flops:g}-{name}": (SHAPES[name], steps(SHAPES[name], flops)[0])
        for flops in arguments.flops
        for name in arguments.only
        if least <= steps(SHAPES[name], flops)[1] <= most
    }
    try:
        # Before the first of them is trained.
        require_enough([tuple(shape.values()) for shape, _ in chosen.values()], [count for _, count in chosen.values()])
    except InputError as error:
        parser.error(f"{error}; left were those with {least} to {most} tokens per parameter")
    call("prepare")
    pool = ThreadPoolExecutor(arguments.jobs)
    try:
        # The longest first, so that none is left alone at the end.
        ordered = sorted(chosen.items(), key=lambda run: -run[1][1])
        running = [pool.submit(train, folder, shape, count) for folder, (shape, count) in ordered]
        for done in tqdm(as_completed(running), total=len(running)):
            done.result()
    except InputError as error:
        parser.error(str(error))
    finally:
        # Where one fails, those that wait for their turn are not begun.
        pool.shutdown(cancel_futures=True)
    folders = list(chosen)
    here, printed = Path(__file__), io.StringIO()
    with contextlib.redirect_stdout(printed):
        scaling_law([str(folder) for folder in folders], str(here.with_suffix(".png")), METRIC, json=True)
    here.with_suffix(".json").write_text(printed.getvalue(), encoding="utf-8")
    print(printed.getvalue())


if __name__ == "__main__":
    main()

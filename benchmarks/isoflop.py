"""Which size learns most from a given compute? Small decoders on the quickstart's text, and the law through them.

    python -m benchmarks.isoflop --flops 3e11 1e12 3e12

For every compute each shape trains for as many steps as 6 N D allows, by `python main.py fit` with the quickstart's own
configuration and a schedule that ends with the run; runs that are finished are not run again. Then
`main.py scaling_law` fits the parametric law and the parabolas and draws isoflop.png; isoflop.json is its answer. The
defaults take about half an hour on two cores; runs are in runs/isoflop.
"""

import argparse
import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

from tqdm import tqdm

from commands.scaling_law import scaling_law
from errors import InputError
from models.config import DecoderConfig
from models.flops import matmul_parameters
from strategies.planner.scaling_laws import require_enough

ROOT = Path(__file__).resolve().parent.parent
VOCABULARY, LENGTH, WINDOWS = 2048, 512, 2
METRIC = "validation/bits_per_byte/all"
SHAPES = {
    f"{width}x{layers}": {
        "width": width, "layers": layers, "heads": width // 32, "key_value_heads": width // 32,
        "hidden_width": 8 * round(width / 3),
    }
    for width, layers in ((32, 2), (64, 2), (64, 4), (96, 4), (128, 4), (192, 4), (192, 6), (256, 6))
}  # fmt: skip


def steps(shape: dict[str, int], flops: float) -> int:
    """Optimizer steps of 2 windows that 6 N D allows."""
    config = DecoderConfig(vocabulary_size=VOCABULARY, tied_embeddings=False, **shape)
    return round(flops / (6 * matmul_parameters(config) * LENGTH * WINDOWS))


def train(folder: Path, shape: dict[str, int], count: int) -> None:
    """One run, continued where it was left, and left alone where it ended."""
    record, table = folder / "run.json", folder / "metrics.csv"
    ended = record.is_file() and json.loads(record.read_text(encoding="utf-8")).get("steps") == count
    if ended and METRIC in table.read_text(encoding="utf-8"):
        return
    changes = {
        "trainer.default_root_dir": folder,
        "trainer.max_steps": count,
        "trainer.val_check_interval": count,
        "trainer.accumulate_grad_batches": 1,
        "data.init_args.batch_size": WINDOWS,
        "model.init_args.schedule.init_args.warmup_steps": max(1, count // 20),
        **{f"model.init_args.decoder.{name}": value for name, value in shape.items()},
    }
    arguments = [f"--{name}={value}" for name, value in changes.items()]
    command = [sys.executable, str(ROOT / "main.py"), "fit", "--config", str(ROOT / "configs/quickstart.yaml")]
    subprocess.run([*command, *arguments], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def main() -> None:
    """Every size of every compute that has between 20 and 5,000 steps, then the law."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flops", type=float, nargs="+", default=[3e11, 1e12, 3e12])
    parser.add_argument("--only", nargs="+", choices=sorted(SHAPES), default=sorted(SHAPES))
    parser.add_argument("--folder", type=Path, default=ROOT / "runs/isoflop")
    arguments = parser.parse_args()
    asked = [(flops, name, steps(SHAPES[name], flops)) for flops in arguments.flops for name in arguments.only]
    chosen = [run for run in asked if 20 <= run[2] <= 5000]
    try:
        # Before the first of them is trained.
        require_enough([name for _, name, _ in chosen], [count for _, _, count in chosen])
    except InputError as error:
        parser.error(str(error))
    folders = []
    for flops, name, count in tqdm(chosen):
        folders.append(arguments.folder / f"{flops:.0e}-{name}")
        train(folders[-1], SHAPES[name], count)
    here, printed = Path(__file__), io.StringIO()
    with contextlib.redirect_stdout(printed):
        scaling_law([str(folder) for folder in folders], str(here.with_suffix(".png")), METRIC, as_json=True)
    here.with_suffix(".json").write_text(printed.getvalue(), encoding="utf-8")
    print(printed.getvalue())


if __name__ == "__main__":
    main()

"""Resumption of `main.py prepare`: killed at random moments and restarted until done, against one uninterrupted run.

    python -m benchmarks.data.killed_preparation --kills 20

The quickstart's own configuration, every stage: documents, tokenizer, shards. Rounds begin in a new folder and are
killed with SIGKILL, at a moment drawn from the length of the whole run, until one start reaches the end; there are as
many rounds as it takes to have so many kills. Every file must then be the same to the byte, but for the one that says
how long it took, and no other may be left.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import xxhash

from benchmarks.data.curation import machine

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "configs/quickstart.yaml"
TIMED = ("timings.json", "report.html", "report.json")


def start(folder: Path) -> subprocess.Popen[bytes]:
    """The command."""
    command = [sys.executable, "main.py", "prepare", "--config", CONFIG, f"--data.init_args.folder={folder}"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for it and insist that it went well."""
    _, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"prepare ended with {process.returncode}: {errors.decode()[-2000:]}")


def contents(folder: Path) -> dict[str, str]:
    """Checksum of every file by its name."""
    return {
        str(path.relative_to(folder)): xxhash.xxh3_64_hexdigest(path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in TIMED
    }


def stage(folder: Path) -> str:
    """What an interrupted run was at."""
    done = {path.name.partition("-")[0] for path in folder.glob("*-*")}
    return next((name for name in ("documents", "tokenizer", "shards") if name not in done), "report")


def killed_round(folder: Path, seconds: float, generator: random.Random) -> list[dict[str, Any]]:
    """Kill until a start reaches the end; when each kill came, and during what."""
    kills: list[dict[str, Any]] = []
    while True:
        process, wait = start(folder), generator.uniform(1, seconds)
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills.append({"after_seconds": round(wait, 2), "during": stage(folder)})
            print(json.dumps(kills[-1]), flush=True)
            continue
        finish(process)
        return kills


def main() -> None:
    """One run in one go, then rounds of killed ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=ROOT / "data/killed_preparation")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    shutil.rmtree(arguments.folder, ignore_errors=True)
    began = time.monotonic()
    finish(start(arguments.folder / "whole"))
    seconds = time.monotonic() - began
    expected = contents(arguments.folder / "whole")
    generator = random.Random(0)
    rounds: list[list[dict[str, Any]]] = []
    while sum(map(len, rounds)) < arguments.kills:
        folder = arguments.folder / f"killed-{len(rounds)}"
        rounds.append(killed_round(folder, seconds, generator))
        found = contents(folder)
        if found != expected:
            raise SystemExit(f"{folder} differs: {sorted(name for name, _ in found.items() ^ expected.items())[:10]}")
        shutil.rmtree(folder)
    record = {"files": len(expected), "seconds_in_one_go": round(seconds, 1), "identical": True, "rounds": rounds}
    arguments.output.write_text(json.dumps({"machine": machine("daft")} | record, indent=1) + "\n")
    print(f"{sum(map(len, rounds))} kills in {len(rounds)} rounds, {len(expected)} files the same each time")


if __name__ == "__main__":
    main()

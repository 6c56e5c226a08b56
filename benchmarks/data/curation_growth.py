"""Cost and memory of curation as the corpus grows: this project's whole `prepare` until its documents are complete.

    python -m benchmarks.data.curation_growth 10000 100000 1000000

The corpus is made up: documents of 1-2 KB, one in ten a near-duplicate, one in fifty an exact one. Each size is a
process of its own, ended when the documents stage is there.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.data.curation import CACHE, machine

OUTPUT = Path(__file__).with_suffix(".json")


def synthetic_corpus(count: int) -> Path:
    """Documents of 1-2 KB of made-up words, one in ten a near-duplicate of one before it, one in fifty an exact one."""
    import numpy as np

    folder = CACHE / f"synthetic-{count}"
    if folder.exists():
        return folder
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    generator = np.random.default_rng(0)
    syllables = [a + b for a in "bdfgklmnprst" for b in ("a", "e", "i", "o", "u", "an", "er", "os")]
    vocabulary = np.array(["the", "of", "and", "to", *("".join(generator.choice(syllables, 3)) for _ in range(20_000))])
    for part in range(0, count, 10_000):
        with (partial / f"{part // 10_000:05}.jsonl").open("w", encoding="utf-8") as file:
            words = vocabulary[generator.integers(0, len(vocabulary), (min(10_000, count - part), 200))]
            lengths = generator.integers(130, 200, len(words))
            for row in range(len(words)):
                chosen = words[row, : lengths[row]]
                if row % 50 == 49:
                    chosen = words[row - 7, : lengths[row - 7]]
                elif row % 10 == 9:
                    chosen = words[row - 5, : lengths[row - 5]].copy()
                    chosen[len(chosen) // 2] = "changed"
                sentences = [" ".join(("the", "and", *chosen[i : i + 12])) for i in range(0, len(chosen), 12)]
                file.write(json.dumps({"text": ". ".join(sentences) + "."}) + "\n")
    partial.rename(folder)
    return folder


def prepare_until_documents(count: int) -> dict[str, Any]:
    """Seconds and peak memory of the documents stage, in a process that is ended when the stage is complete."""
    texts = synthetic_corpus(count)
    size = sum(path.stat().st_size for path in texts.iterdir())
    with tempfile.TemporaryDirectory(dir=CACHE) as work:
        command = [sys.executable, "-m", "benchmarks.data.curation_growth", "--prepare", str(texts), "--into", work]
        environment = os.environ | {"DAFT_ANALYTICS_ENABLED": "0", "DAFT_PROGRESS_BAR": "0"}
        started = None
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("start"):
                    started = time.perf_counter()
                    break
            peak = 0.0
            while process.poll() is None and not list(Path(work).glob("documents-*")):
                peak = max(peak, peak_memory(process.pid))
                time.sleep(0.05)
            seconds = time.perf_counter() - (started or 0)
            done = [json.loads(path.read_text()) for path in Path(work).glob("documents-*/curation.json")]
            process.kill()
        if not done or started is None:
            raise SystemExit(f"prepare of {count} documents ended with {process.returncode} before its documents stage")
    return {
        "documents": count,
        "megabytes": round(size / 1e6, 1),
        "seconds": round(seconds, 2),
        "microseconds_per_document": round(1e6 * seconds / count, 1),
        "peak_memory_megabytes": round(peak),
        "kept": done[0]["total"]["out"]["documents"],
    }


def peak_memory(process: int) -> float:
    """Peak resident memory in megabytes so far, 0 where the system does not say."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 1000 if found else 0.0


def prepare_documents(texts: Path, into: Path) -> None:
    """The stages of `prepare` on the made-up corpus with the rules of web text."""
    from datamodules import Files, GopherQuality, GopherRepetition, Length, NearDuplicates, TextSource
    from datamodules.prepare import prepare
    from datamodules.tokenization.base import TokenizerSettings

    rules = [Length(), GopherQuality(), GopherRepetition()]
    sources = {"web": TextSource(Files([str(texts)]), rules)}
    print("start", flush=True)
    prepare(into, sources, NearDuplicates(), 0.001, TokenizerSettings(vocabulary_size=2048), 0)


def main() -> None:
    """Run each size, record after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.prepare:
        prepare_documents(arguments.prepare, arguments.into)
        return
    record: dict[str, Any] = {"machine": machine("daft", "numba"), "runs": []}
    for count in arguments.documents:
        record["runs"].append(prepare_until_documents(count))
        print(json.dumps(record["runs"][-1]), flush=True)
        arguments.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

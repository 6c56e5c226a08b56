"""Text tokenized per second beside datatrove's DocumentTokenizer: same Parquet files, same cores, same vocabulary size.

    python -m benchmarks.data.tokenizing

Both read the clean text from Parquet, encode it with an end-of-text token and write flat arrays of tokens with an index
of documents; ours also writes ids, offsets and checksums. datatrove runs as one process per core, each with a share of
the files, once with our own tokenizer exported to tokenizer.json and once with a byte-level BPE as GPT-2's, trained on
the same text; its shuffling of documents is off. Imports, compilation and loading are left out: every process does a
small file first. Runs are processes of their own and take turns.
"""

import argparse
import json
import multiprocessing
import os
import platform
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

RUNS = ("ours", "datatrove-same-tokenizer", "datatrove-byte-level")
SUFFIXES = {".py", ".md", ".rst", ".txt", ".pyi", ".json", ".html"}
END = "<|endoftext|>"
OUTPUT = Path(__file__).with_suffix(".json")


def write_corpus(folder: Path, megabytes: float, files: int) -> dict[str, int]:
    """Files of about equal size of text of the installed packages, no document twice, in a fixed random order."""
    roots = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib")]
    paths = sorted({path for root in roots for path in root.rglob("*") if path.suffix in SUFFIXES and path.is_file()})
    random.Random(0).shuffle(paths)
    texts: dict[str, int] = {}
    size = 0
    for path in paths:
        if size >= megabytes * 1e6:
            break
        try:
            text = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError):
            continue
        if 100 < len(text) < 500_000 and text not in texts:
            texts[text] = int(files * size / (megabytes * 1e6))
            size += len(text.encode())
    (folder / "text").mkdir()
    (folder / "small").mkdir()
    number = 0
    for file, group in groupby(texts, key=texts.__getitem__):
        rows = list(group)
        sizes = [len(text.encode()) for text in rows]
        ids = pyarrow.array(range(number, number + len(rows)), pyarrow.uint64())
        columns = {"id": ids, "source": ["text"] * len(rows), "split": ["train"] * len(rows), "bytes": sizes}
        table = pyarrow.table(columns | {"text": rows})
        pyarrow.parquet.write_table(table, folder / f"text/{file:05}.parquet", compression="zstd", row_group_size=4096)
        number += len(rows)
        if file < 2:
            pyarrow.parquet.write_table(table.slice(0, 20), folder / f"small/{file:05}.parquet")
    return {"documents": number, "bytes": size}


def write_tokenizers(folder: Path, vocabulary_size: int) -> None:
    """Ours, the same exported, and a byte-level one."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    from datamodules.tokenization.base import TokenizerSettings
    from datamodules.tokenization.sentencepiece import train_tokenizer
    from datamodules.tokenization.tokenizer_json import write_hugging_face_tokenizer
    from datamodules.tokenization.training_sample import sample_texts

    sample = list(sample_texts(sorted((folder / "text").iterdir()), None, 16_000_000))
    tokenizer = train_tokenizer(sample, TokenizerSettings(vocabulary_size=vocabulary_size))
    for name in ("ours", "same-tokenizer"):
        (folder / name).mkdir()
    tokenizer.write(folder / "ours")
    write_hugging_face_tokenizer(tokenizer, None, folder / "same-tokenizer")
    byte_level = tokenizers.Tokenizer(models.BPE())
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_level.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    byte_level.train_from_iterator(
        sample,
        trainers.BpeTrainer(
            vocab_size=vocabulary_size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
        ),
    )
    (folder / "byte-level").mkdir()
    byte_level.save(str(folder / "byte-level/tokenizer.json"))


def ours(folder: Path, into: Path) -> tuple[float, int]:
    """Seconds and tokens."""
    from datamodules.shards.format import open_shards
    from datamodules.shards.write import DocumentFile, write_shards

    def run(text: Path, shards: Path) -> None:
        shards.mkdir()
        files = [DocumentFile(path, path.stat().st_size) for path in sorted(text.iterdir())]
        write_shards(files, shards, folder / "ours")

    run(folder / "small", into / "small")
    start = time.perf_counter()
    run(folder / "text", into / "shards")
    seconds = time.perf_counter() - start
    return seconds, sum(shard.record.tokens for shard in open_shards(into / "shards", verify=False))


def datatrove(folder: Path, tokenizer: Path, into: Path, workers: int) -> tuple[float, int]:
    """Seconds from when all workers are ready to the end of the last one, and tokens."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(workers + 1), context.Queue()
    arguments = [(folder, tokenizer, into, rank, workers, barrier, results) for rank in range(workers)]
    processes = [context.Process(target=datatrove_worker, args=one) for one in arguments]
    for process in processes:
        process.start()
    barrier.wait()
    start = time.perf_counter()
    tokens = sum(results.get() for _ in processes)
    seconds = time.perf_counter() - start
    for process in processes:
        process.join()
    return seconds, tokens


def datatrove_worker(
    folder: Path, tokenizer: Path, into: Path, rank: int, workers: int, barrier: Any, results: Any
) -> None:
    """The share of one process."""
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    end = END if tokenizer.name == "byte-level" else "</s>"

    def run(text: Path, output: Path) -> int:
        reader = ParquetReader(str(text), text_key="text", id_key="id", batch_size=1000)
        writer = DocumentTokenizer(
            str(output), str(tokenizer / "tokenizer.json"), eos_token=end, batch_size=1000, shuffle_documents=False
        )
        writer.run(reader.run(rank=rank, world_size=workers), rank=rank, world_size=workers)
        return int(writer.stats.stats["tokens"].total)

    run(folder / "small", into / "small")
    barrier.wait()
    results.put(run(folder / "text", into / "tokens"))


def main() -> None:
    """Run each in turn, several times, and record medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=64)
    parser.add_argument("--vocabulary_size", type=int, default=32768)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--run", choices=RUNS, help="one run, for the parent to start")
    parser.add_argument("--folder", type=Path, help="of the corpus, for --run")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[: arguments.cores] if hasattr(os, "sched_getaffinity") else None
    if arguments.run:
        if cores:
            os.sched_setaffinity(0, cores)
        os.environ["RAYON_NUM_THREADS"] = "1"  # datatrove has one process per core
        with tempfile.TemporaryDirectory() as name:
            if arguments.run == "ours":
                found = ours(arguments.folder, Path(name))
            else:
                tokenizer = arguments.folder / arguments.run.removeprefix("datatrove-")
                found = datatrove(arguments.folder, tokenizer, Path(name), arguments.cores)
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = write_corpus(folder, arguments.megabytes, 4 * arguments.cores)
        write_tokenizers(folder, arguments.vocabulary_size)
        found_by_run: dict[str, list[tuple[float, int]]] = {run: [] for run in RUNS}
        for _ in range(arguments.repeats):
            for run in RUNS:
                command = [sys.executable, "-m", "benchmarks.data.tokenizing", "--run", run, "--folder", name]
                command += ["--cores", str(arguments.cores)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found_by_run[run].append(json.loads(done.stdout.splitlines()[-1]))
    records = []
    for run, found in found_by_run.items():
        seconds, tokens = statistics.median(time for time, _ in found), found[0][1]
        records.append({
            "run": run, "vocabulary_size": arguments.vocabulary_size, **corpus, "tokens": tokens,
            "tokens_per_second": round(tokens / seconds),
            "megabytes_per_second": round(corpus["bytes"] / 1e6 / seconds, 2),
            "seconds": [round(time, 3) for time, _ in found],
            "machine": f"{platform.machine()}, {arguments.cores} cores",
        })  # fmt: skip
        print(json.dumps(records[-1]))
    arguments.output.write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()

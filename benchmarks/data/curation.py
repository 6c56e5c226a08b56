"""Curation beside datatrove 0.10 on the same documents: seconds on two cores, and every decision compared.

    pip install -e ".[bench]" && python -m benchmarks.data.curation --documents 2000 --repeats 3
    python -m benchmarks.data.curation --html /usr/share/doc

Documents are the Python files, docstrings and READMEs of the installed packages, or the main texts of the HTML manuals
below the folders given: prose, of which the rules keep half and not almost nothing. One in twenty comes again with a
few words changed. A run reads them from two files of JSON lines and decides; nothing is written but what the method
itself writes (datatrove's signatures and pairs). Each run is a process of its own that first takes two documents, so
that neither imports nor compiled loops nor spaCy's tables are timed; datatrove's workers are timed from the first one's
first document to the last one's end. The two take turns.
"""

import argparse
import functools
import json
import os
import platform
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import xxhash

from benchmarks.data.curation_rules import compare_rules

CACHE = Path("data/benchmark_curation")
FAMILIES = ("gopher_quality", "gopher_repetition", "c4", "fineweb", "near_duplicates", "all")
WORKERS = 2
WARM_UP = ["Two documents to warm up with. One has {brackets}.", "The other one has none. That is all of it. Is it?"]


def corpus_folder(count: int, html: Sequence[str]) -> Path:
    """Where the documents are, by their number and the folders of HTML they are from."""
    kind = f"html-{xxhash.xxh3_64_hexdigest(chr(0).join(html).encode())[:8]}" if html else "documents"
    return CACHE / f"{kind}-{count}"


def corpus(count: int, html: Sequence[str] = ()) -> Path:
    """A folder of `count` documents in two files of JSON lines, made once.

    Args:
        count: number of documents.
        html: folders of HTML manuals; none for the sources of installed packages.

    Raises:
        SystemExit: when the folders hold fewer documents.
    """
    folder = corpus_folder(count, html)
    if folder.exists():
        return folder
    from datamodules import Docstrings, HtmlFiles, PythonSources, Readmes

    def texts(reader: Any) -> Iterator[str]:
        for file in reader.files():
            for document in reader.read(file):
                if document.text and document.text.strip():
                    yield document.text

    chosen = [HtmlFiles(list(html))] if html else [PythonSources(), Docstrings(), Readmes()]
    readers = [texts(reader) for reader in chosen]
    generator, found = random.Random(0), list[str]()
    while len(found) < count and readers:
        for reader in list(readers):
            text = next(reader, None)
            if text is None:
                readers.remove(reader)
            elif len(text) < 200_000:
                found.append(text)
        if len(found) % 20 == 0:
            parts = re.split(r"(\W+)", generator.choice(found))
            for _ in range(2):
                parts[generator.randrange(len(parts))] = "changed"
            found.append("".join(parts))
    if len(found) < count:
        raise SystemExit(f"--documents {count}: only {len(found)} were found, name more folders or fewer documents")
    write_lines(folder, found[:count])
    return folder


def write_lines(folder: Path, texts: list[str]) -> None:
    """Texts as JSON lines in one file per worker, all at once."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for worker in range(WORKERS):
        with (partial / f"{worker:05}.jsonl").open("w", encoding="utf-8") as file:
            for number in range(worker, len(texts), WORKERS):
                file.write(json.dumps({"id": number, "text": texts[number]}) + "\n")
    partial.rename(folder)


# This project


def our_steps(family: str) -> list[Any]:
    """Steps with the settings of datatrove's filters."""
    from datamodules import C4Lines, C4Page, FineWebQuality, GopherQuality, GopherRepetition

    steps: dict[str, list[Any]] = {
        "gopher_quality": [GopherQuality()],
        "gopher_repetition": [GopherRepetition()],
        "c4": [C4Lines(min_words=3, end_marks=".?!\"'"), C4Page(min_sentences=5)],
        "fineweb": [FineWebQuality()],
        "near_duplicates": [],
    }
    return [step for one in steps.values() for step in one] if family == "all" else steps[family]


def judge_ours(folder: Path, family: str) -> dict[str, Any]:
    """Reasons by document, by the plan that `prepare` judges with; near-duplicates are all members of a group."""
    import daft
    import numpy as np
    import pyarrow.compute

    from common.compute.daft_engine import spread
    from datamodules import NearDuplicates
    from datamodules.curation.deduplication.connected_components import connected_components, pairs_in_buckets
    from datamodules.curation.passes.filter import apply_steps, band_column

    near = NearDuplicates() if family in ("near_duplicates", "all") else None
    table = daft.read_json(f"{folder}/*.jsonl").to_arrow()
    for name in ("path", "file", "group", "url", "license", "date", "reason"):
        table = table.append_column(name, pyarrow.nulls(len(table), pyarrow.large_string()))
    piece = spread(table)
    bands = [band_column(number) for number in range(near.bands)] if near else []
    filtered = apply_steps(piece, "web", our_steps(family), near, None).select("id", "reason", *bands).to_arrow()
    reasons = filtered.column("reason").to_pylist()
    verdicts = dict(zip(filtered.column("id").to_pylist(), reasons, strict=True))
    if near is not None:
        kept = filtered.filter(pyarrow.compute.is_null(filtered.column("reason")))
        order = np.arange(len(kept))
        found = [pairs_in_buckets(order, kept.column(band).to_numpy()) for band in bands]
        connected_components(np.concatenate(found), len(kept))
        # Which member of a group stays is each side's own choice: compared is who is in a group.
        members = kept.column("id").take(pyarrow.array(np.unique(np.concatenate(found)))).to_pylist()
        verdicts |= dict.fromkeys(members, "near_duplicate")
    return verdicts


def run_ours(folder: Path, warm: Path, family: str) -> tuple[float, dict[str, Any]]:
    """Seconds and verdicts."""
    judge_ours(warm, family)
    start = time.perf_counter()
    verdicts = judge_ours(folder, family)
    return time.perf_counter() - start, verdicts


# datatrove


class Recorder:
    """Notes when a worker's first document comes and when its last has gone, and what a filter decides."""

    def __init__(self, folder: str, stage: str) -> None:
        self.folder, self.stage = folder, stage
        self.verdicts: dict[str, str] = {}
        self.started = 0.0

    def start(self, data: Any, rank: int, world_size: int) -> Any:
        """First step of a pipeline that works on files."""
        self.started = time.time()
        return data

    def begin(self, data: Any, rank: int, world_size: int) -> Iterator[Any]:
        """Step behind the reader: two documents go through the filters before the clock starts."""
        from datatrove.data import Document

        for number, text in enumerate(WARM_UP):
            yield Document(text=text, id=f"warm-{number}")
        self.started = time.time()
        yield from data

    def end(self, data: Any, rank: int, world_size: int) -> None:
        """Last step: consumes what is left."""
        for _ in data or ():
            pass
        name = f"{self.stage}-{rank:03}.json"
        record = {"started": self.started, "ended": time.time(), "verdicts": self.verdicts}
        Path(self.folder, name).write_text(json.dumps(record))

    def watch(self, filter_: Any) -> Any:
        """A filter that notes why it drops."""
        decide = filter_.filter

        def noted(document: Any) -> Any:
            verdict = decide(document)
            if verdict is not True:
                self.verdicts[str(document.id)] = verdict[1]
            return verdict

        filter_.filter = noted
        return filter_


def hash_text(text: str) -> int:
    """datatrove's hash, which hands strings to xxhash; from its version 4 on xxhash takes bytes alone."""
    return xxhash.xxh64_intdigest(text.encode())


def their_filters(family: str) -> list[Any]:
    """Filters with their own settings."""
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    filters: dict[str, list[Callable[[], Any]]] = {
        "gopher_quality": [GopherQualityFilter],
        "gopher_repetition": [GopherRepetitionFilter],
        "c4": [C4QualityFilter],
        "fineweb": [FineWebQualityFilter],
        "near_duplicates": [],
    }
    chosen = [one for made in filters.values() for one in made] if family == "all" else filters[family]
    return [make() for make in chosen]


def run_theirs(folder: Path, family: str) -> tuple[float, dict[str, Any]]:
    """Seconds of all stages and verdicts."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.utils.logging import logger

    logger.remove()
    verdicts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as work:
        signatures, pairs, removed = (f"{work}/{name}" for name in ("signatures", "pairs", "removed"))
        seconds = 0.0

        def stage(name: str, make: Callable[[Recorder], list[Any]], tasks: int) -> None:
            nonlocal seconds
            recorder = Recorder(work, name)
            LocalPipelineExecutor(
                make(recorder), tasks=tasks, workers=min(tasks, WORKERS), logging_dir=f"{work}/{name}"
            ).run()
            records = [json.loads(path.read_text()) for path in sorted(Path(work).glob(f"{name}-*.json"))]
            seconds += max(record["ended"] for record in records) - min(record["started"] for record in records)
            for record in records:
                verdicts.update(
                    {int(key): why for key, why in record["verdicts"].items() if not key.startswith("warm")}
                )

        def documents(recorder: Recorder) -> list[Any]:
            filters = [recorder.watch(one) for one in their_filters(family)]
            steps = [JsonlReader(str(folder)), recorder.begin, *filters]
            if family in ("near_duplicates", "all"):
                steps.append(MinhashDedupSignature(signatures, MinhashConfig()))
                steps[-1]._hash_func = hash_text
            return [*steps, recorder.end]

        stage("documents", documents, WORKERS)
        if family in ("near_duplicates", "all"):
            buckets = MinhashConfig().num_buckets
            stage("pairs", lambda r: [r.start, MinhashDedupBuckets(signatures, pairs), r.end], buckets)
            stage("clusters", lambda r: [r.start, MinhashDedupCluster(pairs, removed), r.end], 1)
            # The documents to warm up with are too short for any filter, and are numbered where there is none.
            first = len(WARM_UP) if family == "near_duplicates" else 0
            members = paired_documents(folder, Path(pairs), set(verdicts), first)
            verdicts |= dict.fromkeys(members, "near_duplicate")
    return seconds, verdicts


def paired_documents(folder: Path, pairs: Path, dropped: set[int], first: int) -> set[int]:
    """Ids of the documents that datatrove found a near-duplicate of; `first`: the number of the corpus' first."""
    import numpy as np

    ids = []
    for worker in range(WORKERS):
        lines = (folder / f"{worker:05}.jsonl").read_text(encoding="utf-8").splitlines()
        ids.append([number for number in (json.loads(line)["id"] for line in lines) if number not in dropped])
    found = np.concatenate([np.fromfile(path, dtype="<u4") for path in pairs.glob("*.dups")]).reshape(-1, 2)
    return {ids[worker][place - first] for worker, place in found.tolist() if place >= first}


# Runs


def child(arguments: list[str]) -> dict[str, Any]:
    """What a process of its own prints last."""
    environment = os.environ | {"DAFT_ANALYTICS_ENABLED": "0", "DAFT_PROGRESS_BAR": "0", "TQDM_DISABLE": "1"}
    command = [sys.executable, "-m", "benchmarks.data.curation", *arguments]
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    record: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return record


def compare(count: int, repeats: int, families: list[str], html: list[str]) -> dict[str, Any]:
    """Both sides in turns, medians; decisions of the last repeat."""
    folder, warm = corpus(count, html), CACHE / "warm"
    same_corpus = ["--documents", str(count), *(["--html", *html] if html else [])]
    if not warm.exists():
        write_lines(warm, WARM_UP)
    size = sum(len(json.loads(line)["text"].encode()) for path in folder.glob("*.jsonl") for line in path.open())
    record: dict[str, Any] = {"documents": count, "megabytes": round(size / 1e6, 2), "repeats": repeats, "families": {}}
    for family in families:
        runs: dict[str, list[float]] = {"ours": [], "datatrove": []}
        verdicts: dict[str, dict[str, Any]] = {}
        for repeat in range(repeats):
            for side in ("ours", "datatrove") if repeat % 2 == 0 else ("datatrove", "ours"):
                result = child(["--child", side, "--family", family, *same_corpus])
                runs[side].append(result["seconds"])
                verdicts[side] = {key: why for key, why in result["verdicts"].items() if why}
                print(f"{family} {side}: {result['seconds']:.2f} s, {len(verdicts[side])} dropped", flush=True)
        medians = {side: statistics.median(seconds) for side, seconds in runs.items()}
        both = set(verdicts["ours"]) & set(verdicts["datatrove"])
        either = set(verdicts["ours"]) | set(verdicts["datatrove"])
        record["families"][family] = {
            **{
                side: {
                    "seconds": [round(one, 3) for one in seconds],
                    "documents_per_second": round(count / medians[side], 1),
                    "megabytes_per_second": round(size / 1e6 / medians[side], 3),
                    "dropped": len(verdicts[side]),
                    "share_kept": round(1 - len(verdicts[side]) / count, 4),
                }
                for side, seconds in runs.items()
            },
            "times_as_fast": round(medians["datatrove"] / medians["ours"], 1),
            "share_agreeing": round(1 - (len(either) - len(both)) / count, 5),
        }
    record |= child(["--child", "rules", *same_corpus])
    return record


def machine(*packages: str) -> dict[str, Any]:
    """What the numbers were taken on."""
    import torch

    return {
        "cores": os.cpu_count(),
        "processor": f"{platform.machine()} ({torch.backends.cpu.get_cpu_capability()})",
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def main() -> None:
    """Measure, compare, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=FAMILIES)
    parser.add_argument("--html", nargs="+", default=[], help="folders of HTML manuals to take the documents from")
    parser.add_argument("--no-record", action="store_true")
    parser.add_argument("--child", choices=("ours", "datatrove", "rules"), help=argparse.SUPPRESS)
    parser.add_argument("--family", choices=FAMILIES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = corpus_folder(arguments.documents, arguments.html)
    if arguments.child == "rules":
        print(json.dumps(compare_rules(folder)))
        return
    if arguments.child:
        run = (
            functools.partial(run_ours, folder, CACHE / "warm")
            if arguments.child == "ours"
            else functools.partial(run_theirs, folder)
        )
        seconds, verdicts = run(arguments.family)
        print(json.dumps({"seconds": seconds, "verdicts": verdicts}))
        return
    record = {
        "machine": machine("daft", "numba", "datatrove", "spacy"),
        **compare(arguments.documents, arguments.repeats, arguments.families, arguments.html),
    }
    print(json.dumps(record, indent=1, ensure_ascii=False))
    if not arguments.no_record:
        text = json.dumps(record, indent=1, ensure_ascii=False)
        here = Path(__file__)
        here = here.with_name("curation_prose.json") if arguments.html else here.with_suffix(".json")
        here.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Cleaning beside datatrove 0.10 on the same documents: seconds on two cores, and every decision compared.

    pip install -e ".[bench]" && python -m benchmarks.curation --documents 2000 --repeats 3
    python -m benchmarks.curation --scaling 10000 100000 1000000

Documents are the Python files, docstrings and READMEs of the installed packages, one in twenty again with a few words
changed. A run reads them from two files of JSON lines and decides; nothing is written but what the method itself writes
(datatrove's signatures and pairs). Each run is a process of its own that first takes two documents, so that neither
imports nor compiled loops nor spaCy's tables are timed; datatrove's workers are timed from the first one's first
document to the last one's end. The two take turns. `--scaling` runs this project's whole `prepare` on a made-up corpus
until its documents stage is complete.
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
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import xxhash

CACHE = Path("data/benchmark_curation")
FAMILIES = ("gopher_quality", "gopher_repetition", "c4", "fineweb", "near_duplicates", "all")
WORKERS = 2
WARM_UP = ["Two documents to warm up with. One has {brackets}.", "The other one has none. That is all of it. Is it?"]


def corpus(count: int) -> Path:
    """A folder of `count` documents in two files of JSON lines, made once."""
    folder = CACHE / f"documents-{count}"
    if folder.exists():
        return folder
    from datamodules import Docstrings, PythonSources, Readmes

    def texts(reader: Any) -> Iterator[str]:
        for file in reader.files():
            for document in reader.read(file):
                if document.text and document.text.strip():
                    yield document.text

    readers = [texts(reader) for reader in (PythonSources(), Docstrings(), Readmes())]
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
    write_lines(folder, found[:count])
    return folder


def write_lines(folder: Path, texts: list[str]) -> None:
    """Texts as JSON lines in one file a worker, all at once."""
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
        "c4": [C4Lines(minimum_words=3, end_marks=".?!\"'"), C4Page(minimum_sentences=5)],
        "fineweb": [FineWebQuality()],
        "near_duplicates": [],
    }
    return [step for one in steps.values() for step in one] if family == "all" else steps[family]


def judge_ours(folder: Path, family: str) -> dict[str, Any]:
    """Reasons by document; near-duplicates are all members of a group."""
    import daft
    import numpy as np
    import pyarrow.compute
    from daft import col, lit
    from daft.functions import coalesce, when

    from datamodules import NearDuplicates
    from datamodules.cleaning.components import connected_components, pairs_in_buckets
    from datamodules.cleaning.judging import band_column
    from datamodules.cleaning.step import Rule

    df = daft.read_json(f"{folder}/*.jsonl").with_column("reason", lit(None).cast(daft.DataType.string()))
    for step in our_steps(family):
        if isinstance(step, Rule):
            df = df.with_columns({f"measured_{key}": value for key, value in step.measures(col("text")).items()})
            measured = {key: col(f"measured_{key}") for key in step.measures(col("text"))}
            drops = step.drops(measured).items()
            df = df.with_column("reason", coalesce(col("reason"), *(when(drop, lit(why)) for why, drop in drops)))
            df = df.with_column("text", when(col("reason").is_null(), col("text")))
        else:
            df = df.with_column("text", step.rewrite(col("text")))
    columns, near = ["id", "reason"], NearDuplicates()
    if family in ("near_duplicates", "all"):
        df = df.with_column("signature", near.signature(col("text")))
        bands = {band_column(number): key for number, key in enumerate(near.band_keys(col("signature")))}
        df = df.with_columns(bands)
        columns += list(bands)
    judged = df.select(*columns).collect().to_arrow()
    reasons = judged.column("reason").to_pylist()
    verdicts = dict(zip(judged.column("id").to_pylist(), reasons, strict=True))
    if len(columns) > 2:
        kept = judged.filter(pyarrow.compute.is_null(judged.column("reason")))
        order = np.arange(len(kept))
        found = [pairs_in_buckets(order, kept.column(band).to_numpy()) for band in columns[2:]]
        connected_components(found, len(kept))
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


# Decisions, rule by rule


def single_rules() -> dict[str, tuple[Any, Any]]:
    """Rule -> datatrove's filter with this rule alone, and our reason and step."""
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    from datamodules import C4Lines, C4Page, FineWebQuality, GopherQuality, GopherRepetition

    rules: dict[str, tuple[Any, Any]] = {}
    quality = {
        "min_doc_words": 50, "max_doc_words": 100000, "min_avg_word_length": 3, "max_avg_word_length": 10,
        "max_symbol_word_ratio": 0.1, "max_bullet_lines_ratio": 0.9, "max_ellipsis_lines_ratio": 0.3,
        "max_non_alpha_words_ratio": 0.8, "min_stop_words": 2,
    }  # fmt: skip
    reasons = {
        "min_doc_words": ["gopher_too_few_words"], "max_doc_words": ["gopher_too_many_words"],
        "min_avg_word_length": ["gopher_short_words"], "max_avg_word_length": ["gopher_long_words"],
        "max_symbol_word_ratio": ["gopher_hashes", "gopher_ellipses"],
        "max_bullet_lines_ratio": ["gopher_bullet_lines"],
        "max_ellipsis_lines_ratio": ["gopher_ellipsis_lines"],
        "max_non_alpha_words_ratio": ["gopher_few_alphabetic_words"], "min_stop_words": ["gopher_few_stop_words"],
    }  # fmt: skip
    for name, value in quality.items():
        alone = GopherQualityFilter(**(dict.fromkeys(quality) | {name: value}))
        rules[" or ".join(reasons[name])] = alone, (GopherQuality(), reasons[name])
    parts = {
        "dup_line_frac": (0.3, "gopher_duplicate_lines"), "dup_para_frac": (0.3, "gopher_duplicate_paragraphs"),
        "dup_line_char_frac": (0.2, "gopher_duplicate_line_characters"),
        "dup_para_char_frac": (0.2, "gopher_duplicate_paragraph_characters"),
    }  # fmt: skip
    off: dict[str, Any] = {**dict.fromkeys(parts), "top_n_grams": (), "dup_n_grams": ()}
    for name, (value, reason) in parts.items():
        rules[reason] = GopherRepetitionFilter(**(off | {name: value})), (GopherRepetition(), [reason])
    for n, value in ((2, 0.2), (3, 0.18), (4, 0.16)):
        reason = f"gopher_top_{n}_gram"
        rules[reason] = GopherRepetitionFilter(**(off | {"top_n_grams": ((n, value),)})), (GopherRepetition(), [reason])
    for n, value in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10)):
        reason = f"gopher_duplicate_{n}_grams"
        rules[reason] = GopherRepetitionFilter(**(off | {"dup_n_grams": ((n, value),)})), (GopherRepetition(), [reason])
    never = {"line_punct_thr": 0.0, "short_line_thr": 1.0, "char_duplicates_ratio": 1.0, "new_line_ratio": float("inf")}
    for name, value, reason in (
        ("line_punct_thr", 0.12, "fineweb_few_terminal_lines"), ("short_line_thr", 0.67, "fineweb_short_lines"),
        ("char_duplicates_ratio", 0.01, "fineweb_repeated_lines"), ("new_line_ratio", 0.3, "fineweb_line_feeds"),
    ):  # fmt: skip
        rules[reason] = FineWebQualityFilter(**(never | {name: value})), (FineWebQuality(), [reason])
    lines = C4Lines(minimum_words=3, end_marks=".?!\"'")
    pages = {"filter_lorem_ipsum": False, "filter_curly_bracket": False, "min_num_sentences": -1}
    for name, on, reason in (
        ("filter_lorem_ipsum", True, "c4_placeholder"), ("filter_curly_bracket", True, "c4_curly_bracket"),
        ("min_num_sentences", 5, "c4_few_sentences"),
    ):  # fmt: skip
        rules[reason] = C4QualityFilter(**(pages | {name: on})), (C4Page(minimum_sentences=5), [reason, lines])
    rules["c4_lines"] = C4QualityFilter(**pages), (None, [lines])
    return rules


def compare_rules(folder: Path) -> dict[str, Any]:
    """Share of documents on which each rule agrees, and every disagreement sorted by its cause."""
    import numpy as np
    from datatrove.data import Document
    from datatrove.utils.text import split_into_words

    from datamodules.cleaning.step import COMPARISONS
    from datamodules.cleaning.words import words_of

    rules = single_rules()
    texts = [
        json.loads(line)["text"] for path in sorted(folder.glob("*.jsonl")) for line in path.open(encoding="utf-8")
    ]

    def buffered(some: list[str]) -> tuple[Any, Any]:
        raw = [text.encode() for text in some]
        return np.frombuffer(b"".join(raw), dtype=np.uint8), np.cumsum([0, *map(len, raw)])

    def unbuffered(content: Any, offsets: Any) -> list[str]:
        whole = content.tobytes()
        return [whole[a:b].decode() for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]

    @functools.cache
    def ours(kind: str, lined: bool) -> dict[str, Any]:
        """Measurements by name, of the texts as they are or with C4's lines."""
        step = next(made for made, _ in (mine for _, mine in rules.values()) if type(made).__name__ == kind)
        content = kept_texts if lined else texts
        names = [limit.measure for limit in step.limits().values()]
        from datamodules.cleaning import c4, fineweb, gopher

        order = {
            "GopherQuality": gopher.QUALITY, "GopherRepetition": gopher.REPETITION, "FineWebQuality": fineweb.MEASURES,
            "C4Page": c4.PAGE_MEASURES,
        }[kind]  # fmt: skip
        values = step.measure(*buffered(content))
        return {name: values[:, order.index(name)] for name in names}

    kept_texts = unbuffered(*rules["c4_lines"][1][1][0].keep(*buffered(texts)))
    report: dict[str, Any] = {}
    same_words: dict[int, bool] = {}
    for number, text in enumerate(texts):
        for rule, (filter_, (step, about)) in rules.items():
            document = Document(text=text, id="0")
            verdict = filter_.filter(document)
            row = report.setdefault(
                rule, {"documents": 0, "dropped": 0, "agree": 0, "causes": Counter(), "examples": []}
            )
            row["documents"] += 1
            if step is None:
                theirs, mine, shown = document.text.strip(), kept_texts[number].strip(), ""
                row["dropped"] += theirs != text
            else:
                lined = type(step).__name__ == "C4Page"
                limits = [step.limits()[reason] for reason in about if isinstance(reason, str)]
                values = [float(ours(type(step).__name__, lined)[limit.measure][number]) for limit in limits]
                theirs = verdict is not True
                mine = any(
                    COMPARISONS[limit.comparison](value, limit.threshold)  # type: ignore[arg-type]
                    for limit, value in zip(limits, values, strict=True)
                )
                shown = ", ".join(f"{limit.measure}={value:.6g}" for limit, value in zip(limits, values, strict=True))
                row["dropped"] += theirs
            if theirs == mine:
                row["agree"] += 1
                continue
            if number not in same_words:
                same_words[number] = words_of(text) == split_into_words(text)
            cause = "the same words, another definition" if same_words[number] else "other words"
            row["causes"][cause] += 1
            if len(row["examples"]) < 5:
                row["examples"].append({"document": number, "theirs": str(theirs)[:80], "ours": f"{mine} {shown}"[:120],
                                        "cause": cause, "excerpt": text[:80]})  # fmt: skip
    for row in report.values():
        row["share_agreeing"] = round(row.pop("agree") / row["documents"], 5)
    differing = sum(not same for same in same_words.values())
    return {"rules": report, "documents_compared_word_by_word": len(same_words), "with_other_words": differing}


# Runs


def child(arguments: list[str]) -> dict[str, Any]:
    """What a process of its own prints last."""
    environment = os.environ | {"DAFT_ANALYTICS_ENABLED": "0", "DAFT_PROGRESS_BAR": "0", "TQDM_DISABLE": "1"}
    command = [sys.executable, "-m", "benchmarks.curation", *arguments]
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    record: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return record


def compare(count: int, repeats: int, families: list[str]) -> dict[str, Any]:
    """Both sides in turns, medians; decisions of the first repeat."""
    folder, warm = corpus(count), CACHE / "warm"
    if not warm.exists():
        write_lines(warm, WARM_UP)
    size = sum(len(json.loads(line)["text"].encode()) for path in folder.glob("*.jsonl") for line in path.open())
    record: dict[str, Any] = {"documents": count, "megabytes": round(size / 1e6, 2), "repeats": repeats, "families": {}}
    for family in families:
        runs: dict[str, list[float]] = {"ours": [], "datatrove": []}
        verdicts: dict[str, dict[str, Any]] = {}
        for repeat in range(repeats):
            for side in ("ours", "datatrove") if repeat % 2 == 0 else ("datatrove", "ours"):
                result = child(["--child", side, "--family", family, "--documents", str(count)])
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
                }
                for side, seconds in runs.items()
            },
            "times_as_fast": round(medians["datatrove"] / medians["ours"], 1),
            "share_agreeing": round(1 - (len(either) - len(both)) / count, 5),
        }
    return record


# Growth


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
        command = [sys.executable, "-m", "benchmarks.curation", "--prepare", str(texts), "--into", work]
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
            done = [json.loads(path.read_text()) for path in Path(work).glob("documents-*/cleaning.json")]
            process.kill()
        if not done or started is None:
            raise SystemExit(f"prepare of {count} documents ended with {process.returncode} before its documents stage")
    return {
        "documents": count,
        "megabytes": round(size / 1e6, 1),
        "seconds": round(seconds, 2),
        "microseconds_a_document": round(1e6 * seconds / count, 1),
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
    from datamodules import Files, GopherQuality, GopherRepetition, Length, NearDuplicates, Source
    from datamodules.prepare import prepare
    from datamodules.tokenizer import TokenizerSettings

    rules = [Length(), GopherQuality(), GopherRepetition()]
    sources = {"web": Source(Files([str(texts)]), rules)}
    print("start", flush=True)
    prepare(into, sources, NearDuplicates(), 0.001, TokenizerSettings(vocabulary_size=2048), 0)


def machine() -> dict[str, Any]:
    """What the numbers were taken on."""
    from importlib.metadata import version

    packages = {name: version(name) for name in ("daft", "numba", "datatrove", "spacy")}
    return {
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        **packages,
    }


def main() -> None:
    """Measure, compare, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=FAMILIES)
    parser.add_argument("--scaling", type=int, nargs="+", default=[])
    parser.add_argument("--no-record", action="store_true")
    parser.add_argument("--child", choices=("ours", "datatrove", "rules"), help=argparse.SUPPRESS)
    parser.add_argument("--family", choices=FAMILIES, help=argparse.SUPPRESS)
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = CACHE / f"documents-{arguments.documents}"
    if arguments.prepare:
        prepare_documents(arguments.prepare, arguments.into)
        return
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
    path = Path(__file__).with_suffix(".json")
    record = json.loads(path.read_text()) if path.exists() else {}
    if arguments.scaling:
        record["scaling"] = {
            "machine": machine(),
            "runs": [prepare_until_documents(count) for count in arguments.scaling],
        }
        print(json.dumps(record["scaling"], indent=1))
    else:
        record["comparison"] = {
            "machine": machine(),
            **compare(arguments.documents, arguments.repeats, arguments.families),
        }
        record["comparison"] |= child(["--child", "rules", "--documents", str(arguments.documents)])
        print(json.dumps(record["comparison"], indent=1, ensure_ascii=False))
    if not arguments.no_record:
        path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

"""Cleaning that is killed, cut into other chunks or out of disk, against cleaning in one go."""

import contextlib
import errno
import gzip
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from common.errors import InputError
from datamodules.curation.passes.collect import RAW_SCHEMA, chunk_files, write_pieces
from datamodules.prepare import document_files, read_summary
from datamodules.readers import Files
from tests.helpers.corpus import sentences
from tests.helpers.curation import checksums, curate_into, write_texts
from tests.helpers.distributed import forked


def rows(stage: Path, kind: str) -> list[dict[str, Any]]:
    return [row for path in sorted((stage / kind).iterdir()) for row in pyarrow.parquet.read_table(path).to_pylist()]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    write_texts(folder)
    return folder


@pytest.fixture(scope="module")
def whole(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stage, made in one go."""
    return curate_into(tmp_path_factory.mktemp("whole"), texts)


@pytest.mark.distributed
def test_cleaning_killed_anywhere_continues_to_the_same_bytes(texts: Path, whole: Path, tmp_path: Path) -> None:
    expected, generator = checksums(whole), random.Random(0)
    assert len(expected) > 10
    folder, kills, most = tmp_path / "data", 0, 0
    for _ in range(20):
        process = forked(tmp_path, curate_into, folder, texts)
        # Killed when another few files are there: early, in the middle, late, whatever the machine's speed.
        goal = most + generator.randint(3, 15)
        while process.poll() is None and (found := files_in(folder)) < goal:
            time.sleep(0.002)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        _, errors = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, errors
        assert not list(folder.glob("documents-*"))
        kills, most = kills + 1, max(most, found)
    (stage,) = folder.glob("documents-*")
    assert checksums(stage) == expected
    assert kills >= 3


def files_in(folder: Path) -> int:
    """Finished files; unlike a glob, a walk does not mind that folders go while it looks."""
    walks = (os.walk(partial) for partial in folder.glob(".documents-*.partial"))
    return sum("." in name[1:] and name[0] != "." for walk in walks for *_, names in walk for name in names)


@pytest.mark.end_to_end
def test_an_interrupted_run_does_not_judge_again(
    texts: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datamodules.curation import pipeline

    filtered: list[Path] = []
    original = pipeline.write_filtered

    def counted(before: Path, after: Path, *arguments: Any, **keys: Any) -> None:
        if len(filtered) == 4:
            raise KeyboardInterrupt
        filtered.append(after)
        original(before, after, *arguments, **keys)

    monkeypatch.setattr(pipeline, "write_filtered", counted)
    with pytest.raises(KeyboardInterrupt):
        curate_into(tmp_path, texts)
    first, filtered[:] = list(filtered), []
    monkeypatch.setattr(
        pipeline, "write_filtered", lambda b, a, *x, **k: (filtered.append(a), original(b, a, *x, **k))[1]
    )
    stage = curate_into(tmp_path, texts)
    assert checksums(stage) == checksums(whole)
    # The last chunk begun may hold some of the first four; all finished ones are left alone.
    finished = {path.name.split(".")[0] for path in first[:-1]} - {path.name.split(".")[0] for path in filtered}
    assert finished


@pytest.mark.end_to_end
@pytest.mark.parametrize("chunk_megabytes", [0.015, 64])
def test_chunks_and_listing_order_change_nothing(
    texts: Path, whole: Path, tmp_path: Path, chunk_megabytes: float
) -> None:
    stage = curate_into(tmp_path, texts, chunk_megabytes, reverse=True)
    for kind in ("documents", "dropped"):
        assert rows(stage, kind) == rows(whole, kind)
    one, other = read_summary(stage), read_summary(whole)
    for key in ("seconds", "stages", "step_rates"):
        del one[key], other[key]
    assert one == other
    assert one["total"]["cut"]["repeated_lines"] > 0
    assert one["total"]["dropped"]["exact_duplicate"]["documents"] > 0
    if chunk_megabytes < 1:
        assert len(document_files(stage)) != len(document_files(whole))


@pytest.mark.end_to_end
def test_a_changed_input_is_never_mixed_with_old_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_texts(tmp_path / "texts")
    from datamodules.curation import pipeline

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "deduplicate_and_split", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            curate_into(tmp_path / "data", tmp_path / "texts")
    (tmp_path / "texts/notes/1.txt").write_text(sentences(7777, 30))
    changed, fresh = (curate_into(tmp_path / name, tmp_path / "texts") for name in ("data", "fresh"))
    assert checksums(changed) == checksums(fresh)
    assert not list((tmp_path / "data").glob(".documents-*"))


def test_a_large_file_is_read_in_pieces_of_bounded_size(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "all.jsonl.gz", "wt") as file:
        file.writelines(json.dumps({"text": f"{i} " * 500}) + "\n" for i in range(400))
    reader = Files([str(tmp_path / "all.jsonl.gz")])
    (chunk,) = chunk_files({"text": reader.files()}, 100_000, "key")
    assert write_pieces(chunk, reader, tmp_path, 100_000) == len(chunk.pieces(tmp_path) or [])
    pieces = [pyarrow.parquet.read_table(path) for path in chunk.pieces(tmp_path) or []]
    assert len(pieces) > 5
    assert all(piece.schema.equals(RAW_SCHEMA) for piece in pieces)
    assert all(piece.nbytes < 110_000 for piece in pieces)
    texts = [text for piece in pieces for text in piece.column("text").to_pylist()]
    assert texts == [f"{i} " * 500 for i in range(400)]
    # What is there is not written again, and what is missing comes out the same.
    before = [path.read_bytes() for path in chunk.pieces(tmp_path) or []]
    paths = chunk.pieces(tmp_path) or []
    stamps = [path.stat().st_mtime_ns for path in paths]
    (tmp_path / f"{chunk.name}.json").unlink()
    paths[3].unlink()
    write_pieces(chunk, reader, tmp_path, 100_000)
    assert [path.read_bytes() for path in paths] == before
    assert [path.stat().st_mtime_ns for path in paths][:3] == stamps[:3]


@pytest.mark.end_to_end
def test_a_full_disk_is_one_line_and_costs_nothing_done(
    texts: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0
    original = pyarrow.parquet.ParquetWriter.write_table

    def full(self: Any, *arguments: Any, **keys: Any) -> None:
        nonlocal written
        written += 1
        if written > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(self, *arguments, **keys)

    with monkeypatch.context() as patch:
        patch.setattr("pyarrow.parquet.ParquetWriter.write_table", full)
        with pytest.raises(InputError, match="no space is left on the disk") as raised:
            curate_into(tmp_path, texts)
    assert "\n" not in str(raised.value)
    (partial,) = tmp_path.glob(".documents-*.partial")
    kept = {path: path.stat().st_mtime_ns for path in partial.rglob("filtered/*.parquet")}
    assert kept
    assert not list(partial.rglob(".*.parquet.partial"))
    assert checksums(curate_into(tmp_path, texts)) == checksums(whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mounting takes root: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.end_to_end
def test_a_disk_that_is_too_small_is_refused(texts: Path, small_disk: Path) -> None:
    for _ in range(2):
        with pytest.raises(InputError, match="no space is left on the disk"):
            curate_into(small_disk / "data", texts, 64)
    assert not list(small_disk.glob("data/documents-*"))

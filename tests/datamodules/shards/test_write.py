"""Text to shards: the fast path gives the tokens of the slow one, whatever is interrupted."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.errors import InputError
from datamodules.curation.config import TextSource
from datamodules.curation.deduplication.repeated_spans import RepeatedSpans
from datamodules.prepare import prepare
from datamodules.shards.format import ShardWriter, open_shards, write_manifest
from datamodules.shards.megatron_export import export_megatron
from datamodules.shards.parquet_tokens import ParquetTokens
from datamodules.shards.write import DocumentFile, write_shards
from datamodules.tokenization.base import Tokenizer, TokenizerSettings
from datamodules.tokenization.files import find_tokenizer, load_tokenizer
from datamodules.tokenization.sentencepiece import train_tokenizer
from datamodules.tokenization.training_sample import sample_texts
from datamodules.tokenization.word_cache import EncodedWords, joined_bytes
from tests.helpers.corpus import ROOT, TEXTS, sentences

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
LIKE_TEXT = st.lists(st.sampled_from([*TEXTS[7], "function", "  ", "\n\n", "\u2581", "\ue000", "é", "1"])).map("".join)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, TokenizerSettings(vocabulary_size=380))


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(st.one_of(ANY_TEXT, LIKE_TEXT), max_size=6))
@example(texts=["\u2581a\ue000\ue001 \ue000\ue000\u2581", "", "   ", " a", "\x00 \x00"])
@example(texts=[TEXTS[3] * 3, "x" * 3000])
def test_a_column_has_the_tokens_of_its_texts(tokenizer: Tokenizer, texts: list[str]) -> None:
    """Words of earlier examples are in the table: the tokenizer is one for all."""
    expected = [tokenizer.encode(text) for text in texts]
    for kind in (pyarrow.string(), pyarrow.large_string()):
        column = pyarrow.array(["cut off", *texts, "cut off"], kind).slice(1, len(texts))
        tokens, lengths = tokenizer.encode_column(column)
        assert tokens.tolist() == [token for ids in expected for token in ids]
        assert lengths.tolist() == [len(ids) for ids in expected]


def test_a_hugging_face_tokenizer_encodes_columns_too(hugging_face_tokenizer: Path) -> None:
    byte_level = load_tokenizer(find_tokenizer(hugging_face_tokenizer))
    tokens, lengths = byte_level.encode_column(pyarrow.array([TEXTS[0], "", TEXTS[1]]))
    assert tokens.tolist() == byte_level.encode(TEXTS[0]) + byte_level.encode(TEXTS[1])
    assert lengths[1] == 0


@settings(max_examples=60, deadline=None)
@given(tokens=st.lists(st.binary(min_size=1, max_size=4), max_size=4), texts=st.lists(st.binary(max_size=40)))
def test_words_are_cut_where_no_token_reaches(tokens: list[bytes], texts: list[bytes]) -> None:
    seen: list[bytes] = []

    def encode(letters: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen.extend(letters[a:b].tobytes() for a, b in pairwise(places))
        return letters.astype(np.int32), np.diff(places)

    words = EncodedWords(encode, joined_bytes(tokens))
    content = np.frombuffer(b"".join(texts), dtype=np.uint8)
    starts = np.cumsum([0, *map(len, texts)]).astype(np.int64)
    for _ in range(2):
        ids, lengths = words(content, starts)
        assert bytes(ids.astype(np.uint8)) == b"".join(texts)
        assert lengths.tolist() == [len(text) for text in texts]
    assert len(seen) == len(set(seen))
    joined = joined_bytes(tokens)
    assert all(joined[a, b] for word in seen for a, b in pairwise(word))


def test_a_full_table_is_emptied(monkeypatch: pytest.MonkeyPatch, tokenizer: Tokenizer) -> None:
    monkeypatch.setattr("datamodules.tokenization.word_cache.MAX_WORDS", 5)
    for text in TEXTS[:20]:
        assert tokenizer.encode_column(pyarrow.array([text]))[0].tolist() == tokenizer.encode(text)


@settings(max_examples=60, deadline=None)
@given(
    documents=st.lists(st.lists(st.sampled_from([1, 2, 7, 8, 300]), max_size=5), min_size=1, max_size=6),
    cut=st.integers(0, 6),
)
def test_encoded_documents_get_what_they_lack(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer, documents: list[list[int]], cut: int
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    writer = ShardWriter(folder, "train", "code", tokenizer)
    for first, part in ((0, documents[:cut]), (cut, documents[cut:])):
        flat = np.array([token for document in part for token in document], dtype=np.int32)
        lengths = np.array([len(document) for document in part], dtype=np.int64)
        writer.write_encoded(np.arange(first, first + len(part), dtype=np.uint64), flat, lengths, 0)
    writer.close()
    write_manifest(folder, writer.records, tokenizer)
    (shard,) = open_shards(folder)
    for number, document in enumerate(documents):
        found = shard.tokens[shard.offsets[number] : shard.offsets[number + 1]].tolist()
        begin = [] if document[:1] == [tokenizer.bos] else [tokenizer.bos]
        end = [] if document[-1:] == [tokenizer.eos] else [tokenizer.eos]
        assert found == begin + document + end


def write_documents(folder: Path, files: int, rows: int = 12, validation: tuple[int, ...] = (4,)) -> list[Path]:
    folder.mkdir()
    paths = []
    for number in range(files):
        texts = [sentences(number * rows + row, 6) for row in range(rows)]
        table = {
            "id": pyarrow.array(range(number * rows, (number + 1) * rows), pyarrow.uint64()),
            "source": ["notes" if row % 3 else "web" for row in range(rows)],
            "split": ["validation" if row in validation else "train" for row in range(rows)],
            "bytes": [len(text.encode()) for text in texts],
            "text": texts,
        }
        paths.append(folder / f"{number:05}.parquet")
        pyarrow.parquet.write_table(pyarrow.table(table), paths[-1], row_group_size=5)
    return paths


def as_files(paths: list[Path]) -> list[DocumentFile]:
    return [DocumentFile(path, path.stat().st_size) for path in paths]


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.fixture
def tokenizer_folder(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    tokenizer.write(folder)
    return folder


def test_shards_hold_every_document_in_order(tmp_path: Path, tokenizer: Tokenizer, tokenizer_folder: Path) -> None:
    paths = write_documents(tmp_path / "documents", 3)
    (tmp_path / "shards").mkdir()
    write_shards(as_files(paths), tmp_path / "shards", tokenizer_folder)
    rows = [row for path in paths for row in pyarrow.parquet.read_table(path).to_pylist()]
    expected: dict[Any, list[Any]] = {}
    for row in rows:
        tokens = [tokenizer.bos, *tokenizer.encode(row["text"]), tokenizer.eos]
        expected.setdefault((row["split"], row["source"]), []).append((row["id"], tokens))
    found: dict[Any, list[Any]] = {}
    for shard in open_shards(tmp_path / "shards"):
        cuts = shard.offsets.tolist()
        tokens = [shard.tokens[a:b].tolist() for a, b in pairwise(cuts)]
        found.setdefault((shard.record.split, shard.record.source), []).extend(
            zip(shard.ids.tolist(), tokens, strict=True)
        )
    assert found == expected
    assert sum(shard.record.text_bytes for shard in open_shards(tmp_path / "shards")) == sum(r["bytes"] for r in rows)


KILLED = """
import sys, time
from pathlib import Path
import datamodules.shards.write as tokenize
whole = tokenize.DocumentFile.write
def slowly(self, *arguments):
    time.sleep(0.2)
    return whole(self, *arguments)
tokenize.DocumentFile.write = slowly
documents, into, tokenizer = map(Path, sys.argv[1:])
files = [tokenize.DocumentFile(path, path.stat().st_size) for path in sorted(documents.iterdir())]
tokenize.write_shards(files, into, tokenizer)
"""


@pytest.mark.end_to_end
def test_a_kill_costs_only_the_files_in_hand(
    tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_documents(tmp_path / "documents", 8)
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    write_shards(as_files(paths), tmp_path / "whole", tokenizer_folder)
    killed = tmp_path / "killed"
    arguments = [str(tmp_path / "documents"), str(killed), str(tokenizer_folder)]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, *arguments], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    deadline = time.monotonic() + 300
    while len(list(killed.glob("records/0*.json"))) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = {path.name: path.stat().st_mtime_ns for path in killed.glob("records/0*.json")}
    assert 3 <= len(done) < 8
    made: list[int] = []
    write = DocumentFile.write

    def counted(self: DocumentFile, folder: Path, number: int, tokenizer: Tokenizer) -> Any:
        made.append(number)
        return write(self, folder, number, tokenizer)

    monkeypatch.setattr(DocumentFile, "write", counted)
    write_shards(as_files(paths), killed, tokenizer_folder)
    assert sorted(made) == [number for number in range(8) if f"{number:05}.json" not in done]
    assert digests(killed) == digests(tmp_path / "whole")


def test_the_sample_does_not_depend_on_how_documents_are_cut_into_files(tmp_path: Path) -> None:
    paths = write_documents(tmp_path / "documents", 4)
    table = pyarrow.concat_tables([pyarrow.parquet.read_table(path) for path in paths])
    pyarrow.parquet.write_table(table, tmp_path / "one.parquet", row_group_size=7)
    size = 4000
    for weights in (None, {"web": 3.0, "notes": 1.0}, {"notes": 1.0}):
        sample = list(sample_texts(paths, weights, size))
        assert sample == list(sample_texts([tmp_path / "one.parquet"], weights, size))
        rows = {row["text"]: row for row in table.to_pylist()}
        assert all(rows[text]["split"] == "train" for text in sample)
        got = {name: sum(rows[t]["bytes"] for t in sample if rows[t]["source"] == name) for name in ("web", "notes")}
        longest = max(row["bytes"] for row in rows.values())
        train = {
            name: sum(r["bytes"] for r in rows.values() if r["source"] == name and r["split"] == "train")
            for name in got
        }
        shares = {name: (weights or train).get(name, 0) for name in got}
        for name, share in shares.items():
            assert abs(got[name] - size * share / sum(shares.values())) < longest or got[name] == 0 == share
    with pytest.raises(InputError, match=r"tokenizer\.weights names books, the sources of text are notes, web"):
        list(sample_texts(paths, {"books": 1.0}, size))


def test_the_sample_is_spread_over_files_that_are_sorted_by_language(tmp_path: Path) -> None:
    paths = []
    for number, word in enumerate(["deutsch", "english", "polski", "magyar"]):
        texts = [f"{word} {row} " * 50 for row in range(300)]
        table = pyarrow.table(
            {"id": list(range(300)), "source": ["web"] * 300, "split": ["train"] * 300,
             "bytes": [len(text) for text in texts], "text": texts}
        )  # fmt: skip
        paths.append(tmp_path / f"{number}.parquet")
        pyarrow.parquet.write_table(table, paths[-1], row_group_size=50)
    whole = sum(len(text) for path in paths for text in pyarrow.parquet.read_table(path)["text"].to_pylist())
    for size in (whole // 1000, whole // 20, whole // 2, whole, 2 * whole):
        sample = list(sample_texts(paths, None, size))
        assert sample == list(sample_texts(paths, None, size))
        counts = Counter(text.split()[0] for text in sample)
        assert abs(sum(map(len, sample)) - min(size, whole)) < 1000
        if size >= whole // 20:
            assert set(counts) == {"deutsch", "english", "polski", "magyar"}
            assert max(counts.values()) - min(counts.values()) <= 2


def write_tokens(path: Path, documents: list[list[int]]) -> None:
    path.parent.mkdir(exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table({"input_ids": documents}), path)


def test_a_source_of_tokens_is_taken_as_it_is_beside_text(
    tmp_path: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = [tokenizer.encode(sentences(seed, 8)) for seed in range(50)]
    write_tokens(tmp_path / "tokens/a.parquet", documents[:20])
    write_tokens(tmp_path / "tokens/b.parquet", documents[20:])
    source = TextSource(ParquetTokens([str(tmp_path / "tokens")]))
    prepared = prepare(tmp_path / "data", {"ready": source}, None, 0.2, tokenizer, 0)
    assert prepared.summary() == {}
    found = []
    for shard in open_shards(prepared.shards):
        cuts = shard.offsets.tolist()
        found += [shard.tokens[a + 1 : b - 1].tolist() for a, b in pairwise(cuts)]
    assert sorted(found) == sorted(documents)
    records = [shard.record for shard in open_shards(prepared.shards)]
    assert {record.split for record in records} == {"train", "validation"}
    assert sum(record.text_bytes for record in records) == sum(len(sentences(seed, 8).encode()) for seed in range(50))
    with pytest.raises(InputError, match=r"sources\.ready holds token ids and the tokenizer is to be trained"):
        prepare(tmp_path / "data", {"ready": source}, None, 0.2, TokenizerSettings(), 0)
    text = TextSource(ParquetTokens([str(tmp_path / "tokens")]), steps=[None])  # type: ignore[list-item]
    with pytest.raises(InputError, match="no step can change: leave its `steps` out"):
        prepare(tmp_path / "data", {"ready": text}, None, 0.2, tokenizer, 0)
    text = TextSource(ParquetTokens([str(tmp_path / "tokens")]), repeated_spans=RepeatedSpans())
    with pytest.raises(InputError, match="no step can change: leave its `repeated_spans` out"):
        prepare(tmp_path / "data", {"ready": text}, None, 0.2, tokenizer, 0)
    write_tokens(tmp_path / "tokens/c.parquet", [[5, 6], [7, 8, 380]])
    with pytest.raises(
        InputError, match=r"c\.parquet: input_ids of row 1 holds id 380, the tokenizer's are 0 \.\. 379"
    ):
        prepare(tmp_path / "data", {"ready": source}, None, 0.2, tokenizer, 0)
    other = TextSource(ParquetTokens([str(tmp_path / "tokens/a.parquet")], column="ids"))
    with pytest.raises(InputError, match="column 'ids' is not there"):
        prepare(tmp_path / "data", {"ready": other}, None, 0.2, tokenizer, 0)


def read_naively(prefix: Path) -> list[list[int]]:
    """A Megatron-LM data set, read byte by byte from the description of its format."""
    index, tokens = prefix.with_suffix(".idx").read_bytes(), prefix.with_suffix(".bin").read_bytes()
    assert index[:9] == b"MMIDIDX\x00\x00"
    number = lambda place, size: int.from_bytes(index[place : place + size], "little")  # noqa: E731
    assert number(9, 8) == 1
    width = {4: 4, 8: 2}[number(17, 1)]
    sequences, boundaries = number(18, 8), number(26, 8)
    lengths = [number(34 + 4 * i, 4) for i in range(sequences)]
    pointers = [number(34 + 4 * sequences + 8 * i, 8) for i in range(sequences)]
    assert [number(34 + 12 * sequences + 8 * i, 8) for i in range(boundaries)] == list(range(sequences + 1))
    assert len(index) == 34 + 12 * sequences + 8 * boundaries
    assert pointers[-1] + width * lengths[-1] == len(tokens)
    return [
        [int.from_bytes(tokens[start + width * i : start + width * (i + 1)], "little") for i in range(length)]
        for start, length in zip(pointers, lengths, strict=True)
    ]


def test_megatron_files_hold_the_documents_of_the_shards(
    tmp_path: Path, tokenizer: Tokenizer, tokenizer_folder: Path
) -> None:
    (tmp_path / "shards").mkdir()
    documents = write_documents(tmp_path / "documents", 3, validation=(3, 4))
    write_shards(as_files(documents), tmp_path / "shards", tokenizer_folder)
    prefixes = export_megatron(tmp_path / "shards", tokenizer, tmp_path / "out")
    assert {path.name for path in prefixes} == {f"{a}-{b}" for a in ("web", "notes") for b in ("train", "validation")}
    for prefix in prefixes:
        source, split = prefix.name.rsplit("-", 1)
        expected = []
        for shard in open_shards(tmp_path / "shards"):
            if (shard.record.source, shard.record.split) == (source, split):
                cuts = shard.offsets.tolist()
                expected += [shard.tokens[a:b].tolist() for a, b in pairwise(cuts)]
        assert read_naively(prefix) == expected
    assert load_tokenizer(find_tokenizer(tmp_path / "out")).model == tokenizer.model
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="it is a file"):
        export_megatron(tmp_path / "shards", tokenizer, tmp_path / "file")


def test_megatron_has_no_uint32_and_gets_int32(tmp_path: Path) -> None:
    from datamodules.shards.megatron_export import write_index

    write_index(tmp_path / "a.idx", [np.array([2, 1]), np.array([3])], np.dtype("<u4"))
    np.array([70000, 1, 2, 3, 4, 5], dtype="<u4").tofile(tmp_path / "a.bin")
    assert read_naively(tmp_path / "a") == [[70000, 1], [2], [3, 4, 5]]


def test_records_name_no_place(tmp_path: Path, tokenizer_folder: Path) -> None:
    """The same documents elsewhere give the same shards and manifest."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "shards").mkdir()
        paths = write_documents(tmp_path / name / "documents", 2)
        write_shards(as_files(paths), tmp_path / name / "shards", tokenizer_folder)
    assert digests(tmp_path / "a/shards") == digests(tmp_path / "b/shards")
    assert json.loads((tmp_path / "a/shards/manifest.json").read_text())["vocabulary_size"] == 380


def test_tokens_are_read_from_the_folder_that_is_named_alone(tmp_path: Path) -> None:
    for name in ("in/a.parquet", "in/._a.parquet", "in/.cache/b.parquet", "out/c.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.table({"input_ids": [[1]]}), tmp_path / name)
    (tmp_path / "in/link.parquet").symlink_to(tmp_path / "out/c.parquet")
    (tmp_path / "in/loop").symlink_to(tmp_path)
    assert [file.name for file in ParquetTokens(str(tmp_path / "in")).files()] == ["in/a.parquet"]
    (tmp_path / "in/a.parquet").unlink()
    with pytest.raises(InputError, match=r"holds no file ending in \.parquet that is not hidden"):
        ParquetTokens(str(tmp_path / "in")).files()

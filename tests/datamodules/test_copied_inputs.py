"""Keys of prepared data over inputs that were copied, touched, moved or changed: content and names decide."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from datamodules.conversations.rows import FileRows
from datamodules.curation.config import CurationConfig, TextSource, step_settings
from datamodules.curation.filters.decontaminate import Decontaminate
from datamodules.curation.filters.toxicity import WordList
from datamodules.curation.filters.url_blocklist import UrlBlocklist
from datamodules.curation.passes.collect import chunk_files
from datamodules.curation.pipeline import curation_fingerprint, list_inputs
from datamodules.prepare import Prepared, prepare, shards_fingerprint
from datamodules.readers import ArxivSources, CodeFiles, Files, HuggingFaceFolder, Reader
from datamodules.shards.parquet_tokens import ParquetTokens, TokenFile
from datamodules.tokenization.base import TokenizerSettings
from datamodules.tokenization.files import unused_code
from tests.helpers.corpus import sentences

PAPER = r"\documentclass{article}\begin{document}\section{One}\input{part}\end{document}"
SOURCES: dict[str, tuple[Callable[[Path], Reader], dict[str, str], str]] = {
    "files": (lambda at: Files([str(at)]), {"a.txt": "one", "sub/b.jsonl": '{"text": "two"}'}, "a.txt"),
    "included": (lambda at: ArxivSources([str(at)]), {"main.tex": PAPER, "part.tex": "Some words."}, "part.tex"),
    "license": (lambda at: CodeFiles([str(at)]), {"r/LICENSE": "MIT License", "r/a.py": "x = 1\n"}, "r/LICENSE"),
    "card": (
        lambda at: HuggingFaceFolder(str(at)),
        {"README.md": "---\nlicense: mit\n---\n", "train.jsonl": '{"text": "two"}'},
        "README.md",
    ),
}
"""Reader, files below its folder, and the one of them that is changed."""


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def documents_key(reader: Reader) -> str:
    sources = {"web": TextSource(reader)}
    return curation_fingerprint(sources, list_inputs(sources), None, 0.1, 0, CurationConfig())


@pytest.mark.parametrize("kind", SOURCES)
def test_a_copy_has_the_key_of_its_original_and_a_change_of_equal_size_and_time_another(
    kind: str, tmp_path: Path
) -> None:
    make, files, edited = SOURCES[kind]
    original = write(tmp_path / "here/corpus", files)
    key = documents_key(make(original))
    chunks = [chunk.name for chunk in chunk_files(list_inputs({"web": TextSource(make(original))}), 10, key)]
    copied = Path(shutil.copytree(original, tmp_path / "elsewhere/deep/corpus", copy_function=shutil.copyfile))
    for path in copied.rglob("*"):
        os.utime(path, (1, 1))
    assert documents_key(make(copied)) == key
    assert [chunk.name for chunk in chunk_files(list_inputs({"web": TextSource(make(copied))}), 10, key)] == chunks
    # As `cp -p` and `rsync -t` leave it.
    content = (copied / edited).read_text()
    (copied / edited).write_text(content.swapcase())
    os.utime(copied / edited, (1, 1))
    assert documents_key(make(copied)) != key
    (copied / edited).write_text(content)
    assert documents_key(make(copied)) == key
    other = copied.rename(copied.with_name("another name, which documents are known by"))
    assert documents_key(make(other)) != key


def test_what_makes_a_folder_a_repository_decides_the_key(tmp_path: Path) -> None:
    write(tmp_path / "code", {"a/b/x.py": "x = 1\n", "a/c/y.py": "y = 1\n"})
    key = documents_key(CodeFiles([str(tmp_path / "code")]))
    (tmp_path / "code/a/b/.git").mkdir()
    assert documents_key(CodeFiles([str(tmp_path / "code")])) != key


def test_keys_of_examples_depend_on_the_library_of_their_tokenizer_alone() -> None:
    assert unused_code(TokenizerSettings()) == ("datamodules.tokenization.hugging_face",)


def test_what_chooses_files_counts_by_the_files_it_chooses(tmp_path: Path) -> None:
    write(tmp_path / "corpus", {"a.txt": "one", "b.txt": "two"})
    key = documents_key(Files([str(tmp_path / "corpus")]))
    assert documents_key(Files([str(tmp_path / "corpus")], max_megabytes=5)) == key
    assert documents_key(Files([str(tmp_path / "corpus")], downloads=str(tmp_path / "copies"))) == key
    assert documents_key(Files([str(tmp_path / "corpus")], max_megabytes=4e-6)) != key
    assert documents_key(Files([str(tmp_path / "corpus")], max_document_megabytes=1)) != key


def test_lists_and_evaluation_sets_count_by_content(tmp_path: Path) -> None:
    words = [{"q": "so many words that a question may well have of its own"}]
    write(tmp_path / "a", {"set/x.jsonl": json.dumps(words[0]), "words": "bad\n", "domains": "bad.example\n"})
    shutil.copytree(tmp_path / "a", tmp_path / "b")

    def settings(at: Path) -> list[list[object]]:
        steps = [Decontaminate([str(at / "set")]), WordList([str(at / "words")]), UrlBlocklist([str(at / "domains")])]
        return step_settings(steps)

    before = settings(tmp_path / "a")
    os.utime(tmp_path / "b/set/x.jsonl", (1, 1))
    assert settings(tmp_path / "b") == before
    assert json.loads(json.dumps(before)) == before
    for name, step in (("set/x.jsonl", 0), ("words", 1), ("domains", 2)):
        (tmp_path / "b" / name).write_text((tmp_path / "b" / name).read_text().replace("a", "e"))
        after = settings(tmp_path / "b")
        assert after[step] != before[step]


def test_files_of_tokens_count_by_content(tmp_path: Path) -> None:
    def key(root: Path) -> str:
        files = [TokenFile("web", file, "input_ids", 0.1, 0) for file in ParquetTokens([str(root)]).files()]
        return shards_fingerprint("tokenizer", TokenizerSettings(), files)

    (tmp_path / "a/tokens").mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.table({"input_ids": [[1, 2]]}), tmp_path / "a/tokens/0.parquet")
    shutil.copytree(tmp_path / "a/tokens", tmp_path / "b/tokens", copy_function=shutil.copyfile)
    assert key(tmp_path / "b/tokens") == key(tmp_path / "a/tokens")
    pyarrow.parquet.write_table(pyarrow.table({"input_ids": [[1, 3]]}), tmp_path / "b/tokens/0.parquet")
    assert key(tmp_path / "b/tokens") != key(tmp_path / "a/tokens")


def test_a_run_that_was_copied_with_its_corpus_makes_nothing_again(tmp_path: Path) -> None:
    def prepared(root: Path) -> Prepared:
        sources = {"text": TextSource(Files([str(root / "texts")]))}
        return prepare(root / "data", sources, None, 0.1, TokenizerSettings(vocabulary_size=400), 0)

    write(tmp_path / "old/texts", {f"{i}.txt": sentences(i, 30) for i in range(20)})
    made = prepared(tmp_path / "old")
    shutil.copytree(tmp_path / "old", tmp_path / "new", copy_function=shutil.copyfile)

    def artifacts() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in (tmp_path / "new/data").glob("[!.]*") if path.is_dir()}

    before = artifacts()
    again = prepared(tmp_path / "new")
    assert again.shards.name == made.shards.name
    assert artifacts() == before


def test_rows_that_were_copied_are_the_same_examples(tmp_path: Path) -> None:
    write(tmp_path / "a", {"rows.jsonl": '{"prompt": "p", "response": "r"}\n'})
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)
    os.utime(tmp_path / "b/rows.jsonl", (1, 1))
    assert (
        FileRows([str(tmp_path / "a/rows.jsonl")]).identity() == FileRows([str(tmp_path / "b/rows.jsonl")]).identity()
    )
    (tmp_path / "b/rows.jsonl").write_text('{"prompt": "p", "response": "s"}\n')
    os.utime(tmp_path / "b/rows.jsonl", (1, 1))
    assert (
        FileRows([str(tmp_path / "a/rows.jsonl")]).identity() != FileRows([str(tmp_path / "b/rows.jsonl")]).identity()
    )

"""The overlay of raw sources: crawl, repositories, books, papers, a dump and a data set, all the way to shards."""

import ast
import bz2
import gzip
import json
import random
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from commands.training.lightning_cli import build_cli
from datamodules.shards.format import open_shards
from main import main
from tests.helpers.corpus import ROOT, Configure
from tests.helpers.reading import ARTICLE, dump, page, response, tar

NOUNS = (
    "river mountain teacher letter market garden window winter journey captain village doctor kitchen forest island "
    "bridge painter harbor library engine sailor farmer summer evening morning question answer story country machine"
)
VERBS = "crossed watched remembered followed opened described carried built painted visited sold found left kept"
OTHERS = "old quiet narrow bright distant heavy early small golden strange broken gentle frozen famous hidden"
WEIGHTS = {"web": 60, "code": 15, "books": 8, "academic": 4, "journals": 1, "wikipedia": 5, "curated": 7}
DROPPED = {
    "short.org": "other_language", "copy.org": "exact_duplicate", "quiz.org": "contaminated",
    "german.de": "other_language", "porn.example.com": "url_word",
}  # fmt: skip
PAGES = 20 + len(DROPPED)
HEADER = (
    "".join(f"from distribution.of.this.tool import {noun}\n" for noun in NOUNS.split()) + "\ntry:\n    import os\n"
)
HEADER += "except ImportError:\n    from distribution.of.this.tool import os\n\n\n"
FOOTER = "\n\nif __name__ == '__main__':\n    raise SystemExit('this is no program that is started')\n"
"""What every file of the repository begins and ends with: cut, it would leave no program."""
QUESTION = "How many apples does the gardener sell in a week when she picks twelve of them every day but Sunday?"


def prose(seed: int, count: int = 12) -> str:
    """English that rules for quality let pass."""
    generator = random.Random(seed)

    def any_of(words: str) -> str:
        return generator.choice(words.split())

    def noun() -> str:
        return f"the {any_of(OTHERS)} {any_of(NOUNS)}"

    return " ".join(
        f"{noun()} {any_of(VERBS)} {noun()} that {noun()} of {noun()} had {any_of(VERBS)}, "
        f"and {noun()} {any_of(VERBS)} it with {noun()}.".capitalize()
        for _ in range(count)
    )


def paragraphs(seed: int, count: int = 4) -> list[str]:
    return [prose(100 * seed + part, 4) for part in range(count)]


def write_raw(raw: Path) -> None:
    """A few documents of every source, and some that a rule drops."""
    for name in ("crawl", "repositories/tool", "books", "arxiv", "jats", "wikipedia", "curated", "evaluation"):
        (raw / name).mkdir(parents=True)
    (raw / "evaluation/questions.jsonl").write_text(json.dumps({"question": QUESTION}))
    bodies = {f"site{seed}.org": "".join(f"<p>{part}</p>" for part in paragraphs(seed)) for seed in range(20)}
    bodies |= {
        "short.org": "<p>Too short.</p>",
        "copy.org": bodies["site3.org"],
        "quiz.org": f"<p>{QUESTION}</p>" + "".join(f"<p>{part}</p>" for part in paragraphs(90)),
        "german.de": "<p>" + "Der Fluss war alt und das Dorf lag still am Ufer, " * 12,
        "porn.example.com": f"<p>{prose(77)}</p>",
    }
    records = [
        response(f"http://{site}/", f"<html><body>{body}</body></html>".encode()) for site, body in bodies.items()
    ]
    (raw / "crawl/part.warc.gz").write_bytes(b"".join(map(gzip.compress, records)))
    (raw / "repositories/tool/LICENSE").write_text((ROOT / "LICENSE").read_text(encoding="utf-8"), encoding="utf-8")
    for number in range(6):
        body = "\n".join(
            f"    {noun}_{number} = {noun!r} + str({number})\n    print({noun}_{number})" for noun in NOUNS.split()
        )
        (raw / f"repositories/tool/part{number}.py").write_text(f"{HEADER}def part{number}():\n{body}\n{FOOTER}")
    (raw / "repositories/tool/small.min.js").write_text("var a=1;" * 400)
    for number in range(3):
        body = "\n\n".join(paragraphs(200 + number, 12))
        (raw / f"books/{number}.txt").write_text(
            f"Title: A Book {number}\n\n*** START OF THE PROJECT GUTENBERG EBOOK A BOOK {number} ***\n\n{body}\n\n"
            f"*** END OF THE PROJECT GUTENBERG EBOOK A BOOK {number} ***\nLicense text\n"
        )
    for number in range(4):
        body = "\n\n".join(paragraphs(300 + number, 8))
        tex = f"\\documentclass{{article}}\\begin{{document}}\n\\section{{Work}}\n{body}\n\\end{{document}}\n"
        (raw / f"arxiv/2301.0000{number}.tar.gz").write_bytes(gzip.compress(tar({"main.tex": tex.encode()})))
        article = ARTICLE.replace("<p>One <xref>1</xref>.</p>", f"<p>{prose(400 + number, 30)}</p>")
        (raw / f"jats/{number}.xml").write_text(article.replace("10.1/x", f"10.1/{number}"))
    pages = [page(f"Article {number}", "\n\n".join(paragraphs(500 + number))) for number in range(8)]
    (raw / "wikipedia/enwiki.xml.bz2").write_bytes(bz2.compress(dump(*pages)))
    rows = {"text": [prose(600 + number) for number in range(8)]}
    pyarrow.parquet.write_table(pyarrow.table(rows), raw / "curated/train-00000-of-00001.parquet")


@pytest.mark.end_to_end
def test_the_overlay_takes_every_raw_source_to_shards(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_raw(tmp_path / "data/raw")
    overlay = ROOT / "configs/curation/raw_sources.yaml"
    configs = ["--config", str(configure(data__init_args__sequence_length=32)), "--config", str(overlay)]
    sources = build_cli(configs, run=False).datamodule.sources
    assert {name: source.weight for name, source in sources.items()} == WEIGHTS
    main(["prepare", *configs])
    folder = tmp_path / "data/raw_mixture"
    kept = dict.fromkeys(WEIGHTS, 0)
    for shard in open_shards(next(folder.glob("shards-*"))):
        kept[shard.record.source] += shard.record.documents
    dropped = pyarrow.parquet.read_table(next(folder.glob("documents-*")) / "dropped").to_pylist()
    reasons = {(row["url"] or row["path"].rpartition("/")[2]): row["reason"] for row in dropped}
    assert {
        "small.min.js": "minified",
        **{f"http://{site}/": why for site, why in DROPPED.items()},
    }.items() <= reasons.items()
    assert {*reasons.values()} <= {"minified", "repeated", *DROPPED.values()}
    assert kept | {"web": 0} == {
        "web": 0, "code": 6, "books": 3, "academic": 4, "journals": 4, "wikipedia": 8, "curated": 8
    }  # fmt: skip
    assert kept["web"] == PAGES - len(dropped) + 1 > 10
    documents = pyarrow.parquet.read_table(next(folder.glob("documents-*")) / "documents").to_pylist()
    programs = [row["text"] for row in documents if row["source"] == "code"]
    assert len(programs) == 6
    assert all(ast.parse(program) and program.startswith(HEADER.strip()) for program in programs)
    contaminated = next(row for row in dropped if row["reason"] == "contaminated")
    capsys.readouterr()
    main(["inspect", *configs, "--why", str(contaminated["id"])])
    assert "evaluation/questions.jsonl:1" in capsys.readouterr().out

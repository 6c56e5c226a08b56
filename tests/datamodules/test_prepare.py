"""A prepared folder that was damaged is refused in one line, whichever file it is."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import InputError
from datamodules.curation.config import TextSource
from datamodules.prepare import Prepared, prepare
from datamodules.readers import Files
from datamodules.shards.format import open_shards
from datamodules.tokenization.base import TokenizerSettings
from tests.helpers.corpus import sentences


def prepare_in(folder: Path) -> Prepared:
    # The texts stand where they were written, whichever copy of the data is used: their place is in its fingerprint.
    sources = {"text": TextSource(Files([str(folder.parent / "texts")]))}
    return prepare(folder, sources, None, 0.1, TokenizerSettings(vocabulary_size=400), 0)


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "texts").mkdir()
    for i in range(20):
        (folder / f"texts/{i}.txt").write_text(sentences(i, 30))
    prepare_in(folder / "data")
    return folder / "data"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def use_everything(folder: Path) -> None:
    prepared = prepare_in(folder)
    prepared.summary()
    prepared.load_tokenizer()
    list(open_shards(prepared.shards, verify=False))


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
@pytest.mark.parametrize(
    "name",
    [
        "documents-*/documents/00000.parquet", "documents-*/curation.json", "tokenizer-*/tokenizer.model",
        "shards-*/manifest.json", "shards-*/checksums.json",
    ],
)  # fmt: skip
def test_a_damaged_file_of_a_stage_is_refused(
    intact: Path, tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    folder = intact.parent / tmp_path.name
    shutil.copytree(intact, folder)
    (path,) = folder.glob(name)
    damage(path)
    stage = folder / path.relative_to(folder).parts[0]
    if path.suffix == ".parquet":
        # Only stages that are made again read the documents.
        shutil.rmtree(next(folder.glob("shards-*")))
    with pytest.raises(InputError, match="prepare") as raised:
        use_everything(folder)
    assert str(stage) in str(raised.value)
    assert "\n" not in str(raised.value)
    # What the line advises works.
    shutil.rmtree(stage)
    use_everything(folder)

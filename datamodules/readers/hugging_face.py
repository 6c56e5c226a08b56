"""Hugging Face data sets on this machine, without the `datasets` library.

Both forms are plain files: Arrow streams that `save_to_disk` wrote, or Parquet and JSON lines of a clone. Reading them
by pyarrow spares a dependency of thirty packages and a second copy in its cache.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow
import yaml

from common.console import announce
from common.errors import InputError
from datamodules.readers.base import InputFile
from datamodules.readers.document import Document
from datamodules.readers.files import Files, sliced
from datamodules.readers.formats.arrow import check_expansion
from datamodules.readers.formats.bounded_streams import uncompressed_name
from datamodules.readers.formats.downloads import local_copy, remote_files
from datamodules.readers.formats.remote_names import is_url, shown

_ALIASES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLIT_OF = {name: split for split, names in _ALIASES.items() for name in names}
_ABOUT = ("README.md", "dataset_info.json", "state.json")
MAX_NAMES = 5
"""Files named in one announcement."""
_FRONT_MATTER = re.compile(r"\A---\s*\n(.{0,100000}?)\n---\s*$", re.S | re.M)


class HuggingFaceFolder(Files):
    """One split of a data set folder: written by `save_to_disk`, or a clone with .parquet, .jsonl or .json files.

    The split of a file is a word in its path, as the hub has it (`data/train-00000-of-00002.parquet`,
    `test/part.jsonl`): of a folder that is called like a split, else in the file's name, else in a folder's; where no
    file names any split, all are `train`. A row without a license of its own has that of
    the data set: `license` in dataset_info.json or in the front matter of README.md.

    Args:
        path: the folder of the data set; a URL of one is copied.
        split: `train`, `validation`, `test` or any word in the paths.
        text_key: column of the text.
        max_megabytes: see `Reader`.
        downloads: see `PathReader`.
        url_key: see `Files`.
        license_key: see `Files`.
        date_key: see `Files`.
        max_document_megabytes: see `PathReader`.
        path_key: see `Files`.
    """

    SUFFIXES = (".arrow", ".parquet", ".jsonl", ".json")
    _NO_DATA = ("dataset_info.json", "state.json", "dataset_dict.json", "dataset_infos.json", "config.json")

    def __init__(
        self,
        path: str,
        split: str = "train",
        text_key: str = "text",
        max_megabytes: float | None = None,
        downloads: str | None = "data/downloads",
        url_key: str = "url",
        license_key: str = "license",
        date_key: str = "date",
        max_document_megabytes: float = 64,
        path_key: str | None = None,
    ) -> None:
        super().__init__(
            [path],
            text_key,
            max_megabytes,
            downloads,
            url_key,
            license_key,
            date_key,
            max_document_megabytes,
            path_key,
        )
        self.split = split

    def wants(self, path: Path) -> bool:
        """Files of data that are not metadata or a cache of the library."""
        hidden = any(part.startswith(".") for part in path.parts)
        return (
            not hidden and path.name not in self._NO_DATA and not path.name.startswith("cache-") and super().wants(path)
        )

    def candidates(self) -> Iterator[InputFile]:
        """Files of the split.

        Raises:
            InputError: when there is none, or `save_to_disk` wrote rows to be picked by an index.
        """
        ((path, root, label),) = self.roots()
        if is_url(path) and self.downloads is not None:
            # License and state are read beside the copies.
            for found in remote_files(path, Path(self.downloads)):
                if found.url.endswith(tuple(f"/{name}" for name in _ABOUT)):
                    local_copy(found.url, Path(self.downloads), found.size, str(found.changed))
        self._refuse_indices(root)
        files = list(super().candidates())
        places = {file.name: file.name[len(str(label)) :].strip("/") for file in files}
        splits = {name: _splits(place) for name, place in places.items()}
        if self.split not in _ALIASES:
            files = [file for file in files if self.split in _words(places[file.name])]
        elif any(splits.values()):
            _announce_unnamed(shown(path), tuple(sorted(places[name] for name, named in splits.items() if not named)))
            files = [file for file in files if self.split in splits[file.name]]
        elif self.split != "train":
            files = []
        for file in files:
            if self.split in _ALIASES and len(splits[file.name]) > 1:
                named = " and ".join(sorted(splits[file.name]))
                raise InputError(
                    f"{places[file.name]} of {shown(path)} names the splits {named}: rename it, or read it by "
                    "datamodules.Files"
                )
        if not files:
            raise InputError(f"split={self.split!r}: no file of {shown(path)} names it: give one that is there")
        for file in files:
            # Facts about a data set are facts about its rows: a change makes them again.
            folders = dict.fromkeys([root, root / Path(file.name).relative_to(label).parent])
            about = [folder / name for folder in folders for name in _ABOUT]
            yield replace(file, beside=tuple(str(path) for path in about if path.is_file()))

    @staticmethod
    def _refuse_indices(root: Path) -> None:
        for state in [*root.glob("state.json"), *root.glob("*/state.json")]:
            if _json(state).get("_indices_files") or _json(state).get("_indices_data_files"):
                raise InputError(f"{state.parent} holds an index into its rows: save it again after flatten_indices()")

    def documents(self, path: str, file: InputFile) -> Iterator[Document]:
        """One document a row."""
        ((_, root, _),) = self.roots()
        license = dataset_license(str(root), str(Path(path).parent))
        documents = self._read_arrow(path) if self.format_of(file.name) == ".arrow" else super().documents(path, file)
        for document in documents:
            yield replace(document, license=license) if document.license is None and license else document

    def _read_arrow(self, path: str) -> Iterator[Document]:
        """An Arrow stream; a file format (with a footer) is read as well."""
        check_expansion(path)
        with pyarrow.memory_map(path) as source:
            try:
                reader = pyarrow.ipc.open_stream(source)
            except pyarrow.ArrowInvalid:
                source.seek(0)
                whole = pyarrow.ipc.open_file(source)
                reader = pyarrow.RecordBatchReader.from_batches(
                    whole.schema, (whole.get_batch(i) for i in range(whole.num_record_batches))
                )

            def batches(columns: list[str]) -> Iterator[Any]:
                for batch in reader:
                    # Nothing is copied: memory is the map's.
                    yield from sliced(batch.select(columns))

            yield from self._read_table(reader.schema, batches, self.max_bytes)


@lru_cache(maxsize=256)
def dataset_license(root: str, folder: str) -> str | None:
    """License of a data set: from dataset_info.json beside a file or from the front matter of the README."""
    for place in (Path(folder), Path(root)):
        if license := _json(place / "dataset_info.json").get("license"):
            return str(license)
    try:
        readme = (Path(root) / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = _FRONT_MATTER.search(readme)
    try:
        about = yaml.safe_load(found[1]) if found else None
    except (yaml.YAMLError, RecursionError):
        return None
    license = about.get("license") if isinstance(about, dict) else None
    return ", ".join(map(str, license)) if isinstance(license, list) else license and str(license)


@lru_cache(maxsize=256)
def _announce_unnamed(path: str, unnamed: tuple[str, ...]) -> None:
    """Say which files are in no split, once for each folder."""
    if unnamed:
        some = ", ".join(unnamed[:MAX_NAMES]) + (", ..." if len(unnamed) > MAX_NAMES else "")
        files = "1 file that names" if len(unnamed) == 1 else f"{len(unnamed):,} files that name"
        announce(f"{path}: left out {files} no split, beside those that name one: {some}")


def _splits(path: str) -> set[str]:
    """Splits that a path names: more than one only where a single name does."""
    *folders, name = path.split("/")
    for folder in folders:
        if folder.lower() in _SPLIT_OF:
            return {_SPLIT_OF[folder.lower()]}
    for part in (name, *reversed(folders)):
        if found := {_SPLIT_OF[word] for word in _words(part) if word in _SPLIT_OF}:
            return found
    return set()


def _words(path: str) -> set[str]:
    """Words of a path as the hub parts them; digits and punctuation part."""
    return set(re.split(r"[^a-z]+", uncompressed_name(path)))


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}

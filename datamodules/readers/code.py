"""Code reader: trees of source code, with the license of each file.

A file without a known, allowed license is dropped rather than kept and marked: what has been trained on cannot be
taken back.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from common.errors import InputError
from common.path_lists import PathList
from datamodules.readers.base import InputFile, provenance_name
from datamodules.readers.document import Document, text_or_reason
from datamodules.readers.formats.bounded_streams import open_bounded, read_whole
from datamodules.readers.formats.downloads import local_copy, remote_files
from datamodules.readers.formats.generated_code import VENDORED_FOLDERS, why_not_written
from datamodules.readers.formats.licenses import (
    PERMISSIVE_LICENSES,
    declared_license,
    is_allowed,
    is_license_file,
    license_of_folder,
    nearest_license_files,
)
from datamodules.readers.formats.programming_languages import LANGUAGES, language_of
from datamodules.readers.formats.remote_names import is_url
from datamodules.readers.paths import PathReader

_OWN_FOLDERS = frozenset({".git", ".hg", ".svn"})


class CodeFiles(PathReader):
    """Source files below folders of repositories, one document each; the repository is the group.

    A repository is the nearest folder above a file that holds .git, else the first folder below the path named. The
    license is the SPDX identifier in a file's header, else that of the nearest LICENSE or COPYING file above it, within
    the path named. Dropped with a reason: `no_license`, `license_not_allowed`, `generated`, `minified`, `config_data`,
    `markup_only`; folders of other people's code (`vendor`, `node_modules`) are not entered.

    Args:
        paths: folders; a URL of one is copied whole.
        languages: names as in `languages.LANGUAGES`, for example Python; null takes all.
        allowed_licenses: SPDX identifiers; by default the permissive licenses of The Stack. Null takes every file,
            licensed or not.
        max_megabytes: see `Reader`.
        downloads: see `PathReader`.
        max_document_megabytes: see `PathReader`; The Stack has files up to 1 MB.

    Raises:
        InputError: for a language that is not known.
    """

    READS_HIDDEN = True  # programs and settings in folders like .github are the repository's own

    def __init__(
        self,
        paths: PathList,
        languages: list[str] | None = None,
        allowed_licenses: Sequence[str] | None = PERMISSIVE_LICENSES,
        max_megabytes: float | None = None,
        downloads: str = "data/downloads",
        max_document_megabytes: float = 1,
    ) -> None:
        super().__init__(paths, max_megabytes, downloads, max_document_megabytes)
        for language in languages or []:
            if language not in LANGUAGES:
                raise InputError(f"languages: {language!r} is not known, give some of {', '.join(sorted(LANGUAGES))}")
        self.languages = languages
        self.allowed_licenses = None if allowed_licenses is None else list(allowed_licenses)

    def enters(self, folder: str) -> bool:
        """Not the folders of version control and of other people's code."""
        return folder not in _OWN_FOLDERS and folder.lower() not in VENDORED_FOLDERS

    def wants(self, path: Path) -> bool:
        """Files in one of the languages."""
        language = language_of(path.name)
        return language is not None and (self.languages is None or language in self.languages)

    def candidates(self) -> Iterator[InputFile]:
        """Files of the languages, with what decides their license and their repository."""
        # What an earlier start in this process saw may have changed.
        _licenses.cache_clear()
        _repository_name.cache_clear()
        license_of_folder.cache_clear()
        for path, root, label in self.roots():
            if is_url(path):
                for found in remote_files(path, Path(str(self.downloads))):
                    name = found.url.rpartition("/")[2]
                    if self.wants(Path(name)) or is_license_file(name):
                        local_copy(found.url, Path(str(self.downloads)), found.size, str(found.changed))
            empty = True
            for file in self._local(path, root, label):
                empty = False
                folder = Path(file.location).parent
                group = _repository_name(folder, root if root.is_dir() else folder)
                yield replace(file, beside=_licenses(folder, root), group=group)
            if empty:
                wanted = ", ".join(self.languages) if self.languages else "any known language"
                raise InputError(f"path {path} holds no file of {wanted}: name another folder or more languages")

    def documents(self, path: str, file: InputFile) -> Iterator[Document]:
        """The file."""
        root = self._root_of(Path(path))
        with open_bounded(path) as stream:
            document = text_or_reason(read_whole(stream, self.max_bytes))
        repository = _repository(Path(path), root)
        group = f"{root.name}/{repository.relative_to(root).as_posix()}" if repository != root else root.name
        # .json is source code here, and no container of documents.
        document = replace(document, group=group, file=file.name)
        if document.text is None:
            yield document
            return
        source = document.text
        license = declared_license(source)
        if license is None:
            license = license_of_folder(Path(path).parent, root)
        document = replace(document, license=license)
        reason = self._why_not_allowed(license) or why_not_written(
            Path(path).relative_to(repository).as_posix() if Path(path) != repository else Path(path).name,
            source,
        )
        yield document if reason is None else replace(document, text=None, reason=reason)

    def _why_not_allowed(self, license: str | None) -> str | None:
        if self.allowed_licenses is None:
            return None
        if license is None:
            return "no_license"
        return None if is_allowed(license, self.allowed_licenses) else "license_not_allowed"

    def _root_of(self, path: Path) -> Path:
        """The longest of the paths named that holds a file; of a file that is named itself, its folder."""
        roots = [root for _, root, _ in self.roots() if root == path or root in path.parents]
        root = max(roots, key=lambda root: len(root.parts), default=path.parent)
        return path.parent if root == path else root


def _repository(path: Path, root: Path) -> Path:
    folder = path.parent
    while folder != root:
        if (folder / ".git").exists():
            return folder
        folder = folder.parent
    below = path.relative_to(root).parts
    # A root that is a repository itself, or whose files have no folder of their own.
    is_one = (root / ".git").exists() or any(is_license_file(entry.name) for entry in root.iterdir())
    return root if is_one or len(below) < 2 else root / below[0]


@lru_cache(maxsize=4096)
def _repository_name(folder: Path, root: Path) -> str:
    """Repository of the files of a folder, by its path below the root."""
    return provenance_name(_repository(folder / "file", root).relative_to(root))


@lru_cache(maxsize=4096)
def _licenses(folder: Path, root: Path) -> tuple[str, ...]:
    return tuple(map(str, nearest_license_files(folder, root if root.is_dir() else root.parent)))

"""Decontamination: documents that overlap evaluation sets by 13 words (Brown et al. 2020, appendix C).

A model that has read the test measures nothing. Overlaps of words are exact, quick and can be shown; paraphrases and
translations of a test pass, and so would a test's labels without its text.
"""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import daft
import numpy as np
import pyarrow
import regex
from daft import DataType, Expression, Series

from common.compute.compiled import compiled
from common.errors import InputError
from common.files import checksum
from common.path_lists import PathList, path_list
from datamodules.curation.deduplication.word_hashes import in_batches, window_hashes, word_hashes
from datamodules.curation.filters.base import Filter, Threshold
from datamodules.curation.filters.benchmark_texts import evaluation_files, evaluation_texts
from datamodules.curation.words.characters import UNSPACED_SCRIPTS
from datamodules.curation.words.utf8_buffers import utf8_buffers

NamedFile = tuple[str, str, str]
"""A file's path, its name in reports, and its checksum."""
FIELDS = {"contaminated_ngrams": DataType.int64(), "contaminated_by": DataType.string()}
UNSPACED = regex.compile(UNSPACED_SCRIPTS)
CHARACTERS_PER_WORD = 2
"""Of scripts without spaces, in which `word_hashes` takes each character for a word: two are about what a word is."""
LISTED = 5
"""Rows of evaluation sets that are named for a document."""


@dataclass(frozen=True)
class Hit:
    """A row of an evaluation set that a text overlaps.

    Attributes:
        file: name of the evaluation set's file, from the last part of the path given on.
        row: its number in the file, from 1.
        ngrams: overlapping n-grams.
        words: the words of the text's first overlap with it, as written there.
    """

    file: str
    row: int
    ngrams: int
    words: str


class Decontaminate(Filter):
    """Drops documents that share 13 words in a row with an evaluation set (Brown et al. 2020, appendix C: GPT-3).

    Words are those of `word_hashes`, so that letter case, punctuation and layout count on neither side. In scripts
    without spaces two characters are a word: 26 in a row, and no whole text below 16. Evaluation texts are brought into
    NFC, in which documents are after `Normalize`. Those too short for a run are looked for as a whole if they have at
    least `min_words` words, and not at all below: a question of five words occurs by chance. Brown et al. cut out 200
    characters on either side and drop what falls into more than 10 pieces; here the document goes, as a copied test is
    rarely alone. They also pass over n-grams that occur in more than 10 training documents: a rule sees one document,
    so this is left out. What comes closest is `common_rows`.

    Args:
        paths: files of evaluation sets, or folders of them: JSONL, JSON, Parquet and text, .gz, .zst or .bz2 or plain.
        words: n-gram length; 13.
        max_ngrams: overlapping n-grams that are tolerated; Brown et al. tolerate none.
        keys: fields of a row that count, with all below them; null for every string.
        min_words: fewest words of a shorter text that is looked for as a whole; 8 are the fewest that GPT-3's own
            analysis of contamination uses (appendix C: N of 8 to 13).
        common_rows: n-grams in more rows than this of one set of files do not count: instructions and templates
            ("Choose the right answer ..."). Null, for all count: passages with many questions are repeated as well.

    Raises:
        InputError: for sizes that cannot work, and files that cannot be found or read.
    """

    summary = "13 words in a row shared with an evaluation set (Brown et al. 2020, appendix C)"
    LOCATIONS = ("paths", "files")

    def __init__(
        self,
        paths: PathList,
        words: int = 13,
        max_ngrams: int = 0,
        keys: list[str] | None = None,
        min_words: int = 8,
        common_rows: int | None = None,
    ) -> None:
        if not 1 <= min_words <= words:
            raise InputError(f"decontaminate words={words}, min_words={min_words}: need 1 <= min_words <= words")
        if max_ngrams < 0 or (common_rows is not None and common_rows < 1):
            raise InputError(f"decontaminate max_ngrams={max_ngrams}, common_rows={common_rows}: need at least 0 and 1")
        self.paths, self.words, self.max_ngrams = path_list(paths), words, max_ngrams
        self.keys, self.min_words, self.common_rows = keys, min_words, common_rows
        # With checksums, so that another version of a set makes the documents again.
        self.files = [[str(path), name, checksum(path)] for path, name in evaluation_files(self.paths)]

    def settings(self) -> dict[str, Any]:
        """Settings for the fingerprint: of the files their names and contents."""
        return super().settings() | {"files": [[name, digest] for _, name, digest in self.files]}

    def measures(self, text: Expression) -> dict[str, Expression]:
        """`contaminated_ngrams`: n-grams of the text, counted as often as they occur in it, that a set holds.

        `contaminated_by` lists the rows that hold them, for `inspect`; null without any.
        """
        # Of plain values only: it travels to the workers, which read the sets once each.
        wanted = self._wanted()

        @daft.func.batch(return_dtype=DataType.struct(FIELDS))
        def contaminated(texts: Series) -> pyarrow.Array:
            ngrams, (content, places) = evaluation_ngrams(*wanted), utf8_buffers(texts)
            counts = ngrams.count(content, places)
            rows: list[str | None] = [None] * len(counts)
            for place in np.flatnonzero(counts):
                rows[place] = listed(ngrams.hits(bytes(content[places[place] : places[place + 1]])))
            columns = [pyarrow.array(counts), pyarrow.array(rows, pyarrow.large_string())]
            return pyarrow.StructArray.from_arrays(columns, names=list(FIELDS))

        measured = contaminated(text)
        return {name: measured.get(name) for name in FIELDS}

    def thresholds(self) -> dict[str, Threshold]:
        """`contaminated`."""
        return {"contaminated": Threshold("contaminated_ngrams", ">", self.max_ngrams)}

    def hits(self, text: str) -> list[Hit]:
        """The rows of evaluation sets that a text overlaps, those with most n-grams first.

        Of rows that share an n-gram only the first is named.
        """
        return evaluation_ngrams(*self._wanted()).hits(unicodedata.normalize("NFC", text).encode())

    def _wanted(self) -> tuple[tuple[NamedFile, ...], int, int, tuple[str, ...] | None, int | None]:
        files = tuple((path, name, digest) for path, name, digest in self.files)
        keys = None if self.keys is None else tuple(self.keys)
        return files, self.words, self.min_words, keys, self.common_rows


def listed(hits: list[Hit]) -> str:
    """The first hits on one line."""
    shown = [f'{hit.file}:{hit.row} ({hit.ngrams} n-grams, "{" ".join(hit.words.split())}")' for hit in hits[:LISTED]]
    return "; ".join(shown + [f"and {len(hits) - LISTED:,} more rows"] * (len(hits) > LISTED))


class NgramTable:
    """N-grams of one length and the first row of each.

    Args:
        size: words in an n-gram.
        hashes: uint64 [n-grams], sorted, each once.
        rows: int64 [n-grams], index of the first row of each.
    """

    def __init__(self, size: int, hashes: np.ndarray, rows: np.ndarray) -> None:
        self.size, self.hashes, self.rows = size, hashes, rows
        # Sixteen to thirty-two bits for each n-gram: of others only one in sixteen or fewer is searched for.
        self.shift = np.uint64(64 - max(10, (16 * len(hashes)).bit_length()))
        self.seen = np.zeros(2 ** (64 - int(self.shift)) // 8, dtype=np.uint8)
        bits = hashes >> self.shift
        np.bitwise_or.at(self.seen, bits >> np.uint64(3), np.uint8(1) << (bits & np.uint64(7)).astype(np.uint8))

    def find(self, windows: np.ndarray) -> np.ndarray:
        """Position of each window among the n-grams or -1, int64 [windows]."""
        found = np.empty(len(windows), dtype=np.int64)
        _find(windows, self.hashes, self.seen, self.shift, found)
        return found


@compiled
def _find(windows: np.ndarray, hashes: np.ndarray, seen: np.ndarray, shift: np.uint64, found: np.ndarray) -> None:
    for window in range(len(windows)):
        value = windows[window]
        bit = value >> shift
        found[window] = -1
        if seen[bit >> np.uint64(3)] >> np.uint8(bit & np.uint64(7)) & 1:
            place = np.searchsorted(hashes, value)
            if place < len(hashes) and hashes[place] == value:
                found[window] = place


@dataclass(frozen=True)
class EvaluationNgrams:
    """All n-grams of evaluation sets.

    Attributes:
        tables: one for each length, the longest first.
        rows: file and number of each row.
    """

    tables: list[NgramTable]
    rows: list[tuple[str, int]]

    def count(self, data: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Contaminated n-grams in texts, int64 [texts].

        Args:
            data, offsets: of the texts, as `buffers.utf8_buffers` gives them.
        """
        counts = np.zeros(len(offsets) - 1, dtype=np.int64)
        for begin, end in in_batches(offsets):
            words, _, _, bounds = word_hashes(data, offsets[begin : end + 1])
            for window, _, _ in self._found(words, bounds):
                np.add.at(counts, np.searchsorted(bounds, window, side="right") - 1 + begin, 1)
        return counts

    def hits(self, text: bytes) -> list[Hit]:
        """See `Decontaminate.hits`; of a text in UTF-8."""
        data = np.frombuffer(text, dtype=np.uint8)
        words, starts, ends, bounds = word_hashes(data, np.array([0, len(data)], dtype=np.int64))
        found: dict[int, Hit] = {}
        for windows, places, table in self._found(words, bounds):
            for window, row in zip(windows.tolist(), table.rows[places].tolist(), strict=True):
                file, number = self.rows[row]
                quoted = bytes(data[starts[window] : ends[window + table.size - 1]]).decode()
                earlier = found.get(row, Hit(file, number, 0, quoted))
                found[row] = Hit(file, number, earlier.ngrams + 1, earlier.words)
        return sorted(found.values(), key=lambda hit: (-hit.ngrams, hit.file, hit.row))

    def _found(self, words: np.ndarray, bounds: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, NgramTable]]:
        """Windows that are n-grams of a table, by their first words, their positions in the table, and the table."""
        for table in self.tables:
            places = table.find(window_hashes(words, table.size))
            windows = np.flatnonzero(places >= 0)
            # A window that ends in the next text is none.
            ends = bounds[np.searchsorted(bounds, windows, side="right")]
            windows = windows[windows + table.size <= ends]
            yield windows, places[windows], table


@lru_cache(maxsize=4)
def evaluation_ngrams(
    files: tuple[NamedFile, ...], words: int, min_words: int, keys: tuple[str, ...] | None, common_rows: int | None
) -> EvaluationNgrams:
    """The n-grams of evaluation sets, read once per process.

    Raises:
        InputError: for a file that changed since it was listed, or cannot be read.
    """
    rows: list[tuple[str, int]] = []
    hashes: dict[int, list[np.ndarray]] = {}
    owners: dict[int, list[np.ndarray]] = {}
    for place, name, digest in files:
        path = Path(place)
        if not path.is_file() or checksum(path) != digest:
            raise InputError(f"evaluation set {path} changed while it was in use: start again")
        for number, text in evaluation_texts(path, None if keys is None else list(keys)):
            raw = unicodedata.normalize("NFC", text).encode("utf-8", "replace")
            ngrams = _ngrams(raw, words, min_words)
            if not ngrams:
                continue
            if not rows or rows[-1] != (name, number):
                rows.append((name, number))
            for size, windows in ngrams.items():
                hashes.setdefault(size, []).append(windows)
                owners.setdefault(size, []).append(np.full(len(windows), len(rows) - 1, dtype=np.int64))
    tables = [
        _table(size, np.concatenate(hashes[size]), np.concatenate(owners[size]), common_rows)
        for size in sorted(hashes, reverse=True)
    ]
    return EvaluationNgrams(tables, rows)


def _ngrams(raw: bytes, words: int, min_words: int) -> dict[int, np.ndarray]:
    """Length in words of `word_hashes` -> hashes of the n-grams of an evaluation text that count, each once.

    N-grams of which most are characters of scripts without spaces are twice as long.
    """
    data = np.frombuffer(raw, dtype=np.uint8)
    found, starts, ends, _ = word_hashes(data, np.array([0, len(data)], dtype=np.int64))
    share = np.ones(len(found))
    if UNSPACED.search(raw.decode()):
        bounds = zip(starts.tolist(), ends.tolist(), strict=True)
        alone = [UNSPACED.match(raw[start:end].decode()) is not None for start, end in bounds]
        share[alone] /= CHARACTERS_PER_WORD
    sums = np.append(0.0, np.cumsum(share))
    half = (1 + 1 / CHARACTERS_PER_WORD) / 2
    ngrams = {}
    for size in (words, CHARACTERS_PER_WORD * words):
        weights = (sums[size:] - sums[:-size]) / size if size <= len(found) else np.empty(0)
        chosen = weights > half if size == words else weights <= half
        if chosen.any():
            ngrams[size] = np.unique(window_hashes(found, size)[chosen])
    if not ngrams and sums[-1] >= min_words:
        # Too short for one: as a whole.
        ngrams[len(found)] = window_hashes(found, len(found))
    return ngrams


def _table(size: int, hashes: np.ndarray, owners: np.ndarray, common_rows: int | None) -> NgramTable:
    order = np.lexsort((owners, hashes))
    hashes, owners = hashes[order], owners[order]
    starts = np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1]))
    if common_rows is not None:
        # Several texts of a row may hold one n-gram.
        is_new = np.append(True, (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1]))
        starts = starts[np.add.reduceat(is_new.astype(np.int64), starts) <= common_rows]
    return NgramTable(size, hashes[starts], owners[starts])

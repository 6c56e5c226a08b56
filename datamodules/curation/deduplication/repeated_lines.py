"""Line-level deduplication: lines that many documents of a source share, cut from all but the first.

A rule per page sees no repetition between pages, and a document that is mostly its own passes every test of
duplicates. Counting lines over the source finds them, for one hash per line; it is too blunt for source code, where a
common line is no boilerplate and its removal breaks the program.
"""

from pathlib import Path

import numpy as np
import pyarrow

from common.compute.compiled import compiled
from common.compute.hashing import FNV_START, hash_step
from common.errors import InputError
from datamodules.curation.deduplication.external_sort import RECORDS_IN_MEMORY, in_key_ranges, read_piece, write_piece
from datamodules.curation.deduplication.repeated_text import (
    POSITION_BITS,
    RepeatedText,
    Texts,
    characters,
    place_keys,
    strings,
)
from datamodules.curation.deduplication.word_hashes import (
    SEPARATOR,
    TABLE_SIZE,
    character_tables,
    decode,
    in_batches,
)
from datamodules.curation.words.utf8_buffers import utf8_buffers

DIGIT, GAP = np.uint64(ord("0")), np.uint64(ord(" "))


class RepeatedLines(RepeatedText):
    """Removes lines that occur in too many documents, everywhere but where they occur first.

    The line-level deduplication of CCNet (Wenzek et al. 2020, section 3.1) with the threshold of Llama 3 (Dubey et al.
    2024, section 3.1.1: lines that occur more than 6 times in each bucket of 30 million documents). As in CCNet lines
    are compared in lower case, with 0 for every ASCII digit and without punctuation; accents count here. A line
    without letters and digits is never removed. All documents spilled into one folder are counted together: give each
    source a folder.

    Args:
        min_characters: shorter lines are left alone, without the blanks around them: headings, list items, brackets.
            None of the papers has such a bound; 30 is about five words.
        max_documents: documents that a line may occur in; 6 as in Llama 3, CCNet has 1.

    Raises:
        InputError: for a bound below 1.
    """

    WITHIN_SOURCE = True

    def __init__(self, min_characters: int = 30, max_documents: int = 6) -> None:
        if min(min_characters, max_documents) < 1:
            raise InputError(
                f"repeated_lines min_characters={min_characters}, max_documents={max_documents}: each must be >= 1"
            )
        self.min_characters, self.max_documents = min_characters, max_documents

    def spill(self, texts: Texts, ordinals: np.ndarray, folder: Path, name: str) -> None:
        """Write hash, first place and number of documents of each line of the chunk."""
        path = folder / f"{name}.lines.npy"
        if path.exists():
            return
        hashes, places = self._lines(*utf8_buffers(texts), place_keys(ordinals))
        order = np.lexsort((places, hashes))
        hashes, places = hashes[order], places[order]
        new_line = np.append(True, hashes[1:] != hashes[:-1])[: len(hashes)]
        documents = places >> np.uint64(POSITION_BITS)
        new_document = new_line | np.append(True, documents[1:] != documents[:-1])[: len(hashes)]
        starts = np.flatnonzero(new_line)
        counts = np.add.reduceat(new_document.astype(np.uint64), starts) if len(starts) else documents
        write_piece(path, 3, [(hashes[starts], places[starts], counts)])

    def merge(self, folder: Path, records: int = RECORDS_IN_MEMORY) -> Path:
        """Add up the documents of each line.

        Returns:
            Path of a piece: hash of a line that is repeated too often, the place where it occurs first.
        """
        result = folder / "repeated.npy"
        pieces = sorted(folder.glob("*.lines.npy"))
        write_piece(result, 2, (self._too_many(*found) for found in in_key_ranges(pieces, records)))
        return result

    def cut(self, texts: Texts, ordinals: np.ndarray, repeated: Path) -> tuple[pyarrow.Array, np.ndarray]:
        """Cut repeated lines out of a chunk, each with its line feed."""
        lines = read_piece(repeated)
        data, offsets = utf8_buffers(texts)
        keys, kept = place_keys(ordinals), []
        lost = np.zeros(len(ordinals), dtype=np.int64)
        for begin, end in in_batches(offsets):
            hashes, places = self._lines(data, offsets[begin : end + 1], keys[begin:end])
            dropped = np.sort(places[_is_repeated(hashes, places, lines)])
            lows = np.searchsorted(dropped, keys[begin:end])
            highs = np.searchsorted(dropped, keys[begin:end] + np.uint64(2**POSITION_BITS))
            for text in range(begin, end):
                own = data[offsets[text] : offsets[text + 1]]
                low, high = lows[text - begin], highs[text - begin]
                if low < high:
                    before = characters(own)
                    own = cut_lines(own, (dropped[low:high] - keys[text]).astype(np.int64))
                    lost[text] = before - characters(own)
                kept.append(own)
        return strings(kept), lost

    def _lines(self, data: np.ndarray, offsets: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hash and place of every line that is long enough, uint64 [lines] each."""
        count = int(np.count_nonzero(data[offsets[0] : offsets[-1]] == ord("\n"))) + len(keys)
        hashes, places = np.empty(count, dtype=np.uint64), np.empty(count, dtype=np.uint64)
        found = _hash_lines(data, offsets, keys, *character_tables(), self.min_characters, hashes, places)
        if found < 0:
            raise InputError(f"a text of {count} lines: at most 2^28, leave it out (see Length)")
        return hashes[:found], places[:found]

    def _too_many(self, hashes: np.ndarray, places: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hash and first place of the lines of more than `max_documents` documents."""
        order = np.lexsort((places, hashes))
        hashes, places = hashes[order], places[order]
        starts = np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1]))
        chosen = starts[np.add.reduceat(counts[order], starts) > self.max_documents]
        return hashes[chosen], places[chosen]


def _is_repeated(hashes: np.ndarray, places: np.ndarray, repeated: np.ndarray) -> np.ndarray:
    """True if a line is among the repeated, and elsewhere than its first; boolean [lines]."""
    if not repeated.shape[1]:
        return np.zeros(len(hashes), dtype=bool)
    # Sorted, so that the file is walked through once.
    distinct, of_line = np.unique(hashes, return_inverse=True)
    found = np.minimum(np.searchsorted(repeated[0], distinct), repeated.shape[1] - 1)[of_line]
    return (repeated[0][found] == hashes) & (repeated[1][found] != places)


def cut_lines(text: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """A text without some of its lines.

    Args:
        text: UTF-8, uint8 [bytes].
        lines: numbers of the lines, from 0, ascending, int64 [lines].

    Returns:
        UTF-8, uint8 [bytes left].
    """
    edges = np.concatenate(([0], np.flatnonzero(text == ord("\n")) + 1, [len(text)]))
    kept = np.ones(len(edges) - 1, dtype=bool)
    kept[lines] = False
    left: np.ndarray = text[np.repeat(kept, np.diff(edges))]
    return left


@compiled
def _hash_lines(
    data: np.ndarray,
    offsets: np.ndarray,
    keys: np.ndarray,
    kinds: np.ndarray,
    lower: np.ndarray,
    shortest: int,
    hashes: np.ndarray,
    places: np.ndarray,
) -> int:
    """Fill hashes and places of the lines that count; how many, or -1 for a text of too many lines."""
    found = 0
    for text in range(len(offsets) - 1):
        place, end, line = offsets[text], offsets[text + 1], 0
        while place < end:
            # `length` counts up to the last character that is no blank, `seen` all since the first.
            value, words, gap, seen, length = FNV_START, False, False, 0, 0
            while place < end and data[place] != 10:
                code, width = decode(data, place)
                place += width
                blank = code == 32 or 9 <= code <= 13
                if seen or not blank:
                    seen += 1
                if not blank:
                    length = seen
                if code >= TABLE_SIZE or kinds[code] == SEPARATOR:
                    gap = True
                    continue
                if gap and words:
                    value = hash_step(value, GAP)
                gap, words = False, True
                value = hash_step(value, DIGIT if 48 <= code <= 57 else np.uint64(lower[code]))
            if words and length >= shortest:
                hashes[found], places[found] = value, keys[text] | np.uint64(line)
                found += 1
            place += 1
            line += 1
            if line >> POSITION_BITS:
                return -1
    return found

"""Exact substring deduplication: repeated spans of words, cut from all texts but the first (Lee et al. 2022, section
4.1).

They build a suffix array over the whole corpus: it finds repetitions of every length and wants it all in the memory
of one machine. Hashes of all windows of one length find the same spans of at least that length, in pieces of any
size, for 16 bytes of disk a word (about three times the text). What it costs is certainty: that any two of n
different windows share a hash has a probability of about n^2 / 2^65 (1 million documents of 300 words: 0.2 %), and
then 50 words are lost that occur once.
"""

from pathlib import Path

import numpy as np
import pyarrow

from common.compute.compiled import compiled
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
from datamodules.curation.deduplication.word_hashes import in_batches, window_hashes, word_hashes
from datamodules.curation.words.utf8_buffers import utf8_buffers


class RepeatedSpans(RepeatedText):
    """Cuts spans of words that occurred before: earlier in the corpus or earlier in the same document.

    Of every window of `words` words the first occurrence, in the order of documents and words, stays; the words of
    all others are cut. Where a text repeats itself faster than a window is long ("la la la"), the other occurrences
    overlap the first, whose words stay. Words are those of `word_hashes`: letter case, punctuation and layout do not
    count. The result does not depend on the chunks.

    Memory of `spill`: about 50 bytes per word of the chunk, 7 to 10 times its text. Disk: 16 bytes per word.

    Args:
        words: length of a window; 50 as in the paper (there in BPE tokens, about 40 words).

    Raises:
        InputError: when a window has no words.
    """

    WITHIN_SOURCE = False

    def __init__(self, words: int = 50) -> None:
        if words < 1:
            raise InputError(f"repeated_spans words={words}: must be at least 1")
        self.words = words

    def spill(self, texts: Texts, ordinals: np.ndarray, folder: Path, name: str) -> None:
        """Write the windows of a chunk: the first of each kind, and the spans that repeat one within the chunk."""
        first_path, later_path = folder / f"{name}.first.npy", folder / f"{name}.later.npy"
        if first_path.exists() and later_path.exists():
            return
        hashes, places = self._windows(texts, ordinals)
        first, begins, lengths = _first_and_later(hashes, places, self.words)
        write_piece(later_path, 2, [_joined(begins, lengths)])
        # Last: it says that the chunk is done.
        write_piece(first_path, 2, [(hashes[first], places[first])])

    def merge(self, folder: Path, records: int = RECORDS_IN_MEMORY) -> Path:
        """Find the spans that repeat one of another chunk, and join all.

        Returns:
            Path of a piece: place of the first word to cut, words to cut; spans in order, none touching another.
        """
        firsts = sorted(folder.glob("*.first.npy"))
        pieces = [path.with_name(path.name.replace(".first.npy", ".later.npy")) for path in firsts]
        for number, (hashes, places) in enumerate(in_key_ranges(firsts, records)):
            _, begins, lengths = _first_and_later(hashes, places, self.words)
            pieces.append(folder / f".merge-{number}.npy")
            write_piece(pieces[-1], 2, [_joined(begins, lengths)])
        result = folder / "repeated.npy"
        # A document is never parted, so spans that touch meet within a range.
        write_piece(result, 2, (_joined(*found) for found in in_key_ranges(pieces, records, whole=POSITION_BITS)))
        for path in folder.glob(".merge-*.npy"):
            path.unlink()
        return result

    def cut(self, texts: Texts, ordinals: np.ndarray, repeated: Path) -> tuple[pyarrow.Array, np.ndarray]:
        """Cut the repeated spans out of a chunk, see `cut_words`."""
        spans = read_piece(repeated)
        data, offsets = utf8_buffers(texts)
        keys = place_keys(ordinals)
        lows = np.searchsorted(spans[0], keys)
        highs = np.searchsorted(spans[0], keys + np.uint64(2**POSITION_BITS))
        parts, lost = [], np.zeros(len(ordinals), dtype=np.int64)
        for text in range(len(ordinals)):
            own = data[offsets[text] : offsets[text + 1]]
            if lows[text] < highs[text]:
                begins = (spans[0, lows[text] : highs[text]] - keys[text]).astype(np.int64)
                ends = begins + spans[1, lows[text] : highs[text]].astype(np.int64)
                before = characters(own)
                own = cut_words(own, np.stack((begins, ends), axis=1))
                lost[text] = before - characters(own)
            parts.append(own)
        return strings(parts), lost

    def _windows(self, texts: Texts, ordinals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hash and place of every window, uint64 [windows] each."""
        keys = place_keys(ordinals)
        data, offsets = utf8_buffers(texts)
        hashes, places = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
        for begin, end in in_batches(offsets):
            words, _, _, bounds = word_hashes(data, offsets[begin : end + 1])
            if np.diff(bounds).max(initial=0) >= 2**POSITION_BITS:
                raise InputError(f"a text of {np.diff(bounds).max()} words: at most 2^28, leave it out (see Length)")
            windows = window_hashes(words, self.words)
            starts = np.arange(len(windows)) - np.repeat(bounds[:-1], np.diff(bounds))[: len(windows)]
            document = np.repeat(np.arange(begin, end), np.diff(bounds))[: len(windows)]
            # A window that ends in the next text is none.
            within = starts + self.words <= np.diff(bounds)[document - begin]
            hashes.append(windows[within])
            places.append(keys[document[within]] | starts[within].astype(np.uint64))
        return np.concatenate(hashes), np.concatenate(places)


def cut_words(text: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """A text without some of its words.

    A span goes from the start of its first word to the start of the next word that stays, or to the end of the text:
    text behind a word is cut with it, text before the first word stays.

    Args:
        text: UTF-8, uint8 [bytes].
        spans: first word and last + 1 of each, in order and apart, int64 [spans, 2].

    Returns:
        UTF-8, uint8 [bytes left].
    """
    _, starts, _, _ = word_hashes(text, np.array([0, len(text)], dtype=np.int64))
    edges = np.append(starts, len(text))
    parts, place = [], 0
    for begin, end in spans.tolist():
        parts.append(text[place : edges[begin]])
        place = int(edges[end])
    parts.append(text[place:])
    return np.concatenate(parts)


def _first_and_later(hashes: np.ndarray, places: np.ndarray, words: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of equal hashes the lowest place, and the spans to cut at all others.

    Returns:
        int64 [distinct hashes], where the first occurrences are, in the order of hashes; uint64 [others] place of the
        first word to cut and uint64 [others] how many, sorted by place.
    """
    order = np.argsort(hashes)
    if not len(order):
        return order, np.empty(0, np.uint64), np.empty(0, np.uint64)
    ordered = hashes[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    del ordered
    first = np.empty(len(starts), dtype=np.int64)
    skipped = np.empty(len(order) - len(starts), dtype=np.uint64)
    others = np.empty(len(order) - len(starts), dtype=np.uint64)
    _split_groups(order, starts, places, words, first, others, skipped)
    by_place = np.argsort(others)
    skipped = skipped[by_place]
    return first, others[by_place] + skipped, np.uint64(words) - skipped


@compiled
def _split_groups(
    order: np.ndarray,
    starts: np.ndarray,
    places: np.ndarray,
    words: int,
    first: np.ndarray,
    others: np.ndarray,
    skipped: np.ndarray,
) -> None:
    """For each group of equal hashes its lowest place, and the other places with the words they share with it."""
    other = 0
    for group in range(len(starts)):
        end = starts[group + 1] if group + 1 < len(starts) else len(order)
        lowest = order[starts[group]]
        for member in range(starts[group] + 1, end):
            if places[order[member]] < places[lowest]:
                lowest = order[member]
        first[group] = lowest
        for member in range(starts[group], end):
            if order[member] != lowest:
                others[other] = places[order[member]]
                # Places of two documents are further apart than any window is long.
                distance = np.int64(others[other] - places[lowest])
                skipped[other] = np.uint64(words - distance) if distance < words else np.uint64(0)
                other += 1


def _joined(begins: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spans that touch or overlap as one; sorted by where they begin."""
    order = np.argsort(begins)
    begins, ends = begins[order], (begins + lengths)[order]
    if not len(begins):
        return begins, lengths
    reached = np.maximum.accumulate(ends)
    opens = np.flatnonzero(np.append(True, begins[1:] > reached[:-1]))
    closes = np.append(opens[1:] - 1, len(begins) - 1)
    return begins[opens], reached[closes] - begins[opens]

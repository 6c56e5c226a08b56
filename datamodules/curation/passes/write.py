"""Pass 3: remove repeated text, mask personal data, write Parquet.

A document changes here only by comparison with the whole corpus. Kept and dropped documents of a piece are two files,
each written atomically, so that an interrupted run continues with the next piece.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet
from daft import DataFrame, DataType, Expression, col, lit
from daft.functions import left, length, length_bytes, regexp_replace, when

from common.compute.daft_engine import spread
from common.fingerprint import fingerprint
from datamodules.curation.deduplication.repeated_text import RepeatedText
from datamodules.curation.passes.deduplicate import NEAR, REASONS, DedupResult
from datamodules.curation.passes.filter import EXCERPT_CHARACTERS, MASKING_MARGIN, write_table
from datamodules.curation.personal_data.mask import MaskPersonalData

DOCUMENTS, DROPPED = "documents", "dropped"
PROVENANCE = ("id", "source", "path", "group", "url", "license", "date")
REPEATED = "repeated"
"""Drop reason of documents of which too little is left after the cuts."""
MIN_CHARACTERS_LEFT = 20
"""Characters that must be left of a document that was cut, where no `Length` of its source asks for more; RefinedWeb's
number (Penedo et al. 2023, removal of exact substrings)."""


@dataclass
class FilteredPiece:
    """A filtered piece, with the result of deduplication.

    Attributes:
        number: position among all pieces.
        source: name of its source.
        filtered: its file.
        result: deduplication of all documents of the corpus.
    """

    number: int
    source: str
    filtered: Path
    result: DedupResult

    @property
    def here(self) -> slice:
        """Slice of its documents among those of the corpus."""
        return slice(int(self.result.bounds[self.number]), int(self.result.bounds[self.number + 1]))

    @property
    def ordinals(self) -> np.ndarray:
        """Positions of its documents in the corpus, int64."""
        return np.arange(self.here.start, self.here.stop)

    def read(self, columns: list[str] | None = None) -> pyarrow.Table:
        """Its documents."""
        return pyarrow.parquet.read_table(self.filtered, columns=columns)

    def kept(self, table: pyarrow.Table) -> np.ndarray:
        """Mask of its documents that are left, boolean [documents]."""
        return (self.result.reason[self.here] == 0) & table.column("reason").is_null().to_numpy()


Found = Mapping[str, Mapping[str, tuple[RepeatedText, Path]]]
"""Source -> name -> step that cuts repeated text and the file of what it found, in the order of application."""


@dataclass(frozen=True)
class Cuts:
    """What is repeated, and the order in which documents are first.

    Attributes:
        found: steps that cut and their files.
        ranks: rank of every document of the corpus, int64 [documents]: of what is repeated the lowest stays.
    """

    found: Found
    ranks: np.ndarray


def find_repetitions(
    pieces: Sequence[FilteredPiece],
    finders: Mapping[str, Mapping[str, RepeatedText]],
    folder: Path,
    crawls: Collection[str] = (),
    min_characters_left: Mapping[str, int] | None = None,
) -> Cuts:
    """Find repeated text among the documents that are left; each finder sees what the ones before it leave.

    Documents of which too little would be left are ranked behind all others and the search runs once more: what they
    held first stays where it comes next, and is not lost with them. It costs a second search where there are any.

    Args:
        pieces: in order.
        finders: source -> name -> finder; in the order of their names, lines before spans.
        folder: folder of their files.
        crawls: sources that are ranked behind all others.
        min_characters_left: of each source, characters without which a document that was cut is dropped; by default
            `MIN_CHARACTERS_LEFT`.
    """
    total = int(pieces[0].result.bounds[-1]) if pieces else 0
    crawled, short = np.zeros(total, dtype=bool), np.zeros(total, dtype=bool)
    for piece in pieces:
        crawled[piece.here] = piece.source in crawls
    cuts = _find(pieces, finders, folder / "repetitions", _ranks(crawled))
    for piece in pieces:
        if not cuts.found[piece.source]:
            continue
        table = piece.read(["text", "reason"])
        kept = piece.kept(table)
        texts, lost = cut(piece, table.column("text").filter(kept), kept, cuts)
        limit = (min_characters_left or {}).get(piece.source, MIN_CHARACTERS_LEFT)
        short[piece.ordinals[kept]] = _too_short(texts, lost, limit)
    if not short.any():
        return cuts
    return _find(pieces, finders, folder / "repetitions_again", _ranks(short, crawled))


def _ranks(*behind: np.ndarray) -> np.ndarray:
    """Rank of every document, int64: those of a mask behind the others, the first mask counts most."""
    ranks = np.empty(len(behind[0]), dtype=np.int64)
    ranks[np.lexsort(behind[::-1])] = np.arange(len(ranks))
    return ranks


def _find(
    pieces: Sequence[FilteredPiece],
    finders: Mapping[str, Mapping[str, RepeatedText]],
    folder: Path,
    ranks: np.ndarray,
) -> Cuts:
    found: dict[str, dict[str, tuple[RepeatedText, Path]]] = {source: {} for source in finders}
    cuts = Cuts(found, ranks)
    for name in sorted({name for own in finders.values() for name in own}):
        compared: dict[str, tuple[RepeatedText, Path]] = {}
        for piece in pieces:
            if (finder := finders[piece.source].get(name)) is None:
                continue
            into = folder / name / _compared_within(finder, piece.source)
            into.mkdir(parents=True, exist_ok=True)
            compared[piece.source] = finder, into
            table = piece.read(["text", "reason"])
            kept = piece.kept(table)
            texts, _ = cut(piece, table.column("text").filter(kept), kept, cuts)
            finder.spill(texts, ranks[piece.here][kept], into, f"{piece.number:05}")
        for into, finder in {into: finder for finder, into in compared.values()}.items():
            finder.merge(into).replace(into.with_suffix(".repeated"))
        for source, (finder, into) in compared.items():
            found[source][name] = finder, into.with_suffix(".repeated")
    return cuts


def _compared_within(finder: RepeatedText, source: str) -> str:
    """Name of the folder of all that is compared with a source."""
    return source if finder.WITHIN_SOURCE else fingerprint(type(finder).__name__, vars(finder))


def cut(piece: FilteredPiece, texts: Any, kept: np.ndarray, cuts: Cuts) -> tuple[Any, dict[str, np.ndarray]]:
    """Kept texts of a piece without repeated text, and the characters that each cut took from each text, int64."""
    lost = {}
    for name, (finder, repeated) in cuts.found[piece.source].items():
        texts, lost[name] = finder.cut(texts, cuts.ranks[piece.here][kept], repeated)
    return texts, lost


def _too_short(texts: Any, lost: Mapping[str, np.ndarray], min_characters_left: int) -> np.ndarray:
    """Mask of the texts that were cut and have less than so many characters left."""
    characters = pyarrow.compute.utf8_length(pyarrow.compute.utf8_trim_whitespace(texts))
    short: np.ndarray = characters.to_numpy(zero_copy_only=False) < min_characters_left
    return short & (np.sum([taken > 0 for taken in lost.values()], axis=0) > 0)


def write_piece(
    piece: FilteredPiece,
    folder: Path,
    masker: MaskPersonalData | None,
    cuts: Cuts,
    min_characters_left: int = MIN_CHARACTERS_LEFT,
) -> None:
    """Write `documents/NNNNN.parquet` and `dropped/NNNNN.parquet` of a piece, unless they are there.

    Args:
        piece: piece to write.
        folder: folder of the artifact.
        masker: personal data masking, or None. Excerpts of dropped documents are always masked, since people see them.
        cuts: from `find_repetitions`.
        min_characters_left: characters without which a document that was cut is dropped.
    """
    documents = folder / DOCUMENTS / f"{piece.number:05}.parquet"
    dropped = folder / DROPPED / f"{piece.number:05}.parquet"
    if documents.exists() and dropped.exists():
        return
    table = piece.read()
    measured = [name for name in table.column_names if name.startswith("measured_")]
    kept, reasons = piece.kept(table), _reasons(piece, table)
    texts, lost = cut(piece, table.column("text").filter(kept), kept, cuts)
    left_over = np.flatnonzero(kept)
    if lost:
        short = _too_short(texts, lost, min_characters_left)
        kept[left_over[short]] = False
        left_over, texts = left_over[~short], texts.filter(~short)
        lost = {name: taken[~short] for name, taken in lost.items()}
    split = np.where(piece.result.validation[piece.here][left_over], "validation", "train")
    final = table.select([*PROVENANCE, *measured]).take(left_over)
    final = final.append_column("split", pyarrow.array(split, pyarrow.large_string()))
    final = final.append_column("text", texts)
    for name, taken in lost.items():
        final = final.append_column(f"cut_{name}", pyarrow.array(taken, pyarrow.int64()))
    write_table(masked_documents(spread(final), masker).to_arrow(), documents)

    others = ~kept
    gone = table.select([*PROVENANCE, "bytes", "excerpt", "dropped_by", *measured]).filter(others)
    gone = gone.append_column("reason", reasons.filter(others).fill_null(REPEATED))
    for name, column in _kept_instead(piece).items():
        gone = gone.append_column(name, column.filter(others))
    excerpt = masked_excerpt(masker or MaskPersonalData(), col("excerpt"))
    write_table(spread(gone).with_column("excerpt", excerpt).to_arrow(), dropped)


def _reasons(piece: FilteredPiece, table: pyarrow.Table) -> pyarrow.Array:
    names = pyarrow.array([reason or None for reason in REASONS], pyarrow.large_string())
    return pyarrow.compute.coalesce(
        table.column("reason").combine_chunks().cast(pyarrow.large_string()),
        names.take(pyarrow.array(piece.result.reason[piece.here])),
    )


def _kept_instead(piece: FilteredPiece) -> dict[str, pyarrow.Array]:
    """Ids of the documents that duplicates were dropped for, and how similar near-duplicates are to them."""
    result, here = piece.result, piece.here
    other = result.ids[result.duplicate_of[here]]
    near = result.reason[here] == REASONS.index(NEAR)
    return {
        "duplicate_of": pyarrow.array(other, pyarrow.uint64(), mask=result.reason[here] == 0),
        "similarity": pyarrow.array(result.similarity[here], pyarrow.float32(), mask=~near),
    }


def masked_documents(df: DataFrame, masker: MaskPersonalData | None) -> DataFrame:
    """Documents with personal data masked, `masked_KIND` counted and `bytes` of the text as it now is."""
    if masker is not None:
        df = df.with_column("masked", masker.masked(col("text")))
        counted = {f"masked_{kind}": col("masked").get(kind) for kind in masker.kinds}
        df = df.with_columns({"text": col("masked").get("text"), **counted}).exclude("masked")
    return df.with_column("bytes", length_bytes(col("text")).cast(DataType.int64()))


def masked_excerpt(masker: MaskPersonalData, excerpt: Expression) -> Expression:
    """Masked excerpt of an excerpt that was cut with a margin."""
    masked = masker.transform(excerpt)
    # Placeholders are shorter: the end, where the cut may have halved an address, can move into view.
    is_cut = length(excerpt) == lit(EXCERPT_CHARACTERS + MASKING_MARGIN)
    whole = when(is_cut, regexp_replace(masked, rf"\S{{0,{MASKING_MARGIN}}}\z", "")).otherwise(masked)
    return left(whole, EXCERPT_CHARACTERS)

"""Sampled documents: a few of each drop reason, and of those kept, chosen by a hash of their ids."""

import heapq
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from common.compute.hashing import pseudo_random
from datamodules.curation.passes.filter import EXCERPT_CHARACTERS

EXAMPLES = 20
SEED = 20


class Examples:
    """The documents with the lowest hashes, gathered piece by piece.

    Args:
        max_examples: documents of each reason, and of those kept.
    """

    def __init__(self, max_examples: int = EXAMPLES) -> None:
        self.max_examples = max_examples
        self._dropped: dict[str, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
        self._kept: list[tuple[int, dict[str, Any]]] = []

    def add(self, documents: Path, dropped: Path) -> None:
        """Consider the files of a piece."""
        table = pyarrow.parquet.read_table(documents, columns=["id", "source", "path", "text"])
        excerpt = pyarrow.compute.utf8_slice_codeunits(table.column("text"), 0, EXCERPT_CHARACTERS)
        self._kept = self._lowest(self._kept, table.drop_columns("text").append_column("excerpt", excerpt))
        table = pyarrow.parquet.read_table(dropped, columns=["id", "source", "path", "excerpt", "reason"])
        for reason in sorted(table.column("reason").unique().to_pylist()):
            some = table.filter(pyarrow.compute.equal(table.column("reason"), reason)).drop_columns("reason")
            self._dropped[reason] = self._lowest(self._dropped[reason], some)

    def dropped(self) -> dict[str, list[dict[str, Any]]]:
        """By reason: `id`, `source`, `path` and `excerpt`, masked, of at most `max_examples` documents."""
        return {reason: [row for _, row in rows] for reason, rows in sorted(self._dropped.items())}

    def kept(self) -> list[dict[str, Any]]:
        """The same of what is kept."""
        return [row for _, row in self._kept]

    def _lowest(self, rows: list[tuple[int, dict[str, Any]]], table: pyarrow.Table) -> list[tuple[int, dict[str, Any]]]:
        hashes = pseudo_random(table.column("id").to_numpy(), SEED)
        chosen = np.argsort(hashes, kind="stable")[: self.max_examples]
        more = zip(hashes[chosen].tolist(), table.take(chosen).to_pylist(), strict=True)
        return heapq.nsmallest(self.max_examples, [*rows, *more], key=lambda row: row[0])

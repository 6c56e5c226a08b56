"""Duplicate clusters: sizes of all groups of duplicates of a corpus, and the members of the largest."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from datamodules.curation.passes.deduplicate import DedupResult, rows_at
from datamodules.curation.passes.write import FilteredPiece

CLUSTERS, MEMBERS = 20, 20


def largest_clusters(pieces: Sequence[FilteredPiece]) -> list[dict[str, Any]]:
    """Groups that were reduced to one document, the largest first.

    Returns:
        At most `CLUSTERS` of `size` (with the one kept), `id` and `path` of the one kept, and `paths` of at most
        `MEMBERS` of those dropped, in the order of the corpus.
    """
    if not pieces:
        return []
    result = pieces[0].result
    kept = final_document(result.duplicate_of)
    dropped = np.flatnonzero(result.reason > 0)
    roots, counts = np.unique(kept[dropped], return_counts=True)
    chosen = np.lexsort((roots, -counts))[:CLUSTERS]
    members = {int(roots[index]): dropped[kept[dropped] == roots[index]][:MEMBERS] for index in chosen}
    wanted = np.unique(np.concatenate([np.array(list(members), dtype=np.int64), *members.values()]))
    paths = rows_at([piece.filtered for piece in pieces], result.bounds, wanted, ["path"])["path"]
    path_of = dict(zip(wanted.tolist(), paths, strict=True))
    return [
        {
            "size": int(counts[index]) + 1,
            "id": int(result.ids[roots[index]]),
            "path": path_of[int(roots[index])],
            "paths": [path_of[position] for position in members[int(roots[index])].tolist()],
        }
        for index in chosen
    ]


def group_sizes(result: DedupResult) -> list[dict[str, int]]:
    """How many groups of duplicates there are of each size: `size` (with the one kept) and `groups`, smallest first."""
    dropped = np.flatnonzero(result.reason > 0)
    members = np.unique(final_document(result.duplicate_of)[dropped], return_counts=True)[1] + 1
    sizes, groups = np.unique(members, return_counts=True)
    return [{"size": size, "groups": count} for size, count in zip(sizes.tolist(), groups.tolist(), strict=True)]


def final_document(duplicate_of: np.ndarray) -> np.ndarray:
    """The document that is kept in the end: an exact duplicate may be one of a near-duplicate."""
    final = duplicate_of
    while (final != duplicate_of[final]).any():
        final = duplicate_of[final]
    return final

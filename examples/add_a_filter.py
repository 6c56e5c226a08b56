"""Custom filter of documents, run over a few texts: python examples/add_a_filter.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import daft
from daft import DataType, Expression
from daft.functions import length, replace

from datamodules.curation.filters.base import Filter, Threshold


class Exclamations(Filter):
    """Filter of texts that shout.

    Args:
        max_exclamation_share: largest share of characters that are exclamation marks.
    """

    summary = "share of exclamation marks"

    def __init__(self, max_exclamation_share: float = 0.01) -> None:
        self.max_exclamation_share = max_exclamation_share

    def measures(self, text: Expression) -> dict[str, Expression]:
        """Share of exclamation marks."""
        characters = length(text).cast(DataType.float64())
        without = length(replace(text, "!", "")).cast(DataType.float64())
        return {"exclamation_share": (characters - without) / characters}

    def thresholds(self) -> dict[str, Threshold]:
        """`shouting`."""
        return {"shouting": Threshold("exclamation_share", ">", self.max_exclamation_share)}


def decide(texts: list[str]) -> list[bool]:
    """Whether each text is dropped."""
    step = Exclamations()
    measured = daft.from_pydict({"text": texts}).with_columns(step.measures(daft.col("text")))
    columns = {"exclamation_share": daft.col("exclamation_share")}
    dropped: list[bool] = measured.with_columns(step.drops(columns)).to_pydict()["shouting"]
    return dropped


if __name__ == "__main__":
    samples = ["A calm sentence.", "BUY NOW!!!"]
    for sample, is_dropped in zip(samples, decide(samples), strict=True):
        print(f"{'dropped' if is_dropped else 'kept':<8}{sample}")

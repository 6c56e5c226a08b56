"""Interface of curation steps: filters, which drop documents, and transforms, which change their text.

Steps are written as Daft expressions, so that they run vectorized on every core and on a cluster; a step that needs
Python itself wraps a batch function. A step keeps no state between documents.
"""

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import daft
from daft import Expression, lit

COMPARISONS: dict[str, Callable[[Expression, Expression], Expression]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


@dataclass(frozen=True)
class Threshold:
    """Threshold of a measurement, beyond which a document is dropped.

    Attributes:
        measure: name of the measurement; true and false count as 1 and 0.
        comparison: comparison of measurement and threshold that drops.
        threshold: value in the unit of the measurement.
    """

    measure: str
    comparison: Literal["<", "<=", ">", ">="]
    threshold: float

    def drops(self, measured: Expression) -> Expression:
        """True if a document is dropped, an expression over its measurement."""
        return COMPARISONS[self.comparison](measured.cast(daft.DataType.float64()), lit(float(self.threshold)))


class SummarizedStep:
    """A step of curation, a pure function of one document.

    Attributes:
        summary: one line for reports: the rule and its paper.
        LOCATIONS: names of attributes that say where a file is, whose content is another attribute.
    """

    summary: str = ""
    LOCATIONS: ClassVar[tuple[str, ...]] = ()

    def admits(self) -> list[str]:
        """Languages that the step chooses, ISO 639 codes; none where it does not look at languages."""
        return []

    def refuses(self, language: str) -> str | None:
        """Why the step would drop all text of a language, with what to set instead; None where it would not.

        Args:
            language: ISO 639 code, as `Language` has them.
        """
        return None

    def settings(self) -> dict[str, Any]:
        """Settings for the fingerprint: all that the step was given but where files are."""
        return {name: value for name, value in vars(self).items() if name not in self.LOCATIONS}


class Filter(SummarizedStep, ABC):
    """Filter: measures a text and drops the document by thresholds."""

    @abstractmethod
    def measures(self, text: Expression) -> dict[str, Expression]:
        """Quantities of a text by name, each an expression over the text column.

        Where it says so, a filter may look at the columns `url`, `path`, `license`, `date` and `file` (the document's
        own path, null where it has none) too.
        """

    @abstractmethod
    def thresholds(self) -> dict[str, Threshold]:
        """Reason -> the threshold that drops for it. The first that applies is the one reported."""

    def drops(self, measured: dict[str, Expression]) -> dict[str, Expression]:
        """Reason -> whether it applies, over the columns of `measures`."""
        return {reason: threshold.drops(measured[threshold.measure]) for reason, threshold in self.thresholds().items()}


class Transform(SummarizedStep, ABC):
    """Transform: changes the text of a document."""

    @abstractmethod
    def transform(self, text: Expression) -> Expression:
        """The new text, an expression over the text column."""


CurationStep = Filter | Transform

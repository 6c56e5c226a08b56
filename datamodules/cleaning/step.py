"""What a cleaning step is: a rule that drops, or a rewrite that changes the text.

Steps are written as Daft expressions, so that they run vectorised on every core, and on a cluster, without a line
about either; a step that needs Python itself wraps a batch function. A step keeps nothing between documents.
"""

from abc import ABC, abstractmethod

from daft import Expression


class Rule(ABC):
    """Measures a text and names the measurements that drop it."""

    @abstractmethod
    def measures(self, text: Expression) -> dict[str, Expression]:
        """Quantities of a text by name, each an expression over the text column."""

    @abstractmethod
    def drops(self, measured: dict[str, Expression]) -> dict[str, Expression]:
        """Reason -> whether it applies, over the columns of `measures`. The first that applies is the one reported."""


class Rewrite(ABC):
    """Changes the text."""

    @abstractmethod
    def rewrite(self, text: Expression) -> Expression:
        """The new text, an expression over the text column."""


CleaningStep = Rule | Rewrite

"""Settings of curation: text sources, and what is done to all of them alike.

They are dataclasses that YAML fills by their fields. `settings` decides the folder that the result is kept in,
so a field that changes no document stays out of it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from common.errors import InputError
from datamodules.curation.deduplication.repeated_lines import RepeatedLines
from datamodules.curation.deduplication.repeated_spans import RepeatedSpans
from datamodules.curation.deduplication.repeated_text import RepeatedText
from datamodules.curation.deduplication.url import UrlDuplicates
from datamodules.curation.filters.base import CurationStep, SummarizedStep
from datamodules.curation.personal_data.mask import MaskPersonalData
from datamodules.readers.base import Reader


@dataclass
class TextSource:
    """A named source of text, as an entry of `sources` in YAML.

    Args:
        reader: reader of its documents.
        steps: filters and transforms in order; normalization is always first and need not be named.
        weight: share of training samples from this source, on any positive scale.
        repeated_lines: line-level deduplication within the source; null for none, which is right for source code: what
            is left of a program without some of its lines is no program.
        repeated_spans: exact substring deduplication within the source and against all others that have it with the
            same settings; null for none, likewise.

    Raises:
        InputError: for a weight that is not positive, or steps for other languages than are chosen.
    """

    reader: Reader
    steps: list[CurationStep] = field(default_factory=list)
    weight: float = 1.0
    repeated_lines: RepeatedLines | None = None
    repeated_spans: RepeatedSpans | None = None

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise InputError(f"weight={self.weight}: must be above 0, or leave the source out")
        check_languages(self.steps)

    @property
    def repetitions(self) -> dict[str, RepeatedText]:
        """Steps that cut repeated text, by name."""
        found = {"repeated_lines": self.repeated_lines, "repeated_spans": self.repeated_spans}
        return {name: finder for name, finder in found.items() if finder is not None}


@dataclass
class CurationConfig:
    """Settings of curation for all sources, and of its execution.

    Args:
        steps: filters and transforms applied to every source, after its own.
        url_duplicates: URL deduplication, which keeps the newest fetch of a page, and one of several documents of a URL
            that resemble each other, which takes near-duplicates' signatures; None keeps all.
        personal_data: personal data masking; None for none.
        engine: `native` uses the cores of this machine for all but reading, which is Python's own work and takes one;
            `ray` uses the cluster that `RAY_ADDRESS` names, or else all cores of this machine for reading too. The
            result is the same.
        chunk_megabytes: size of the input files read together, and of the text in memory at a time.

    Raises:
        InputError: for a chunk size that is not above 0.
    """

    steps: list[CurationStep] = field(default_factory=list)
    url_duplicates: UrlDuplicates | None = field(default_factory=UrlDuplicates)
    personal_data: MaskPersonalData | None = field(default_factory=MaskPersonalData)
    engine: Literal["native", "ray"] = "native"
    chunk_megabytes: float = 64.0

    def __post_init__(self) -> None:
        if not 0 < self.chunk_megabytes < float("inf"):
            raise InputError(f"chunk_megabytes={self.chunk_megabytes}: must be a number above 0, 64 is usual")

    @property
    def masked_kinds(self) -> list[str]:
        """Kinds of personal data that are masked."""
        return self.personal_data.kinds if self.personal_data else []

    def settings(self) -> list[Any]:
        """Settings for the fingerprint: all but the engine, which changes no document."""
        parts = (self.url_duplicates, self.personal_data)
        return [step_settings(self.steps), [part and step_settings([part]) for part in parts], self.chunk_megabytes]


def check_languages(steps: Iterable[Any]) -> None:
    """Refuse steps that would drop all text of a language that an earlier one chooses.

    Raises:
        InputError: for such a step, with what to set.
    """
    languages: list[str] = []
    for step in steps:
        if not isinstance(step, SummarizedStep):
            continue
        languages = step.admits() or languages
        for language in languages:
            if reason := step.refuses(language):
                raise InputError(f"languages={languages}: {type(step).__name__} drops {language}, it {reason}")


def step_settings(steps: Iterable[Any]) -> list[Any]:
    return [
        [type(step).__name__, step.settings() if isinstance(step, SummarizedStep) else vars(step)] for step in steps
    ]

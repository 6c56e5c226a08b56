"""Personal data masking: personal data and credentials replaced by typed placeholders, and counted.

Patterns with validation, not a named-entity model: they find what has a form (addresses, numbers, keys) at tens of
megabytes per second, and miss names and postal addresses. Precision comes before recall: what could as well be a
version, a date, an ISBN or a hash stays, and numbers without a form of their own need a word that announces them.
"""

from collections.abc import Mapping, Sequence
from itertools import compress

import daft
import numpy as np
import pyarrow
from daft import DataType, Expression, Series
from daft.functions import regexp, to_list
from pyarrow import compute

from common.errors import InputError
from datamodules.curation.filters.base import Transform
from datamodules.curation.personal_data.contacts import CONTACTS, phone_number
from datamodules.curation.personal_data.kind import PersonalDataKind
from datamodules.curation.personal_data.numbers import NATIONAL_IDS, NUMBERS, national_id
from datamodules.curation.personal_data.secrets import SECRETS

MAX_PASSES = 16
"""Over a text; the last of them finds nothing, unless masking uncovers more."""
PHONE_REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "BR")
"""Whose national forms are looked for; numbers with a country code are found of every country."""


def kinds_for(phone_regions: Sequence[str], id_countries: Sequence[str]) -> dict[str, PersonalDataKind]:
    """Every kind by name, in the order they are masked in: the more particular form first.

    Raises:
        InputError: for an unknown region or country.
    """
    numbers = {"national_id": national_id(id_countries), "phone_number": phone_number(phone_regions)}
    return {**CONTACTS, **SECRETS, **NUMBERS, **numbers}


KINDS = kinds_for(PHONE_REGIONS, tuple(NATIONAL_IDS))


def mask(text: str, names: Sequence[str], kinds: Mapping[str, PersonalDataKind] = KINDS) -> tuple[str, dict[str, int]]:
    """The text with personal data replaced, and how many of each kind were found.

    Args:
        text: any text.
        names: which kinds to mask.
        kinds: what they are.
    """
    counts = dict.fromkeys(names, 0)
    # A placeholder is a boundary where there was none: what it uncovers is masked too, so that masking twice changes
    # nothing. Texts with nothing to mask, nearly all, are searched once; one made to uncover a match a pass is let be.
    for _ in range(MAX_PASSES):
        found = False
        for name in names:
            text, count = _mask_kind(text, kinds[name])
            counts[name] += count
            found |= count > 0
        if not found:
            break
    return text, counts


def _mask_kind(text: str, kind: PersonalDataKind) -> tuple[str, int]:
    pieces: list[str] = []
    last = 0
    for start, end in kind.find(text):
        pieces += (text[last:start], kind.placeholder)
        last = end
    return ("".join([*pieces, text[last:]]), len(pieces) // 2) if pieces else (text, 0)


class MaskPersonalData(Transform):
    """Replaces personal data and credentials by placeholders: <EMAIL>, <PHONE_NUMBER>, <API_KEY> and so on.

    Private, loopback and documentation addresses stay: they identify no person.

    Args:
        kinds: which of email, ip_address, ip_address_v6, api_key, private_key, iban, credit_card, national_id and
            phone_number; null for all.
        phone_regions: ISO 3166 codes of countries whose telephone numbers are found in their national form too.
        id_countries: of those whose national identifiers are looked for; null for all that are known.

    Raises:
        InputError: for an unknown kind, region or country.
    """

    summary = "personal data replaced by placeholders"

    def __init__(
        self,
        kinds: list[str] | None = None,
        phone_regions: Sequence[str] = PHONE_REGIONS,
        id_countries: list[str] | None = None,
    ) -> None:
        self.kinds = list(KINDS) if kinds is None else kinds
        self.phone_regions = list(phone_regions)
        self.id_countries = list(NATIONAL_IDS) if id_countries is None else id_countries
        if not self.kinds:
            raise InputError("kinds=[] masks nothing: name some, or leave the step out")
        if unknown := set(self.kinds) - set(KINDS):
            raise InputError(f"kinds={sorted(unknown)}: choose from {list(KINDS)}")
        kinds_for(self.phone_regions, self.id_countries)

    def transform(self, text: Expression) -> Expression:
        """The masked text."""
        return self.masked(text).get("text")

    def masked(self, text: Expression) -> Expression:
        """A struct of `text` and one count per kind."""
        fields = {"text": DataType.string()} | {kind: DataType.int64() for kind in self.kinds}
        names, regions, countries = self.kinds, self.phone_regions, self.id_countries
        kinds = kinds_for(regions, countries)

        @daft.func.batch(return_dtype=DataType.struct(fields))
        def mask_batch(texts: Series, candidates: Series) -> Series:
            column = one_chunk(texts)
            present = one_chunk(candidates).flatten().fill_null(False).to_numpy(zero_copy_only=False)
            present = present.reshape(len(column), len(names))
            # Most texts have nothing to look at and never become Python's.
            suspects = present.any(axis=1)
            counts = np.zeros((len(names), len(column)), dtype=np.int64)
            masked = []
            for row in np.flatnonzero(suspects).tolist():
                new, found = mask(column[row].as_py(), list(compress(names, present[row])), kinds)
                masked.append(new)
                counts[:, row] = [found.get(name, 0) for name in names]
            if masked:
                column = compute.replace_with_mask(column, pyarrow.array(suspects), pyarrow.array(masked, column.type))
            return Series.from_arrow(
                pyarrow.StructArray.from_arrays([column, *map(pyarrow.array, counts)], list(fields))
            )

        return mask_batch(text, to_list(*(regexp(text, kinds[name].candidate) for name in names)))


def one_chunk(series: Series) -> pyarrow.Array:
    """A column as one Arrow array, its strings with 64-bit offsets."""
    column = series.to_arrow()
    if isinstance(column, pyarrow.ChunkedArray):
        column = column.combine_chunks()
    return column.cast(pyarrow.large_string()) if pyarrow.types.is_string(column.type) else column

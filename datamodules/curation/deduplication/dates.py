"""Document dates for deduplication: strings as corpora write them, parsed to seconds that can be ordered.

Text does not sort by time: of `Mon, 04 Mar 2019` and `2024-03-01` the older is the greater string. What cannot be read
is no date and counts as the oldest, rather than to be guessed; of a day and a month that may be exchanged the earlier
reading counts, so that a document is never taken for newer than it is.
"""

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import daft
import numpy as np
import pyarrow
from daft import DataType, Expression, Series

NO_DATE = 0
"""Key of a document without a date: lower than any date's."""
FIRST_KEY = 2**62
"""Key of 1970-01-01T00:00:00Z: keys are unsigned, and books are older."""
MAX_LENGTH = 64
"""Characters: a longer string is no date."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNITS = {9: 1, 10: 1, 13: 10**3, 16: 10**6, 19: 10**9}
"""Digits of a number of seconds (from 1973 to 2286), milli-, micro- and nanoseconds since 1970 -> parts of a second."""
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
NUMBER = re.compile(r"(\d+)(?:\.\d*)?")
YEAR_FIRST = re.compile(r"(\d{4})(?:[-/.](\d{1,2})(?:[-/.](\d{1,2}))?)?")
YEAR_LAST = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4})(?:[ ,T].*)?")
DAY = r"(\d{1,2})(?:st|nd|rd|th)?"
WRITTEN = re.compile(rf"(?:[A-Za-z]{{3,9}},? )?(?:{DAY}\.? )?([A-Za-z]{{3,9}})\.?(?: {DAY})?,? (\d{{4}})")


def parse_date(date: str) -> int | None:
    """Seconds since 1970-01-01T00:00:00Z, or None for what is no date.

    Read are ISO 8601 (also a year or a month alone, and `20190304123000` as archives write it), RFC 2822, seconds,
    milli-, micro- and nanoseconds since 1970, `13/1/2001`, `2001/1/13`, `4 March 2019` and `March 4, 2019`. Without an
    offset UTC is meant.
    """
    date = date.strip()
    if not 4 <= len(date) <= MAX_LENGTH or not date.isascii():
        return None
    if (number := NUMBER.fullmatch(date)) and (unit := UNITS.get(len(number[1]))):
        return int(number[1]) // unit
    if date.isdigit() and len(date) == 14:
        date = f"{date[:8]}T{date[8:]}"
    try:
        return _seconds(datetime.fromisoformat(date))
    except (ValueError, OverflowError):
        pass
    if found := YEAR_FIRST.fullmatch(date):
        return _of_day(int(found[1]), int(found[2] or 1), int(found[3] or 1))
    if found := YEAR_LAST.fullmatch(date):
        one, other, year = int(found[1]), int(found[3]), int(found[4])
        readings = [_of_day(year, other, one), _of_day(year, one, other)]
        return min((reading for reading in readings if reading is not None), default=None)
    if (found := WRITTEN.fullmatch(date)) and (month := found[2][:3].lower()) in MONTHS:
        return _of_day(int(found[4]), 1 + MONTHS.index(month), int(found[1] or found[3] or 1))
    try:
        return _seconds(parsedate_to_datetime(date))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _seconds(moment: datetime) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - EPOCH) // timedelta(seconds=1)


def _of_day(year: int, month: int, day: int) -> int | None:
    try:
        return _seconds(datetime(year, month, day))
    except ValueError:
        return None


def date_key(date: Expression) -> Expression:
    """Key of a date, uint64, the newer the greater; `NO_DATE` where none can be read."""
    return _date_key(date)


@daft.func.batch(return_dtype=DataType.uint64())
def _date_key(dates: Series) -> Series:
    encoded = dates.to_arrow().dictionary_encode()
    # Pages of one crawl and rows of one dump share dates: each is parsed once per batch.
    parsed = [parse_date(date) for date in encoded.dictionary.to_pylist()]
    known = [NO_DATE if seconds is None else FIRST_KEY + seconds for seconds in parsed]
    indices = encoded.indices.fill_null(len(known)).to_numpy(zero_copy_only=False)
    keys = np.array([*known, NO_DATE], dtype=np.uint64)[indices]
    return Series.from_arrow(pyarrow.array(keys, pyarrow.uint64()))

"""Dates in the forms that corpora write them in, as integers in the order of time."""

from datetime import UTC, datetime

import daft
import pytest
from daft import col
from hypothesis import given
from hypothesis import strategies as st

from datamodules.curation.deduplication.dates import NO_DATE, date_key, parse_date


def at(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp())  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("2024-03-01", at(2024, 3, 1)),
        ("20240301", at(2024, 3, 1)),
        ("2024-03", at(2024, 3, 1)),
        ("2024", at(2024, 1, 1)),
        ("1813", at(1813, 1, 1)),
        ("2024-03-01T12:30:00Z", at(2024, 3, 1, 12, 30)),
        ("2024-03-01 12:30:00", at(2024, 3, 1, 12, 30)),
        ("2024-03-01T00:30:00+02:00", at(2024, 2, 29, 22, 30)),
        ("20190304123000", at(2019, 3, 4, 12, 30)),
        ("Mon, 04 Mar 2019 10:00:00 +0100", at(2019, 3, 4, 9)),
        ("Mon, 04 Mar 2019 10:00:00 GMT", at(2019, 3, 4, 10)),
        ("Mon, 04 Mar 2019", at(2019, 3, 4)),
        ("999999999", 999999999),
        ("1600000000", 1600000000),
        ("1600000000.25", 1600000000),
        ("1600000000123", 1600000000),
        ("1600000000123456", 1600000000),
        ("13/1/2001", at(2001, 1, 13)),
        ("1/13/2001", at(2001, 1, 13)),
        ("13.1.2001", at(2001, 1, 13)),
        ("5/5/2001 10:00", at(2001, 5, 5)),
        ("10/1/2024", at(2024, 1, 10)),  # the earlier of two readings
        ("2001/1/13", at(2001, 1, 13)),
        ("4 March 2019", at(2019, 3, 4)),
        ("March 4, 2019", at(2019, 3, 4)),
        ("Mar 4th, 2019", at(2019, 3, 4)),
        ("March 2019", at(2019, 3, 1)),
        *((text, None) for text in ("", "N/A", "unknown", "31/31/2001", "1/2/03", "99999", "²⁰²⁴", "2024-13-01")),
        ("1" * 99, None),
    ],
)  # fmt: skip
def test_a_date_is_read_or_none(date: str, seconds: int | None) -> None:
    assert parse_date(date) == seconds


@given(st.text(max_size=40) | st.text("0123456789-/.:TZ+ ,JanMr", max_size=30))
def test_no_text_breaks_it(text: str) -> None:
    found = parse_date(text)
    assert found is None or abs(found) < 2**40


def test_keys_are_ordered_as_time_is() -> None:
    dates = [None, "N/A", "0001-01-01", "1813", "9/1/2001", "999999999", "Mon, 04 Mar 2019", "1600000000", "10/1/2024"]
    keys = daft.from_pydict({"date": dates}).select(date_key(col("date")).alias("key")).to_pydict()["key"]
    assert keys[:2] == [NO_DATE, NO_DATE]
    assert sorted(keys[1:]) == keys[1:]
    assert len({*keys}) == len(keys) - 1
    (none,) = (
        daft.from_pydict({"date": daft.Series.from_pylist([None]).cast(daft.DataType.string())})
        .select(date_key(col("date")).alias("key"))
        .to_pydict()["key"]
    )
    assert none == NO_DATE

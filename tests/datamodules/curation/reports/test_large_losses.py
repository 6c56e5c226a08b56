"""Warnings of large losses, by documents, by bytes and over all steps."""

from typing import Any

import pytest

from datamodules.curation.reports.large_losses import large_losses


def source(left: list[tuple[int, int]], out: tuple[int, int], cut: int = 0) -> dict[str, Any]:
    """A summary's entry of 100 documents and 1,000 bytes, with what is left after each step and at the end."""
    came, rows = (100, 1000), []
    for number, after in enumerate(left):
        lost = {"documents": came[0] - after[0], "bytes": came[1] - after[1]}
        tally = {"documents": after[0], "bytes": after[1]}
        rows.append({"step": f"Step{number}", "dropped": {f"reason_{number}": lost}, "left": tally})
        came = after
    return {
        "in": {"documents": 100, "bytes": 1000},
        "out": {"documents": out[0], "bytes": out[1]},
        "cut": {"repeated_lines": cut, "repeated_spans": 0},
        "waterfall": rows,
    }


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (source([(40, 400)], (40, 400)), "Step0 dropped 60 of 100 documents, mostly as reason_0; "),
        (source([(99, 10)], (99, 10)), "Step0 dropped 990 of 1,000 bytes, mostly as reason_0; "),
        (source([(55, 550), (30, 300)], (30, 300)), "30 of 100 documents are left after all steps; "),
        (
            source([(100, 1000)], (100, 110), 890),
            "110 of 1,000 bytes are left after all steps (repeated_lines cut 890 characters); ",
        ),
    ],
)
def test_a_large_loss_is_said(entry: dict[str, Any], said: str) -> None:
    (line,) = large_losses({"web": entry})
    assert line.startswith(f"source web: {said}")


def test_a_source_that_keeps_half_is_no_warning() -> None:
    assert large_losses({"web": source([(75, 800), (50, 500)], (50, 500))}) == []
    assert large_losses({"web": source([(0, 0)], (0, 0))}) != []

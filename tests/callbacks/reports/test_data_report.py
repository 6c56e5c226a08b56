"""The page about a corpus shows what was counted, and shows hostile names as text."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from callbacks.reports.data_report import draw_histogram, flat_numbers, sections, write_data_report


def row(documents: int) -> dict[str, Any]:
    count = {"documents": documents, "bytes": 1000 * documents}
    return {
        "in": {"documents": 10, "bytes": 10_000}, "out": count, "validation": {"documents": 1, "bytes": 1000},
        "related": {"out": {"documents": 2, "bytes": 2000}, "validation": {"documents": 1, "bytes": 250}},
        "dropped": {"too_short": {"documents": 10 - documents, "bytes": 1000 * (10 - documents)}},
        "masked": {"email": 3}, "cut": {"repeated_spans": 77}, "licenses": {"<MIT>": count}, "languages": {"en": count},
        "waterfall": [
            {"step": "read", "about": "", "dropped": {}, "left": {"documents": 10, "bytes": 10_000}},
            {"step": "Length", "about": 'a "paper"', "dropped": {"too_short": {"documents": 4, "bytes": 4000}},
             "left": count},
        ],
    }  # fmt: skip


SUMMARY = {
    "sources": {"code": row(6)},
    "total": row(6),
    "measures": {
        "code": {
            "characters": {
                "edges": [0.0, 100.0, 200.0, 400.0],
                "counts": [4, 1, 0],
                "limits": [
                    {"reason": "too_short", "comparison": "<", "threshold": 300.0},
                    {"reason": "too_long", "comparison": ">", "threshold": 1e6},
                ],
            }
        }
    },
    "examples": {"too_short": [{"id": 7, "source": "code", "path": "<b>", "excerpt": "a\x00"}]},
    "kept_examples": [{"id": 8, "source": "code", "path": "kept.py", "excerpt": "import"}],
    "clusters": [{"size": 5, "id": 8, "path": "kept.py", "paths": ["<copy>"]}],
    "group_sizes": [{"size": 5, "groups": 3}],
    "warnings": ["source <code>: Length dropped 7 of 10 documents"],
    "stages": [{"stage": "judge code", "seconds": 1.0, "megabytes_per_second": 2.0}],
    "step_rates": {"code": [{"step": "Length", "seconds": 0.1, "bytes": 500_000, "megabytes_per_second": 5.0}]},
    "seconds": 2.0,
}


def test_a_histogram_holds_every_document_and_its_thresholds() -> None:
    drawn = draw_histogram("characters", **SUMMARY["measures"]["code"]["characters"])  # type: ignore[index]
    heights = [float(height) for height in re.findall(r'height="([\d.]+)"/>', drawn.svg)]
    assert heights == [90.0, 45.0]  # by square root, and nothing for an empty bin
    # Half-way through the last of three bins.
    (place,) = re.findall(r'<line x1="([\d.]+)"', drawn.svg)
    assert float(place) == pytest.approx(320 * 2.5 / 3, abs=0.1)
    assert drawn.limits == ["too_short: < 300", "too_long: > 1e+06 (beyond all)"]


def test_the_page_and_its_numbers(tmp_path: Path) -> None:
    path = write_data_report(SUMMARY, tmp_path, "a <corpus>")
    page = path.read_text(encoding="utf-8")
    for text in (
        "a &lt;corpus&gt;",
        "&lt;b&gt;",
        "&lt;MIT&gt;",
        "&lt;copy&gt;",
        "a\\x00",
        "kept.py",
        "too_short: &lt; 300",
        "source &lt;code&gt;: Length dropped 7 of 10 documents",
        "<td>25.0 %</td>",
        "<td>5</td><td>3</td><td>12</td>",
    ):
        assert text in page
    assert "<copy>" not in page
    assert "http" not in page
    assert page.count("<svg") == 1
    assert json.loads((tmp_path / "report.json").read_text()) == SUMMARY


def test_numbers_for_loggers() -> None:
    numbers = flat_numbers(SUMMARY)
    assert numbers["data/code/out/documents"] == 6
    assert numbers["data/all/dropped/too_short/bytes"] == 4000
    assert numbers["data/code/masked/email"] == 3
    assert numbers["data/all/languages/en/documents"] == 6
    assert numbers["data/code/left/read/documents"] == 10
    assert numbers["data/stages/judge code/megabytes_per_second"] == 2
    assert numbers["data/code/steps/Length/megabytes_per_second"] == 5
    assert flat_numbers({"rows": 3}) == {}
    assert sections({"rows": 3}) == {}

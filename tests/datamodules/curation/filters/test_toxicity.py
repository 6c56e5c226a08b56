"""Listed words are counted."""

from pathlib import Path

import pytest

from common.errors import InputError
from datamodules.curation.filters.toxicity import WordList
from tests.helpers.curation import filter_rows


def test_word_lists_that_cannot_work_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("# nothing\n")
    for paths, share, words in [
        ([str(tmp_path / "absent")], 0.0, "is no file"),
        ([], 0.0, "hold no word"),
        ([str(tmp_path / "empty")], 1.5, "max_share"),
    ]:
        with pytest.raises(InputError, match=words):
            WordList(paths, share)


def test_listed_words_are_counted_as_words_or_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("darn\nhot  Dog\n[x]\nc++\nlang<t>\n" + "".join(f"filler{i}\n" for i in range(1200)))
    texts: list[str | None] = ["darned darning", "Oh DARN it.", "a hot\ndog here", "filler1199 and", "", "fine"]
    shares = [row["listed_words"] for row in filter_rows(WordList([str(path)]), {"text": texts})]
    assert shares == pytest.approx([0, 1 / 3, 1 / 4, 1 / 2, 0, 0])
    rows = filter_rows(WordList([str(path)], 0.3, whole_words=False), {"text": [*texts, "[x] c++ lang<t>"]})
    assert [row["reason"] for row in rows] == [*["listed_words"] * 2, None, "listed_words", None, None, "listed_words"]

"""Every decision of datatrove's filters beside ours, filter by filter, with the cause of each difference.

Each filter is given one threshold at a time, so that a document that several rules would drop counts with each; the
words of a document on which the two part are compared as well, which tells another tokenizer from another definition.
"""

import functools
import json
from collections import Counter
from pathlib import Path
from typing import Any


def single_rules() -> dict[str, tuple[Any, Any]]:
    """Rule -> datatrove's filter with this rule alone, and our reason and step."""
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    from datamodules import C4Lines, C4Page, FineWebQuality, GopherQuality, GopherRepetition

    rules: dict[str, tuple[Any, Any]] = {}
    quality = {
        "min_doc_words": 50, "max_doc_words": 100000, "min_avg_word_length": 3, "max_avg_word_length": 10,
        "max_symbol_word_ratio": 0.1, "max_bullet_lines_ratio": 0.9, "max_ellipsis_lines_ratio": 0.3,
        "max_non_alpha_words_ratio": 0.8, "min_stop_words": 2,
    }  # fmt: skip
    reasons = {
        "min_doc_words": ["gopher_too_few_words"], "max_doc_words": ["gopher_too_many_words"],
        "min_avg_word_length": ["gopher_short_words"], "max_avg_word_length": ["gopher_long_words"],
        "max_symbol_word_ratio": ["gopher_hashes", "gopher_ellipses"],
        "max_bullet_lines_ratio": ["gopher_bullet_lines"],
        "max_ellipsis_lines_ratio": ["gopher_ellipsis_lines"],
        "max_non_alpha_words_ratio": ["gopher_few_alphabetic_words"], "min_stop_words": ["gopher_few_stop_words"],
    }  # fmt: skip
    for name, value in quality.items():
        alone = GopherQualityFilter(**(dict.fromkeys(quality) | {name: value}))
        rules[" or ".join(reasons[name])] = alone, (GopherQuality(), reasons[name])
    parts = {
        "dup_line_frac": (0.3, "gopher_duplicate_lines"), "dup_para_frac": (0.3, "gopher_duplicate_paragraphs"),
        "dup_line_char_frac": (0.2, "gopher_duplicate_line_characters"),
        "dup_para_char_frac": (0.2, "gopher_duplicate_paragraph_characters"),
    }  # fmt: skip
    off: dict[str, Any] = {**dict.fromkeys(parts), "top_n_grams": (), "dup_n_grams": ()}
    for name, (value, reason) in parts.items():
        rules[reason] = GopherRepetitionFilter(**(off | {name: value})), (GopherRepetition(), [reason])
    for n, value in ((2, 0.2), (3, 0.18), (4, 0.16)):
        reason = f"gopher_top_{n}_gram"
        rules[reason] = GopherRepetitionFilter(**(off | {"top_n_grams": ((n, value),)})), (GopherRepetition(), [reason])
    for n, value in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10)):
        reason = f"gopher_duplicate_{n}_grams"
        rules[reason] = GopherRepetitionFilter(**(off | {"dup_n_grams": ((n, value),)})), (GopherRepetition(), [reason])
    never = {"line_punct_thr": 0.0, "short_line_thr": 1.0, "char_duplicates_ratio": 1.0, "new_line_ratio": float("inf")}
    for name, value, reason in (
        ("line_punct_thr", 0.12, "fineweb_few_terminal_lines"), ("short_line_thr", 0.67, "fineweb_short_lines"),
        ("char_duplicates_ratio", 0.01, "fineweb_repeated_lines"), ("new_line_ratio", 0.3, "fineweb_line_feeds"),
    ):  # fmt: skip
        rules[reason] = FineWebQualityFilter(**(never | {name: value})), (FineWebQuality(), [reason])
    lines = C4Lines(min_words=3, end_marks=".?!\"'")
    pages = {"filter_lorem_ipsum": False, "filter_curly_bracket": False, "min_num_sentences": -1}
    for name, on, reason in (
        ("filter_lorem_ipsum", True, "c4_placeholder"), ("filter_curly_bracket", True, "c4_curly_bracket"),
        ("min_num_sentences", 5, "c4_few_sentences"),
    ):  # fmt: skip
        rules[reason] = C4QualityFilter(**(pages | {name: on})), (C4Page(min_sentences=5), [reason, lines])
    rules["c4_lines"] = C4QualityFilter(**pages), (None, [lines])
    return rules


def compare_rules(folder: Path) -> dict[str, Any]:
    """Share of documents on which each rule agrees, and every disagreement sorted by its cause."""
    import numpy as np
    from datatrove.data import Document
    from datatrove.utils.text import split_into_words

    from datamodules.curation.filters.base import COMPARISONS
    from datamodules.curation.words.split import words_of

    rules = single_rules()
    texts = [
        json.loads(line)["text"] for path in sorted(folder.glob("*.jsonl")) for line in path.open(encoding="utf-8")
    ]

    def buffered(some: list[str]) -> tuple[Any, Any]:
        raw = [text.encode() for text in some]
        return np.frombuffer(b"".join(raw), dtype=np.uint8), np.cumsum([0, *map(len, raw)])

    def unbuffered(content: Any, offsets: Any) -> list[str]:
        whole = content.tobytes()
        return [whole[a:b].decode() for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]

    @functools.cache
    def ours(kind: str, lined: bool) -> dict[str, Any]:
        """Measurements by name, of the texts as they are or with C4's lines."""
        step = next(made for made, _ in (mine for _, mine in rules.values()) if type(made).__name__ == kind)
        content = kept_texts if lined else texts
        names = [limit.measure for limit in step.thresholds().values()]
        from datamodules.curation.filters import c4, fineweb, gopher

        order = {
            "GopherQuality": gopher.QUALITY, "GopherRepetition": gopher.REPETITION, "FineWebQuality": fineweb.MEASURES,
            "C4Page": c4.PAGE_MEASURES,
        }[kind]  # fmt: skip
        values = step.measure(*buffered(content))
        return {name: values[:, order.index(name)] for name in names}

    kept_texts = unbuffered(*rules["c4_lines"][1][1][0].keep(*buffered(texts)))
    report: dict[str, Any] = {}
    same_words: dict[int, bool] = {}
    for number, text in enumerate(texts):
        for rule, (filter_, (step, about)) in rules.items():
            document = Document(text=text, id="0")
            verdict = filter_.filter(document)
            row = report.setdefault(
                rule, {"documents": 0, "dropped": 0, "agree": 0, "causes": Counter(), "examples": []}
            )
            row["documents"] += 1
            if step is None:
                theirs, mine, shown = document.text.strip(), kept_texts[number].strip(), ""
                row["dropped"] += theirs != text
            else:
                lined = type(step).__name__ == "C4Page"
                thresholds = [step.thresholds()[reason] for reason in about if isinstance(reason, str)]
                values = [float(ours(type(step).__name__, lined)[limit.measure][number]) for limit in thresholds]
                theirs = verdict is not True
                mine = any(
                    COMPARISONS[limit.comparison](value, limit.threshold)  # type: ignore[arg-type]
                    for limit, value in zip(thresholds, values, strict=True)
                )
                shown = ", ".join(
                    f"{limit.measure}={value:.6g}" for limit, value in zip(thresholds, values, strict=True)
                )
                row["dropped"] += theirs
            if theirs == mine:
                row["agree"] += 1
                continue
            if number not in same_words:
                same_words[number] = words_of(text) == split_into_words(text)
            cause = "the same words, another definition" if same_words[number] else "other words"
            row["causes"][cause] += 1
            if len(row["examples"]) < 5:
                row["examples"].append({"document": number, "theirs": str(theirs)[:80], "ours": f"{mine} {shown}"[:120],
                                        "cause": cause, "excerpt": text[:80]})  # fmt: skip
    for row in report.values():
        row["share_agreeing"] = round(row.pop("agree") / row["documents"], 5)
    differing = sum(not same for same in same_words.values())
    return {"rules": report, "documents_compared_word_by_word": len(same_words), "with_other_words": differing}

"""Words of the house: one word for one thing, the field's own, in American spelling."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SEARCHED = (
    "*.py",
    "*.md",
    "*.yaml",
    "*.yml",
    "*.j2",
    "*.jinja",
    "*.toml",
    "*.cff",
    "benchmarks/*.json",
    "Makefile",
    ":!benchmarks/data/curation*.json",
)
COUNTED = (
    "nats|bits|bytes|tokens|words|documents|pairs|rows|samples|windows|episodes|prompts|responses|steps|updates|FLOPs|"
    "seconds|minutes|hours|milliseconds|microseconds|nanoseconds|megabytes|gigabytes|dollars|stages|micro-batches|"
    r"once|[\d.]+ ?[kMGT]?i?B|[\d.]+ ?[mun]?s|Gb/s|thread|forward pass"
)
UNITS = (
    "second|minute|hour|token|response|document|pair|row|line|prompt|step|batch|micro-batch|sample|window|file|byte|"
    "word|parameter|rank|process|thread|core|device|GPU|node|stage|run|update"
)
STEMS = (
    "apolog|author|binar|canonical|categor|central|character|critic|custom|digit|discret|emphas|equal|factor|final|"
    "general|global|initial|item|linear|local|material|maxim|memor|minim|modern|normal|optim|organ|orthogonal|parallel|"
    "penal|personal|prior|quant|random|real|recogn|regular|serial|special|stabil|standard|summar|symbol|synchron|"
    "token|util|vector|visual"
)
BRITISH = "|".join(
    (
        rf"\w*({STEMS})is(e|ed|es|er|ers|ing|able|ation|ations)",
        r"\w*(arm|behavi|col|endeav|fav|flav|harb|hon|hum|lab|neighb|rum|vap)our\w*",
        r"\w*(cancel|channel|dial|fuel|label|level|model|signal|total|travel|tunnel)l(ed|ing|er|ers|ation)",
        r"(cent|fib|lit|met|theat|calib|spect)re[sd]?|centring",
        r"(lic|def|off|pret)ences?",
        r"(anal|paral|catal)ys(e|ed|es|ing)",
        "(anal|catal|dial|monol|prol)ogues?",
        "(to|after|back|for|up|down|in|out)wards",
        "(arte)facts?|(judge|acknowledge)ments?|(ful|skil)fil|enrol|ageing|grey|learnt|spelt|whilst|amongst|fortnight|maths",
        "programmes?|sceptic\\w*|tyres?|ploughs?|cheques?|moulds?",
    )
)
RULES = {
    "response": r"(?<![a-z])(completions?|answers?)(?![a-z])",
    "validation": r"(?<![a-z])held[ _-]out(?![a-z])",
    "KL": r"(?<!kl )(?<![a-z])divergences?(?![a-z])",
    "curation": r"(?<![a-z])cleaning(?![a-z])",
    "per": rf"(?<![a-z])({COUNTED})[ _]an?[ _]({UNITS})(?![a-z])",
    "plain verb": r"(?<![a-z])(stands?(?!-in)|dealt|mended|(is|are|was|what is|unless) told)(?![a-z])",
    "no one, none": r"(?<![a-z])nobody(?![a-z])",
    "who, the one that": r"(?<![a-z])whoever(?![a-z])",
    "again, new": r"(?<![a-z])anew(?![a-z])",
    "American": rf"(?<![a-z])({BRITISH})(?![a-z])",
}
"""What to write, and what is not to be written in its place; small and capital letters alike."""
RIGHT_ANSWERS = (
    "SECURITY.md",
    "alignment/rewards/",
    "benchmarks/README.md",
    "benchmarks/alignment/reinforcement.py",
    "commands/models/evaluate.py",
    "configs/align/grpo_brackets.yaml",
    "configs/align/ppo_brackets.yaml",
    "configs/align/ppo_quickstart.yaml",
    "configs/align/sft_brackets.yaml",
    "configs/recipes/quickstart.yaml",
    "datamodules/conversations/multiple_choice.py",
    "datamodules/conversations/synthetic_tasks.py",
    "datamodules/curation/filters/decontaminate.py",
    "docs/alignment/reinforcement.md",
    "models/inference/likelihood.py",
    "tests/",
)
"""Files about questions with one right answer, and what checks it: the field's word there."""
ALLOWED: dict[str, tuple[str, ...]] = {
    "response": (
        *RIGHT_ANSWERS,
        "alignment/constitutional/ai_feedback.py",  # speech to a model, in everyday words
        "configs/constitution/principles.yaml",
        "alignment/constitutional/choice_parsing.py",  # OpenAI's names
        "alignment/constitutional/endpoint_judge.py",
        "benchmarks/alignment/alignment_against_trl.py",  # TRL's names
        "benchmarks/alignment/rollouts_against_trl.py",
    ),
    "American": (
        "datamodules/readers/installed.py",  # a file may be called LICENCE
        "tests/commands/test_suggestions.py",  # a user's mistake
    ),
}
"""Rule to the files, or folders, in which its words are quotations, a name of somebody else, or a data set's own."""
ABOUT_WORDS = ("CHANGELOG.md", "tests/test_words.py", "tests/test_docs.py")
"""Files that name words in order to say that they are gone."""


def searched_files() -> list[str]:
    """Tracked text files, relative to the root."""
    listed = subprocess.run(["git", "ls-files", *SEARCHED], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.splitlines() if name not in ABOUT_WORDS and (ROOT / name).is_file()]


def occurrences(pattern: str, text: str) -> list[str]:
    """Every place where a pattern matches, with what is around it; a line's end counts as a space."""
    joined = re.sub(r"\s*\n\s*(?:# )?", " ", text)
    found = re.finditer(pattern, joined, flags=re.IGNORECASE)
    return [joined[max(one.start() - 30, 0) : one.end() + 20] for one in found]


@pytest.mark.parametrize("rule", RULES)
def test_words_of_the_house(rule: str) -> None:
    wrong, allowed = [], set()
    for name in searched_files():
        found = occurrences(RULES[rule], (ROOT / name).read_text(encoding="utf-8"))
        prefix = next((each for each in ALLOWED.get(rule, ()) if name.startswith(each)), None)
        if prefix is None:
            wrong += [f"{name}: ...{place}..." for place in found]
        elif found:
            allowed.add(prefix)
    assert not wrong, f"write {rule}:\n" + "\n".join(wrong)
    assert allowed == set(ALLOWED.get(rule, ())), "files that need no exception any more"


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("response", "class Completion:"),
        ("response", "the model's answer"),
        ("validation", '"held_out": 3'),
        ("KL", "divergence from the reference"),
        ("per", "tokens a second"),
        ("per", "about 50 bytes\n    a word"),
        ("per", "seconds_a_step"),
        ("plain verb", "the trade-off stands"),
        ("American", "normalise_text"),
        ("American", "neighbouring"),
        ("American", "licences"),
        ("American", "towards"),
    ],
)
def test_the_rules_see_a_word(rule: str, text: str) -> None:
    assert occurrences(RULES[rule], text)


@pytest.mark.parametrize(
    "text",
    ["answerable", "the KL\n    divergence", "otherwise, raised noise", "a standard", "centered", "a licensed source"],
)
def test_the_rules_pass_over_others(text: str) -> None:
    assert not any(occurrences(pattern, text) for pattern in RULES.values())


def test_micro_batches_are_called_so() -> None:
    """Elsewhere a piece may be one of SentencePiece's, or a part of the corpus on disk."""
    for path in sorted((ROOT / "alignment/reinforcement").rglob("*.py")):
        assert not occurrences(r"(?<![a-z])pieces?(?![a-z])", path.read_text(encoding="utf-8")), path.name

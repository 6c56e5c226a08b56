"""Dependencies of a stage: source code, files and settings."""

import json
import os
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from commands.recipe.dependencies import Dependencies, files_of, flatten, sources_of
from common.fingerprint import ast_fingerprint, import_closure
from tests.helpers.corpus import ROOT
from tests.helpers.recipes import values


def test_sources_are_those_that_are_imported() -> None:
    def of(*classes: str) -> set[str]:
        return {*sources_of({f"{number}.class_path": name for number, name in enumerate(classes)}, [])}

    model, policy = of("models.LanguageModel"), of("alignment.PreferencePolicy")
    assert (
        {"models/language_model.py", "models/decoder.py", "models/attention.py", "common/constants.py"}
        <= model
        < policy
    )
    assert {
        "alignment/preferences/preference_policy.py",
        "alignment/preferences/losses.py",
        "alignment/preferences/checks.py",
    } <= policy
    assert not any(name.startswith(("alignment", "datamodules", "callbacks")) for name in model)
    assert not any(name.startswith(("datamodules", "callbacks")) for name in policy)
    assert "datamodules/conversations/templates/plain.jinja" in of("datamodules.SFTData")
    assert of("lightning.pytorch.callbacks.Timer") == set()
    assert not any(path.name == "report.py" for path in import_closure([ROOT / "commands/compare/command.py"]))


def test_a_comment_changes_nothing_a_number_does(tmp_path: Path) -> None:
    def fingerprint_of(name: str, source: str) -> str:
        (tmp_path / name).write_text(source)
        return ast_fingerprint(tmp_path / name)

    plain = fingerprint_of("a.py", "def f(x):\n    return x + 1\n")
    assert (
        fingerprint_of("b.py", '"""About f."""\n\ndef f(x):\n    """More."""\n    # one\n    return (x + 1)\n') == plain
    )
    assert fingerprint_of("c.py", "def f(x):\n    return x + 2\n") != plain
    assert fingerprint_of("d.py", 'def f(x):\n    """Nothing else."""\n') == fingerprint_of(
        "e.py", "def f(x):\n    pass"
    )


def test_files_that_a_configuration_names_count_by_their_content(tmp_path: Path) -> None:
    rows, folder, output = tmp_path / "rows.jsonl", tmp_path / "texts", tmp_path / "run"
    for place in (folder, output):
        place.mkdir()
        (place / "a.txt").write_text("a")
    rows.write_text("{}")
    flat = flatten(
        {
            "data": {
                "paths": [str(rows), str(folder)],
                "folder": str(tmp_path),
                "tokenizer": str(output),
                "name": "plain",
            }
        }
    )
    before = files_of(flat, [output])
    assert {*before} == {str(rows), str(folder)}
    os.utime(rows, (0, 0))
    assert files_of(flat, [output]) == before
    (folder / "b.txt").write_text("b")
    rows.write_text("{ }")
    after = files_of(flat, [output])
    assert all(before[name] != after[name] for name in before)
    old, new = (Dependencies(flat, files, {}, {}) for files in (before, after))
    assert new.difference_from(old) == f"{rows} changed; {folder} changed"


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), values, max_size=4))
def test_a_flat_configuration_tells_values_apart(configuration: dict[str, Any]) -> None:
    flat = flatten(configuration)
    assert all(not isinstance(value, dict | list) for value in flat.values())
    made = Dependencies(flat, {}, {}, {})
    assert Dependencies(**json.loads(json.dumps(made.__dict__))).fingerprint == made.fingerprint
    assert Dependencies(flat | {"x.y": 1}, {}, {}, {}).fingerprint != made.fingerprint

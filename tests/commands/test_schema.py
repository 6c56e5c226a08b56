"""The JSON schema of configurations: it accepts all that are shipped and refuses mistyped ones."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from commands.cli import main
from commands.schema import configuration_schema, function_schema
from tests.helpers.corpus import ROOT

FOLDERS = ("configs", "pretrain", "align", "curation", "layouts", "debug")


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = configuration_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_every_shipped_configuration_is_valid(validator: Any) -> None:
    paths = [path for path in (ROOT / "configs").rglob("*.yaml") if path.parent.name in FOLDERS]
    assert len(paths) > 25
    for path in paths:
        found = [error.message for error in validator.iter_errors(yaml.safe_load(path.read_text(encoding="utf-8")))]
        assert not found, f"{path.name}: {found}"


@pytest.mark.parametrize(
    "mistake",
    [
        {"trianer": {}},
        {"trainer": {"max_stepz": 1}},
        {"trainer": {"max_steps": "many"}},
        {"trainer": {"callbacks+": [{"class_path": "callbacks.Thruput"}]}},
        {"model": {"class_path": "models.Nothing"}},
        {"model": {"class_path": "models.LanguageModel", "init_args": {"decodr": {}}}},
        {"data": {"class_path": "datamodules.PretrainingData", "init_args": {"sequence_length": "long"}}},
    ],
)
def test_a_mistyped_configuration_is_invalid(validator: Any, mistake: dict[str, Any]) -> None:
    assert list(validator.iter_errors(mistake))


@pytest.mark.end_to_end
def test_keys_are_described_by_their_docstrings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["schema", "--output", str(tmp_path / "schema.json")])
    written = yaml.safe_load((tmp_path / "schema.json").read_text(encoding="utf-8"))
    width = written["$defs"]["models.config.DecoderConfig"]["anyOf"]
    described = [option["properties"]["width"] for option in width if "width" in option.get("properties", {})]
    assert described
    assert described[0]["type"] == "integer"
    assert described[0]["description"]


@pytest.mark.parametrize(
    ("command", "folder", "mistakes"),
    [
        ("recipe", "recipes", [{"stagez": []}, {"stages": [{"name": "a", "comand": "fit"}]}, {"dry_run": True}]),
        (
            "constitution",
            "constitution",
            [{"samplez": 3}, {"batch_size": "many"}, {"judge": {"class_path": "alignment.X"}}],
        ),
        ("compare", "absent", [{"modelz": {}}, {"precision": "half"}, {"samples": 1.5}]),
    ],
)
def test_files_of_other_commands(command: str, folder: str, mistakes: list[dict[str, Any]]) -> None:
    described = function_schema(command)
    jsonschema.Draft202012Validator.check_schema(described)
    validator = jsonschema.Draft202012Validator(described)
    for path in (ROOT / "configs" / folder).glob("*.yaml"):
        if path.stem != "principles":
            found = [one.message for one in validator.iter_errors(yaml.safe_load(path.read_text(encoding="utf-8")))]
            assert not found, f"{path.name}: {found}"
    for mistake in mistakes:
        assert list(validator.iter_errors(mistake)), mistake

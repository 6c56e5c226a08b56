"""Commands that need only data read `data` of a configuration and nothing else of it."""

from pathlib import Path

import pytest
import yaml

from commands.cli import main
from commands.resolve import resolve_config
from tests.helpers.command_line import refused
from tests.helpers.corpus import Configure


@pytest.mark.end_to_end
def test_data_alone_is_enough_and_the_rest_is_not_read(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = configure()
    loaded = yaml.safe_load(whole.read_text(encoding="utf-8"))
    alone = tmp_path / "data.yaml"
    alone.write_text(yaml.safe_dump({"data": loaded["data"]}), encoding="utf-8")
    other = tmp_path / "other.yaml"
    # No class is called so: what is not read cannot be wrong.
    other.write_text(yaml.safe_dump(loaded | {"model": {"class_path": "models.Nothing"}}), encoding="utf-8")
    prepared = []
    for config in (alone, whole, other):
        main(["prepare", "--config", str(config), "--trainer.devices=64", "--model.class_path", "models.Nothing"])
        prepared.append(capsys.readouterr().out.split("prepared: ")[1].splitlines()[0])
    assert len(set(prepared)) == 1
    assert Path(prepared[0]).is_dir()
    main(["inspect", "--config", str(alone), "--samples", "1"])
    assert capsys.readouterr().out
    main(["export", "--config", str(alone), "--output", str(tmp_path / "megatron")])
    assert list((tmp_path / "megatron").glob("*.bin"))


@pytest.mark.end_to_end
def test_a_mistake_in_data_gets_one_line(configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    config = configure()
    line = refused(["prepare", "--config", config, "--data.init_args.sequence_lenght=3"], capsys)
    assert "did you mean sequence_length?" in line


def test_the_resolved_configuration_is_that_of_the_data(configure: Configure) -> None:
    resolved, sources = resolve_config(["prepare", "--config", str(configure())])
    assert resolved["data"]["class_path"] == "datamodules.PretrainingData"
    assert "model" not in resolved
    assert sources == []

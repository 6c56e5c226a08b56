"""Mistyped names get the names that exist."""

import pytest
import yaml

from commands.cli import main
from commands.mistakes import did_you_mean
from tests.helpers.command_line import refused
from tests.helpers.corpus import Configure


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("--model.class_path=models.LanguageModle", "models.LanguageModle: did you mean models.LanguageModel?"),
        ("--model.class_path=LanguageModle", "LanguageModle: did you mean models.LanguageModel?"),
        ("--model.class_path=alignment.LanguageModel", "did you mean models.LanguageModel?"),
        ("--model.class_path=alignment.GAE", "alignment.GAE is not a LightningModule"),
        ("--model.init_args.optimizer.class_path=models.Adam", "models.Adam: did you mean models.AdamW?"),
        ("--model.init_args.optimizer.init_args.learning_rte=3", "learning_rte: did you mean learning_rate?"),
        ("--model.init_args.decoder.widht=3", "called model.init_args.decoder.widht: did you mean width?"),
        ("--trainer.max_stepz=3", "trainer.max_stepz: did you mean --trainer.max_steps?"),
        ("--trianer.max_steps=3", "trianer.max_steps: did you mean --trainer.max_steps?"),
        ("--trainer.max_steps=abc", "error: trainer.max_steps=abc: must be a whole number"),
        ("--trainer.limit_val_batches=abc", "trainer.limit_val_batches=abc: must be a number or null"),
        ("--trainer.callbacks=3.5", "trainer.callbacks=3.5: must be a list or a Callback or null"),
        (
            "--data.init_args.sources.stories.weight=heavy",
            "data.init_args.sources.stories.weight=heavy: must be a number",
        ),
        ("--data.init_args.engine=spark", "data.init_args.engine=spark: must be native or ray"),
        ("--print_config=foo", "--print_config=foo: it takes no value"),
        ("--data.help=datamodules.SFTDat", "--data.help: no class is called datamodules.SFTDat: did you mean"),
        ("configs/quickstart.yaml", "configs/quickstart.yaml: give it as --config configs/quickstart.yaml"),
        ("quickstart", "quickstart: options begin with --"),
        ("--model.init_args.decoder.width=abc", "model.init_args.decoder.width=abc: must be a whole number"),
    ],
)
def test_a_mistyped_option(configure: Configure, capsys: pytest.CaptureFixture[str], change: str, said: str) -> None:
    assert said in refused(["fit", "--config", configure(), change], capsys)


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("overlay", "said"),
    [
        ({"modle": {"class_path": "models.LanguageModel"}}, "no key is called modle in FILE: did you mean model?"),
        ({"trainer": {"max_stesp": 3}}, "no key is called trainer.max_stesp in FILE: did you mean max_steps?"),
        (
            {"model": {"init_args": {"decoder": {"widht": 3}}}},
            "no key is called model.init_args.decoder.widht in FILE: did you mean width?",
        ),
        (
            {"data": {"init_args": {"sources": {"notes": {"weight": "heavy"}}}}},
            "data.init_args.sources.notes.weight=heavy in FILE: must be a number",
        ),
        (
            {"data": {"init_args": {"sources": {"notes": {"steps": {"class_path": "datamodules.Length"}}}}}},
            "data.init_args.sources.notes.steps={'class_path': 'datamodules.Length'} in FILE: must be a list",
        ),
        ({"data": {"init_args": {"sources": {"notes": None}}}}, "must be a TextSource, give class_path and init_args"),
        (
            {"data": {"init_args": {"sources": {"notes": {"reader": {"class_path": "datamodules.Filse"}}}}}},
            "data.init_args.sources.notes.reader in FILE: no class is called datamodules.Filse: did you mean",
        ),
        (
            {"data": {"init_args": {"sources": {name: {"wieght": 1} for name in ("notes", "stories")}}}},
            "wieght (given as data.init_args.sources.notes.wieght in FILE, data.init_args.sources.stories.wieght in",
        ),
        (
            {"model": {"init_args": {"optimiser": {"class_path": "models.AdamW"}}}},
            "no key is called model.init_args.optimiser in FILE: did you mean optimizer?",
        ),
        ({"trainer": {"callbacks+": [{"class_path": "callbacks.Thruput"}]}}, "did you mean callbacks.Throughput?"),
        (
            {"data": {"init_args": {"sources": {"notes": {"steps": [{"class_path": "datamodules.Lenght"}]}}}}},
            "did you mean datamodules.Length?",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistyped_name_in_yaml(
    configure: Configure, capsys: pytest.CaptureFixture[str], overlay: dict[str, object], said: str
) -> None:
    config = configure()
    path = config.with_name("overlay.yaml")
    path.write_text(yaml.safe_dump(overlay), encoding="utf-8")
    assert said.replace("FILE", str(path)) in refused(["fit", "--config", config, "--config", path], capsys)


@pytest.mark.end_to_end
def test_files_are_named_as_they_were_given(
    configure: Configure, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative to the working directory, in whatever folder the parser works."""
    config = configure()
    monkeypatch.chdir(config.parent)
    other = config.parent / "further/overlay.yaml"
    other.parent.mkdir()
    other.write_text("model: {init_args: {decoder: {widht: 3}}}\n", encoding="utf-8")
    line = refused(["fit", "--config", config.name, "--config", "further/overlay.yaml"], capsys)
    assert "no key is called model.init_args.decoder.widht in further/overlay.yaml: did you mean width?" in line


@pytest.mark.end_to_end
def test_a_mistyped_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["evalute"])
    assert raised.value.code == 2
    assert capsys.readouterr().err == "error: no command is called evalute: did you mean evaluate?\n"


def test_names_that_are_nothing_alike_are_not_suggested() -> None:
    assert did_you_mean("Nothing", ["models.AdamW", "models.Muon"]) == ""
    assert did_you_mean("widht", ["width", "layers", "heads"]) == ": did you mean width?"

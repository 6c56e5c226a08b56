"""The command line as a user meets it: processes of their own for what must survive a kill, in process for the rest."""

import json
import re
import shutil
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from commands.training.lightning_cli import build_cli
from common.run_folder import read_metrics
from main import main
from models.config import DecoderConfig
from models.initialization import build_decoder
from models.weights.single_file import write_safetensors
from models.weights.source import WeightSource
from tests.helpers.command_line import learned, refused
from tests.helpers.corpus import ROOT, Configure
from tests.helpers.distributed import Command


@pytest.mark.end_to_end
def test_a_killed_run_continues_exactly(configure: Configure, tmp_path: Path) -> None:
    config = configure()
    whole = Command(tmp_path, "fit", "--config", config, "--trainer.default_root_dir", tmp_path / "whole")
    output, errors = whole.communicate(timeout=120)
    assert whole.returncode == 0, errors
    assert "validation bits per byte" in output

    run = tmp_path / "killed"
    killed = Command(tmp_path, "fit", "--config", config, "--trainer.default_root_dir", run)
    deadline = time.monotonic() + 100
    while not (run / "checkpoints/step=8.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    killed.kill()
    killed.communicate()
    assert not (run / "report.html").exists()

    again = Command(tmp_path, "fit", "--config", config, "--trainer.default_root_dir", run)
    output, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    assert f"continuing from {run}/checkpoints/step=8.ckpt" in output
    assert "reusing" in output + errors
    assert learned(run) == learned(tmp_path / "whole")
    assert [json.loads(line) for line in (run / "samples.jsonl").open()] == [
        json.loads(line) for line in (tmp_path / "whole/samples.jsonl").open()
    ]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step=12.ckpt", "step=8.ckpt"]
    assert "<svg" in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.end_to_end
def test_preparation_killed_anywhere_gives_the_same_shards(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure()
    main(["prepare", "--config", str(config)])
    expected = Path(capsys.readouterr().out.split("prepared: ")[1].splitlines()[0])
    folder, kills = tmp_path / "data", 0
    for stage in ("documents", "tokenizer", "shards"):
        process = Command(tmp_path, "prepare", "--config", config, "--data.init_args.folder", folder)
        while process.poll() is None and not list(folder.glob(f".{stage}-*.partial")):
            time.sleep(0.001)
        process.kill()
        _, errors = process.communicate()
        # The tokenizer of this corpus is there in an instant, which a busy machine may let pass.
        assert process.returncode in (0, -9), errors
        kills += process.returncode == -9
        assert not list(folder.glob("shards-*")) or (folder / expected.name).exists()
    assert kills
    process = Command(tmp_path, "prepare", "--config", config, "--data.init_args.folder", folder)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert not list(folder.glob(".*.partial"))
    made = {path.name: path.read_bytes() for path in (folder / expected.name).iterdir()}
    assert made == {path.name: path.read_bytes() for path in expected.iterdir()}
    assert len(made) > 4


@pytest.mark.end_to_end
def test_every_command_works_on_a_trained_run(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(configure(trainer__max_steps=4))
    main(["fit", "--config", config])
    facts = json.loads((tmp_path / "run/run.json").read_text())
    assert facts["steps"] == 4
    assert facts["matmul_peak_flops"] == 1e11
    rates = [float(row[3]) for row in read_metrics(tmp_path / "run") if row[2] == "throughput/share_of_peak"]
    assert len(rates) == 4
    assert all(0 < rate < 1 for rate in rates)
    capsys.readouterr()
    main(["generate", "--input", str(tmp_path / "run"), "--prompt", "Ba", "--max_new_tokens", "5", "--samples", "2"])
    assert capsys.readouterr().out.count("Ba") >= 2
    for command in ("validate", "test", "predict", "report"):
        main([command, "--config", config])
    rows = [json.loads(line) for line in (tmp_path / "run/predictions-0.jsonl").open()]
    assert {row["source"] for row in rows} == {"stories", "notes"}
    assert all(0 < row["bits_per_byte"] < 20 for row in rows)
    logged = learned(tmp_path / "run")
    main(["fit", "--config", config])
    assert "already trained to step 4" in capsys.readouterr().out
    assert learned(tmp_path / "run") == logged
    changed = ["--data.init_args.validation_fraction", "0.2", "--data.init_args.folder", str(tmp_path / "other")]
    assert "was trained on other data (shards " in refused(["fit", "--config", config, *changed], capsys)
    line = refused(["fit", "--config", config, "--resume", "false"], capsys)
    assert "resume=false" in line
    line = refused(["fit", "--config", config, "--model.init_args.decoder.width", "64"], capsys)
    assert "width 32 -> 64" in line


@pytest.mark.end_to_end
def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["--help"])
    assert raised.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("fit", "validate", "test", "predict", "prepare", "generate", "report"))


@pytest.mark.end_to_end
def test_configurations_are_layered_and_printed(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(
        "model: {init_args: {schedule: {class_path: models.Cosine, init_args: {final_fraction: 0.5}}}}\n"
    )
    with pytest.raises(SystemExit) as raised:
        main(["fit", "--config", str(configure()), "--config", str(overlay), "--trainer.max_steps=7", "--print_config"])
    assert raised.value.code in (0, None)
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["trainer"]["max_steps"] == 7
    assert printed["model"]["init_args"]["schedule"]["class_path"].endswith("Cosine")
    assert printed["model"]["init_args"]["schedule"]["init_args"]["final_fraction"] == 0.5
    assert printed["model"]["init_args"]["decoder"]["width"] == 32


RUNS = [
    path for path in sorted((ROOT / "configs").rglob("*.yaml")) if path.parent.name in ("configs", "pretrain", "align")
]


@pytest.mark.end_to_end
@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_every_shipped_configuration_instantiates(path: Path, tmp_path: Path, base_run: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.match(rf"# python main.py (fit|test) --config {path.relative_to(ROOT)}", text)
    begin = [f"--model.init_args.init_from={base_run}"] if "init_from: " in text else []
    if "RewardEnsemble" in text or "RewardModelScore" in text:
        stored = WeightSource(base_run)
        config = DecoderConfig(**stored.config | {"scalar_output": True, "tied_embeddings": False})
        tensors = {f"decoder.{name}": p.detach() for name, p in build_decoder(config).named_parameters()}
        member = tmp_path / "member.safetensors"
        write_safetensors(tensors, asdict(config), member)
        shutil.copyfile(base_run / "tokenizer.model", tmp_path / "tokenizer.model")
        if "RewardEnsemble" in text:
            begin = [f"--model.init_args.init_from=[{member}]"]
        else:
            begin += [f"--model.init_args.reward.init_args.init_from={member}"]
            begin += [f"--model.init_args.critic_init_from={member}"]
    cli = build_cli(["--config", str(path), f"--trainer.default_root_dir={tmp_path}", *begin], run=False)
    assert cli.model.config.vocabulary_size == cli.datamodule.vocabulary_size


@pytest.mark.end_to_end
def test_a_checkpoint_is_validated_beside_the_callbacks_of_the_quickstart(
    base_run: Path, configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    callbacks = yaml.safe_load((ROOT / "configs/quickstart.yaml").read_text(encoding="utf-8"))["trainer"]["callbacks+"]
    assert "callbacks.Goodput" in [callback["class_path"] for callback in callbacks]
    trained = yaml.safe_load((base_run / "config.yaml").read_text(encoding="utf-8"))
    shape = trained["model"]["init_args"]["decoder"]
    config = configure(trainer__callbacks=callbacks, model__init_args__decoder=shape)
    main(["validate", "--config", str(config), "--ckpt_path", str(base_run / "checkpoints/step=12.ckpt")])
    assert "validation/bits_per_byte/all" in capsys.readouterr().out


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (["--trainer.max_stepz", "3"], "max_stepz"),
        (["--model.init_args.decoder.key_value_heads", "3"], "key_value_heads=3 does not divide heads=2"),
        (["--model.init_args.decoder.heads", "5"], "heads=5 does not divide width=32"),
        (["--model.init_args.z_loss", "-1"], "z_loss=-1"),
        (["--data.init_args.sequence_length", "1"], "sequence_length=1"),
        (["--data.init_args.tokenizer.vocabulary_size", "100"], "vocabulary_size=100"),
        (["--data.init_args.tokenizer.vocabulary_size", "60000"], "vocabulary_size=60000 cannot be filled"),
        (["--data.init_args.sequence_length", "100000"], "holds no whole window"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--data.init_args.sources.notes.weight", "-2"], "weight=-2"),
        (["--data.init_args.seed", "-1"], "seed=-1"),
        (["--trainer.max_steps", "-1"], "max_steps=-1"),
        (["--trainer.devices", "-1"], "trainer: `devices`"),
        (["--trainer.precision", "64-true"], "precision='64-true'"),
        (["--ckpt_path", "nowhere/step=3.ckpt"], "ckpt_path=nowhere/step=3.ckpt does not exist"),
        (["--fallback_precision", "half"], "fallback_precision"),
        (["--model.class_path", "models.Nothing"], "models.Nothing"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_mistakes_get_one_line_and_status_two(
    configure: Configure, capsys: pytest.CaptureFixture[str], change: list[str], named: str
) -> None:
    assert named in refused(["fit", "--config", configure(), *change], capsys)


@pytest.mark.end_to_end
def test_mistakes_about_text_get_one_line_and_status_two(
    configure: Configure, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def paths(entry: Path) -> list[str | Path]:
        reader = {"class_path": "datamodules.Files", "init_args": {"paths": [str(entry)]}}
        return ["fit", "--config", configure(data__init_args__sources__notes__reader=reader)]

    assert "does not exist" in refused(paths(tmp_path / "absent"), capsys)
    (tmp_path / "empty").mkdir()
    assert "holds no file" in refused(paths(tmp_path / "empty"), capsys)
    (tmp_path / "empty/blank.txt").write_text("")
    only_blank = {
        "blank": {"reader": {"class_path": "datamodules.Files", "init_args": {"paths": [str(tmp_path / "empty")]}}}
    }
    line = refused(["fit", "--config", configure(data__init_args__sources=only_blank)], capsys)
    assert "no document is left" in line


@pytest.mark.end_to_end
def test_a_damaged_shard_or_checkpoint_stops_the_run(
    configure: Configure, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = configure(data__init_args__folder=str(tmp_path / "data"), trainer__max_steps=2)
    main(["fit", "--config", str(config)])
    checkpoint = tmp_path / "run/checkpoints/step=2.ckpt"
    (tensors,) = checkpoint.glob("*.distcp")
    content = bytearray(tensors.read_bytes())
    content[len(content) // 2] ^= 1
    tensors.write_bytes(content)
    assert "is damaged" in refused(["fit", "--config", config, "--trainer.max_steps", "4"], capsys)
    shutil.rmtree(checkpoint)
    (shards,) = (tmp_path / "data").glob("shards-*")
    tokens = next(shards.glob("train-*.tokens"))
    content = bytearray(tokens.read_bytes())
    content[7] ^= 1
    tokens.write_bytes(content)
    assert "checksum" in refused(["fit", "--config", config], capsys)
    assert "no checkpoint in" in refused(["validate", "--config", config], capsys)


@pytest.mark.end_to_end
def test_bfloat16_learns_what_float32_learns(configure: Configure, tmp_path: Path) -> None:
    config = configure(trainer__max_steps=6)
    for precision in ("32-true", "bf16-mixed"):
        chosen = [f"--trainer.precision={precision}", "--fallback_precision=null"]
        main(["fit", "--config", str(config), *chosen, f"--trainer.default_root_dir={tmp_path / precision}"])
    exact, rounded = (
        [float(value) for _, name, value in learned(tmp_path / precision) if name == "train/loss"]
        for precision in ("32-true", "bf16-mixed")
    )
    assert len(exact) == len(rounded) == 6
    assert exact != rounded
    assert rounded == pytest.approx(exact, rel=0.01)


@pytest.mark.end_to_end
def test_the_precision_for_machines_without_bf16_units(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(configure())
    for units, taken in ((False, "32-true"), (True, "bf16-mixed")):
        monkeypatch.setattr("commands.training.lightning_cli.has_bf16_matrix_units", lambda device, units=units: units)
        cli = build_cli(["--config", config, "--trainer.precision", "bf16-mixed"], run=False)
        assert cli.trainer.precision == taken
    assert "32-true instead of bf16-mixed" in capsys.readouterr().out

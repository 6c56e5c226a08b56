"""A poisoned document: named, gone back before, left out, and the run is the one that never saw it."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from callbacks.spike_guard import ROLLED_BACK, SpikeGuard
from common.run_folder import SPIKES, checkpoints, read_metrics, read_spikes
from main import main
from models.language_model import LanguageModel
from models.weights.single_file import read_checkpoint
from tests.helpers.command_line import refused
from tests.helpers.corpus import Configure, tiny_configuration, write_corpus
from tests.helpers.distributed import run_ranks

GUARD = {"class_path": "callbacks.SpikeGuard", "init_args": {"steps_before": 0, "steps_after": 0}}


def guarded(path: Path, every_steps: int = 4, **settings: Any) -> Path:
    """The configuration with the guard in front of its other callbacks."""
    configuration = yaml.safe_load(path.read_text())
    guard = GUARD | {"init_args": GUARD["init_args"] | settings}  # type: ignore[operator]
    configuration["trainer"]["callbacks"] = [
        guard,
        {"class_path": "callbacks.Throughput", "init_args": {"peak_flops_per_second": 1e11}},
        {"class_path": "callbacks.Checkpoints", "init_args": {"every_steps": every_steps, "keep": 10}},
        {"class_path": "callbacks.Report"},
    ]
    path.write_text(yaml.safe_dump(configuration))
    return path


def losses(run: Path) -> dict[int, float]:
    rows = [(row[0], float(row[3])) for row in read_metrics(run) if row[2] == "train/loss"]
    assert len(rows) == len(dict(rows))  # no step twice
    return dict(rows)


def poison(monkeypatch: pytest.MonkeyPatch, bad: set[int], factor: float = float("nan")) -> None:
    """Make the loss of every batch with one of these samples worthless."""
    step = LanguageModel.training_step

    def poisoned(self: LanguageModel, batch: dict[str, Any], batch_index: int) -> Any:
        worst = factor if bad & set(batch["sample"].tolist()) else 1.0
        scaled = LanguageModel.loss
        self.loss = lambda hidden, given: scaled(self, hidden, given) * worst  # type: ignore[method-assign]
        return step(self, batch, batch_index)

    monkeypatch.setattr(LanguageModel, "training_step", poisoned)


def leave_out(run: Path, like: dict[str, Any]) -> None:
    """Give a run, before it begins, the journal of one that has left samples out."""
    run.mkdir(parents=True)
    (run / SPIKES).write_text(json.dumps(like) + "\n")


@pytest.mark.end_to_end
def test_a_poisoned_batch_is_named_gone_back_before_and_left_out(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = guarded(configure(trainer__val_check_interval=8))
    with monkeypatch.context() as patched:
        poison(patched, {21})  # step 6 has samples 20 .. 23
        main(["fit", "--config", str(config)])
    run = tmp_path / "run"
    (event,) = read_spikes(run)
    assert (event["action"], event["step"], event["checkpoint"]) == (ROLLED_BACK, 6, "step=4.ckpt")
    assert event["skipped"] == [20, 24]
    assert [sample["sample"] for sample in event["samples"]] == [20, 21, 22, 23]
    for sample in event["samples"]:
        assert sample["source"] in ("stories", "notes")
        assert sample["documents"]
        assert all(sample["source"] in document["path"] for document in sample["documents"])
    assert "back to step=4.ckpt, leaving out samples 20 to 23" in capsys.readouterr().out
    whole = losses(run)
    assert all(value == value for value in whole.values())

    other = tmp_path / "never-saw"
    leave_out(other, event)
    main(["fit", "--config", str(config), f"--trainer.default_root_dir={other}"])
    assert losses(other) == whole
    ours, theirs = (read_checkpoint(folder / "checkpoints/step=12.ckpt") for folder in (run, other))
    assert all(torch.equal(value, theirs["state_dict"][name]) for name, value in ours["state_dict"].items())
    assert ours["data"]["skipped"] == theirs["data"]["skipped"] == [[20, 24]]
    assert ours["data"]["consumed_samples"] == 12 * 4 + 4
    assert (run / "report.html").read_text().count("rolled back") >= 1


@pytest.mark.end_to_end
def test_a_kill_after_going_back_leaves_the_same_out(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal is on disk before the run goes on; the checkpoint gone back to knows nothing of it."""
    import callbacks.spike_guard as guard

    config = guarded(configure())
    main(["fit", "--config", str(config), f"--trainer.default_root_dir={tmp_path / 'clean'}", "--trainer.max_steps=4"])

    class KilledError(Exception):
        pass

    def die(*_: Any) -> None:
        raise KilledError

    poison(monkeypatch, {21, 29})
    with monkeypatch.context() as patched:
        patched.setattr(guard, "return_to", die)
        with pytest.raises(KilledError):
            main(["fit", "--config", str(config)])
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step=1.ckpt", "step=4.ckpt"]
    with (tmp_path / "run" / SPIKES).open("a") as file:
        file.write('{"action": "rolled ba')
    main(["fit", "--config", str(config)])
    events = read_spikes(tmp_path / "run")
    assert [event["skipped"] for event in events] == [[20, 24], [28, 32]]
    leave_out(tmp_path / "other", events[0] | {"skipped": [20, 24]})
    with (tmp_path / "other" / SPIKES).open("a") as file:
        file.write(json.dumps(events[1]) + "\n")
    main(["fit", "--config", str(config), f"--trainer.default_root_dir={tmp_path / 'other'}"])
    assert losses(tmp_path / "run") == losses(tmp_path / "other")


@pytest.mark.end_to_end
def test_a_second_spike_in_one_place_escalates_then_stops(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = guarded(configure(), steps_before=1, steps_after=1, rollbacks=2)
    poison(monkeypatch, set(range(20, 48)))
    refused(["fit", "--config", str(config)], capsys)
    events = read_spikes(tmp_path / "run")
    assert [event["attempt"] for event in events] == [0, 1]
    # Steps 5 .. 7, then twice as far on either side of step 5, which had samples 28 .. 31, from the first of step 3.
    assert events[0]["skipped"] == [16, 28]
    assert (events[1]["step"], events[1]["checkpoint"]) == (5, "step=1.ckpt")
    assert events[1]["skipped"] == [8, 28 + 4 * 3]


@pytest.mark.end_to_end
def test_a_loss_that_stays_high_is_waited_for_then_left_behind(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"patience": 2, "detection": {"deviations": 4.0, "window": 8}}
    config = guarded(configure(trainer__max_steps=12), **settings)
    with monkeypatch.context() as patched:
        poison(patched, set(range(28, 36)), factor=20.0)  # steps 8 and 9
        main(["fit", "--config", str(config)])
    events = read_spikes(tmp_path / "run")
    assert [(event["action"], event["step"]) for event in events] == [("watched", 8), (ROLLED_BACK, 8)]
    assert events[1]["skipped"] == [28, 36]  # up to the step at which it was decided
    assert events[1]["checkpoint"] == "step=4.ckpt"  # step 8 was saved with the spike in it
    names = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert sum("step=8.ckpt.abandoned" in name for name in names) == 1
    assert max(losses(tmp_path / "run").values()) < 10


def killed_when_it_would_go_back(config: Path) -> None:
    """Train up to the decision, of which nothing is left but the checkpoints before it."""

    class KilledError(Exception):
        pass

    def die(*_: Any) -> None:
        raise KilledError

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SpikeGuard, "_go_back", die)
        with pytest.raises(KilledError):
            main(["fit", "--config", str(config)])


def equals_one_that_never_saw(run: Path, config: Path, other: Path) -> None:
    other.mkdir()
    shutil.copy(run / SPIKES, other)
    main(["fit", "--config", str(config), f"--trainer.default_root_dir={other}"])
    assert losses(other) == losses(run)


@pytest.mark.end_to_end
def test_a_row_of_spikes_that_spans_a_resume_is_left_out_from_its_first(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"patience": 2, "detection": {"deviations": 4.0, "window": 8}}
    config, run = guarded(configure(trainer__max_steps=12), **settings), tmp_path / "run"
    with monkeypatch.context() as patched:
        poison(patched, set(range(28, 36)), factor=20.0)  # steps 8 and 9; step 8 is saved within the row
        killed_when_it_would_go_back(config)
        assert checkpoints(run)[-1].name == "step=8.ckpt"
        main(["fit", "--config", str(config)])
    events = read_spikes(run)
    assert [(event["action"], event["step"]) for event in events] == [("watched", 8), (ROLLED_BACK, 8)]
    assert [sample["sample"] for sample in events[1]["samples"]] == [28, 29, 30, 31]
    assert (events[1]["checkpoint"], events[1]["skipped"]) == ("step=4.ckpt", [28, 36])
    assert max(losses(run).values()) < 10
    equals_one_that_never_saw(run, config, tmp_path / "never-saw")


@pytest.mark.end_to_end
def test_going_back_twice_after_a_resume_reaches_before_it(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"steps_before": 2, "steps_after": 1}
    config, run = guarded(configure(trainer__max_steps=14), **settings), tmp_path / "run"
    with monkeypatch.context() as patched:
        poison(patched, set(range(36, 48)))  # steps 10 to 12
        killed_when_it_would_go_back(config)
        main(["fit", "--config", str(config)])  # from step 8
    events = read_spikes(run)
    assert [(event["attempt"], event["step"], event["checkpoint"]) for event in events] == [
        (0, 10, "step=8.ckpt"),
        (1, 9, "step=4.ckpt"),
    ]
    assert events[0]["skipped"] == [32, 44]
    # Step 9 had samples 44 .. 47 then; four steps before it begins the one after step 4, two after it end at 56.
    assert events[1]["skipped"] == [16, 56]
    assert max(losses(run).values()) < 10
    equals_one_that_never_saw(run, config, tmp_path / "never-saw")


@pytest.mark.end_to_end
def test_what_a_checkpoint_has_learned_from_is_not_said_to_be_left_out(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = guarded(configure(trainer__max_steps=14), steps_after=4), tmp_path / "run"
    with monkeypatch.context() as patched:
        poison(patched, {21, 57})
        main(["fit", "--config", str(config)])
    events = read_spikes(run)
    assert [event["attempt"] for event in events] == [0, 1]
    assert events[0]["skipped"] == [20, 40]
    assert (events[1]["step"], events[1]["checkpoint"]) == (10, "step=8.ckpt")  # it has learned from 40 .. 51
    assert events[1]["skipped"][0] == 56
    equals_one_that_never_saw(run, config, tmp_path / "never-saw")


@pytest.mark.end_to_end
def test_what_spike_skip_leaves_out_is_named_and_not_gone_back_for(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = guarded(configure(model__init_args__spike_skip={"deviations": 6.0, "window": 128}))
    poison(monkeypatch, {21})
    main(["fit", "--config", str(config)])
    (event,) = read_spikes(tmp_path / "run")
    assert (event["action"], event["step"]) == ("left out", 6)
    assert "skipped" not in event
    assert losses(tmp_path / "run").keys() == set(range(1, 13))


@pytest.mark.end_to_end
def test_a_guard_without_checkpoints_or_numbers_is_refused(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure(trainer__callbacks=[GUARD])
    assert "nothing to go back to" in refused(["fit", "--config", str(config)], capsys)
    config = guarded(configure(), patience=0)
    assert "patience=0" in refused(["fit", "--config", str(config)], capsys)


@pytest.mark.end_to_end
def test_a_document_of_garbage_in_the_shards_is_found_by_its_loss(tmp_path: Path) -> None:
    """Nothing is patched: one text of the corpus is noise, which a model that has begun to learn does not expect."""
    write_corpus(tmp_path / "corpus")
    generator = random.Random(0)
    noise = ["".join(generator.choices("qxzvjwQXZ0123456789#%&@", k=generator.randint(3, 9))) for _ in range(120)]
    (tmp_path / "corpus/notes/poison.txt").write_text(" ".join(noise))
    path = tmp_path / "config.yaml"
    configuration = tiny_configuration(tmp_path)
    configuration["trainer"] |= {"max_steps": 48, "val_check_interval": 1000}
    path.write_text(yaml.safe_dump(configuration))
    config = guarded(path, every_steps=20, patience=1, detection={"deviations": 5.0, "window": 8})
    main(["fit", "--config", str(config)])
    events = read_spikes(tmp_path / "run")
    assert events
    for event in events:
        assert (event["action"], event["checkpoint"]) == (ROLLED_BACK, "step=20.ckpt")
        named = [document["path"] for sample in event["samples"] for document in sample["documents"]]
        assert any(name.endswith("poison.txt") for name in named)
    whole = losses(tmp_path / "run")
    assert float(events[0]["loss"]) > max(loss for step, loss in whole.items() if step > 30) + 0.2

    other = tmp_path / "never-saw"
    other.mkdir()
    shutil.copy(tmp_path / "run" / SPIKES, other)
    main(["fit", "--config", str(config), f"--trainer.default_root_dir={other}"])
    assert losses(other) == whole


def guard_ranks(folder: str, world: int, strategy: str, layout: dict[str, Any], bad: list[int]) -> dict[str, Any]:
    """Train as one rank, with a poisoned sample or with the journal of a run that had one."""
    import strategies
    from callbacks import Checkpoints, SpikeGuard
    from datamodules import RandomTokens
    from tests.helpers.layouts import Record, language_model, trainer

    record = Record()
    module: Any = language_model()
    loss = module.loss

    def poisoned(hidden: Any, batch: dict[str, Any]) -> Any:
        return loss(hidden, batch) * (float("nan") if set(bad) & set(batch["sample"].tolist()) else 1.0)

    module.loss = poisoned
    guard = SpikeGuard(steps_before=0, steps_after=1)
    chosen = getattr(strategies, strategy)(**layout)
    saver = Checkpoints(every_steps=4, keep=9)
    options = {"max_steps": 9, "accumulate_grad_batches": 2, "callbacks": [guard, saver], "devices": world}
    options["enable_checkpointing"] = True
    run = trainer(Path(folder), chosen, record, **options)
    size = 8 // (1 if strategy.startswith("Pipeline") else world)
    run.fit(module, datamodule=RandomTokens(64, 32, size))
    return {"losses": record.losses, "bits": record.bits, "samples": record.samples}


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("world", "strategy", "layout"),
    [(2, "TensorParallelStrategy", {}), (2, "PipelineParallelStrategy", {"pipeline_parallel_size": 2})],
    ids=["fsdp2", "pp2"],
)
def test_ranks_go_back_together(world: int, strategy: str, layout: dict[str, Any], tmp_path: Path) -> None:
    ranks = run_ranks(world, guard_ranks, str(tmp_path / "bad"), world, strategy, layout, [97])
    (event,) = read_spikes(tmp_path / "bad")
    assert (event["step"], event["checkpoint"], event["skipped"]) == (7, "step=4.ckpt", [96, 128])
    leave_out(tmp_path / "good", event)
    expected = run_ranks(world, guard_ranks, str(tmp_path / "good"), world, strategy, layout, [])
    for rank, good in zip(ranks, expected, strict=True):
        # Six steps, the one that spiked, and again from the fifth on; validation after the third and sixth.
        assert rank["losses"][:6] + rank["losses"][9:] == good["losses"]
        assert rank["losses"][7:9] == good["losses"][4:6]
        assert rank["bits"] == good["bits"][:2] + good["bits"][1:]
        assert not {*range(96, 128)} & {sample for batch in good["samples"] for sample in batch}

"""Scores are read where a response ends, whatever surrounds it; what is reported of them is what it says."""

import json
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import yaml

from alignment import RewardEnsemble, RewardModel
from alignment.preferences.calibration import Calibration
from common.run_folder import read_metrics
from datamodules.mixing.samplers import StepBatch
from datamodules.preferences import PairBatches
from main import main
from models import AdamW, Cosine, DecoderConfig
from models.initialization import build_decoder
from tests.helpers.command_line import refused
from tests.helpers.corpus import Configure
from tests.helpers.rollouts import MadeUp

CONFIG = DecoderConfig(vocabulary_size=48, width=32, layers=2, heads=4, key_value_heads=2, feed_forward_width=48)


@pytest.mark.parametrize("samples", [[0], [5, 0, 7], list(range(8))], ids=str)
def test_scores_are_those_of_each_response_alone(samples: list[int]) -> None:
    examples: Any = MadeUp(8)
    model = RewardModel(CONFIG, optimizer=AdamW(), schedule=Cosine())
    model.decoder = build_decoder(model.config).double()
    batch = PairBatches(examples, pad=3)[StepBatch(samples, range(0))]
    expected = []
    for number in samples:
        prompt, *responses = examples.pairs[number]
        for response in responses:
            hidden = model.decoder(torch.from_numpy(np.concatenate((prompt, response)))[None])
            expected.append(model.decoder.output(hidden)[0, -1].item())
    assert model(batch, model.scores).tolist() == pytest.approx(expected, abs=1e-6)


def test_calibration_error_equals_a_count_by_hand() -> None:
    difference = torch.tensor([0.1, -0.1, 3.0, 3.0, -3.0, 0.0])
    metric = Calibration(bins=5)
    metric.update(difference[:2])
    metric.update(difference[2:])
    low, high = (torch.tensor(x, dtype=torch.float64).sigmoid().item() for x in (0.1, 3.0))
    by_hand = (abs(1.5 - (2 * low + 0.5)) + abs(2 - 3 * high)) / 6
    assert metric.compute().item() == pytest.approx(by_hand, abs=1e-6)
    assert [(count, round(right, 3)) for _, right, count in metric.curve()] == [(3, 0.5), (3, 0.667)]


def test_calibration_counts_a_soft_label_by_its_probability() -> None:
    metric = Calibration(bins=1)
    difference = torch.tensor([2.0, 2.0, -2.0, 0.0])
    metric.update(difference, torch.tensor([0.9, 0.6, 0.6, 0.8]))
    confidence = (3 / (1 + math.exp(-2.0)) + 0.5) / 4
    assert metric.compute().item() == pytest.approx(abs((0.9 + 0.6 + 0.4 + 0.5) / 4 - confidence), abs=1e-6)


@pytest.mark.end_to_end
@pytest.mark.parametrize("module", ["alignment.RewardModel", "alignment.PreferencePolicy"])
def test_soft_labels_reach_the_loss(align: Configure, tmp_path: Path, module: str) -> None:
    """Pairs of which nothing is known teach nothing: log 2 is the least that their loss can be."""
    rows = [
        {"prompt": f"{i}", "chosen": "ba " * (1 + i % 3), "rejected": "DE!", "preference_probability": 0.5}
        for i in range(40)
    ]
    (tmp_path / "soft.jsonl").write_text("\n".join(map(json.dumps, rows)))
    model: dict[str, Any] = {"model_class": module}
    if module.endswith("Policy"):
        model |= {"loss": {"class_path": "alignment.DPO"}, "reference": "online"}
    reader = {"class_path": "datamodules.FileRows", "init_args": {"paths": [str(tmp_path / "soft.jsonl")]}}
    main(["fit", "--config", str(align(model, {"rows": reader}))])
    losses = [float(v) for _, _, name, v in read_metrics(tmp_path / "run") if name.endswith("/loss")]
    assert len(losses) == 6 + 2
    assert min(losses) >= math.log(2) - 1e-6


@pytest.mark.end_to_end
def test_margins_are_subtracted_where_asked_for(
    align: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = PairBatches(cast(Any, MadeUp(4)), pad=3)[StepBatch([0, 1], range(0))] | {
        "margins": torch.tensor([1.0, 0.5])
    }
    chosen, rejected = torch.tensor([2.0, 1.0]), torch.tensor([0.0, 1.5])
    for use_margin, margins in ((True, [1.0, 0.5]), (False, [0.0, 0.0])):
        model = RewardModel(CONFIG, use_margin, optimizer=AdamW(), schedule=Cosine())
        expected = [math.log1p(math.exp(-(d - m))) for d, m in zip([2.0, -0.5], margins, strict=True)]
        assert model.pair_losses(chosen, rejected, batch).tolist() == pytest.approx(expected, abs=1e-6)
    (tmp_path / "plain.jsonl").write_text(
        "\n".join(json.dumps({"prompt": f"{i}", "chosen": "ba", "rejected": "de"}) for i in range(30))
    )
    rows = {"class_path": "datamodules.FileRows", "init_args": {"paths": [str(tmp_path / "plain.jsonl")]}}
    config = align({"model_class": "alignment.RewardModel", "use_margin": True}, {"rows": rows})
    assert "use_margin=true: no pair has" in refused(["fit", "--config", config], capsys)


@pytest.mark.end_to_end
def test_it_is_no_language_model(align: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = align({"model_class": "alignment.RewardModel"}, max_steps=2)
    main(["fit", "--config", str(config)])
    run = str(tmp_path / "run")
    policy = {"model_class": "alignment.PreferencePolicy", "loss": {"class_path": "alignment.DPO"}}
    for settings in ({}, policy):
        assert "is a reward model" in refused(["fit", "--config", align(settings | {"init_from": run})], capsys)
    assert "scores text and writes none" in refused(["generate", "--input", run, "--prompt", "Ba"], capsys)
    (tmp_path / "text.jsonl").write_text('{"text": "Ba"}')
    evaluate = ["evaluate", "--input", run, f"--text=[{tmp_path / 'text.jsonl'}]"]
    assert "is a reward model" in refused(evaluate, capsys)


@pytest.mark.end_to_end
def test_it_learns_and_says_how_well(align: Configure, tmp_path: Path) -> None:
    config = str(align({"model_class": "alignment.RewardModel", "use_margin": True}, max_steps=18))
    main(["fit", "--config", config])
    found: dict[str, float] = {name: float(v) for _, _, name, v in read_metrics(tmp_path / "run")}
    assert found["validation/accuracy"] > 0.9
    assert 0 <= found["validation/calibration_error"] <= 0.5
    assert math.isfinite(found["validation/loss"])
    bins = json.loads((tmp_path / "run/reliability.json").read_text())["bins"]
    assert all(0.5 <= confidence <= 1 and 0 <= right <= 1 for confidence, right, _ in bins)


def test_metrics_and_predictions_equal_a_computation_by_hand() -> None:
    examples: Any = MadeUp(8)
    model = RewardModel(CONFIG, optimizer=AdamW(), schedule=Cosine())
    model.decoder = build_decoder(model.config, seed=2).double()
    model.make_metrics()
    batches = PairBatches(examples, pad=3)
    predicted: dict[str, list[float]] = {"chosen": [], "rejected": []}
    for samples in ([0, 1, 2], [3, 4], [5, 6, 7]):
        batch = batches[StepBatch(samples, range(0))]
        model.validation_step(batch, 0)
        for side, scores in predicted.items():
            scores += model.predict_step(batch, 0)[side]
    for place, side in enumerate(("chosen", "rejected"), start=1):
        by_hand = []
        for pair in examples.pairs:
            hidden = model.decoder(torch.from_numpy(np.concatenate((pair[0], pair[place])))[None])
            by_hand.append(model.decoder.output(hidden)[0, -1].item())
        assert predicted[side] == pytest.approx(by_hand, abs=1e-6)
    margins = np.subtract(predicted["chosen"], predicted["rejected"])
    lengths = [len(pair[1]) - len(pair[2]) for pair in examples.pairs]
    assert model.length_bias.compute().item() == pytest.approx(np.corrcoef(margins, lengths)[0, 1], abs=1e-5)
    assert cast(Any, model.means["accuracy"]).compute().item() == pytest.approx((margins > 0).mean())


@pytest.mark.end_to_end
def test_seeds_make_an_ensemble(align: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Members begin with one trunk and different outputs; together they are tested as one model."""
    runs = [str(tmp_path / f"member-{seed}") for seed in (0, 1)]
    for seed, run in enumerate(runs):
        model = {"model_class": "alignment.RewardModel", "initial_seed": seed, "center_rewards": 0.01}
        main(["fit", "--config", str(align(model, {"seed": seed}, default_root_dir=run))])
    together = yaml.safe_load(align({"model_class": "alignment.RewardEnsemble"}).read_text())
    together["model"]["init_args"] = {"init_from": runs, "combine": "pessimistic"}
    config = tmp_path / "ensemble.yaml"
    config.write_text(yaml.safe_dump(together))
    capsys.readouterr()
    main(["test", "--config", str(config)])
    said = capsys.readouterr().out
    for name in ("test/accuracy", "test/spread_of_margins", "test/member_0/accuracy", "test/member_1/accuracy"):
        assert name in said
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(config)])
    assert "does not train" in capsys.readouterr().err


@pytest.mark.parametrize("combine", ["mean", "minimum", "pessimistic"])
def test_an_ensemble_combines_the_scores_of_its_members(combine: Any) -> None:
    config = RewardModel(CONFIG, optimizer=AdamW(), schedule=Cosine()).config
    ensemble = RewardEnsemble(["a", "b", "c"], combine, penalty=2.0, decoder=config)
    ensemble.make_metrics()
    ensemble.members = torch.nn.ModuleList(build_decoder(config, seed=seed).double() for seed in range(3))
    batch = PairBatches(cast(Any, MadeUp(4)), pad=3)[StepBatch(list(range(4)), range(0))]
    each = []
    for decoder in ensemble.members:
        alone = RewardModel(CONFIG, optimizer=AdamW(), schedule=Cosine())
        alone.decoder = cast(Any, decoder)
        each.append(torch.stack(alone.pair_scores(batch)))
    scores = torch.stack(each)
    expected = {
        "mean": scores.mean(0),
        "minimum": scores.min(0).values,
        "pessimistic": scores.mean(0) - 2 * (scores - scores.mean(0)).square().mean(0),
    }[combine]
    torch.testing.assert_close(torch.stack(ensemble.pair_scores(batch)), expected)


@pytest.mark.end_to_end
def test_members_must_be_reward_models_of_one_shape(
    align: Configure, base_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["fit", "--config", str(align({"model_class": "alignment.RewardModel"}, max_steps=2))])
    member, together = (
        str(tmp_path / "run"),
        yaml.safe_load(align({"model_class": "alignment.RewardEnsemble"}).read_text()),
    )
    for members, message in (
        ([], "name at least one run"),
        ([str(base_run)], "is not a reward model"),
        ([member, str(base_run)], "differs from"),
    ):
        together["model"]["init_args"] = {"init_from": members}
        together["data"]["init_args"]["tokenizer"] = str(base_run)
        config = tmp_path / "ensemble.yaml"
        config.write_text(yaml.safe_dump(together))
        with pytest.raises(SystemExit):
            main(["test", "--config", str(config)])
        assert message in capsys.readouterr().err.splitlines()[-1]

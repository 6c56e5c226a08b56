"""Log-probabilities against a naive computation, the first loss of a fresh policy, and resuming in the middle."""

import itertools
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import yaml

from alignment import DPO, PreferencePolicy
from common.run_folder import read_metrics
from datamodules.mixing.samplers import StepBatch
from datamodules.preferences import PairBatches
from main import main
from models import AdamW, Cosine, DecoderConfig
from models.initialization import build_decoder
from tests.helpers.command_line import learned, refused
from tests.helpers.corpus import Configure
from tests.helpers.rollouts import MadeUp

CONFIG = DecoderConfig(vocabulary_size=48, width=32, layers=2, heads=4, key_value_heads=2, feed_forward_width=48)


@pytest.fixture(scope="module")
def policy() -> PreferencePolicy:
    module = PreferencePolicy(DPO(), optimizer=AdamW(), schedule=Cosine(), decoder=CONFIG)
    module.decoder = build_decoder(CONFIG, seed=3).double()
    with torch.no_grad():
        for parameter in module.decoder.parameters():
            parameter.mul_(8 if parameter.ndim == 2 else 1)
    return module


def naive(policy: PreferencePolicy, prompt: np.ndarray, response: np.ndarray) -> float:
    """log pi(response | prompt), a row of its own, all logits at once."""
    assert policy.decoder is not None
    tokens = torch.from_numpy(np.concatenate((prompt, response)))[None]
    scores = policy.decoder.output(policy.decoder(tokens))[0].log_softmax(-1).detach()
    return sum(float(scores[len(prompt) - 1 + i, token]) for i, token in enumerate(response.tolist()))


@pytest.mark.parametrize("samples", [[0], [3, 1], [5, 0, 7, 2, 2], list(range(8))], ids=str)
def test_log_probabilities_are_those_of_each_answer_alone(policy: PreferencePolicy, samples: list[int]) -> None:
    """Whatever shares the batch, and in whatever order; prompt tokens never count."""
    examples: Any = MadeUp(8)
    for unrelated in (False, True):
        batches = PairBatches(examples, pad=3)
        batches.unrelated = unrelated
        batch = batches[StepBatch(samples, range(0))]
        found = policy(batch, policy.response_log_probabilities)
        responses = [(examples.pairs[n][0], response) for n in samples for response in batches.answers(n)]
        assert len(responses) == len(samples) * (3 if unrelated else 2)
        assert found.tolist() == pytest.approx([naive(policy, *pair) for pair in responses], abs=1e-6)
        assert batch["lengths"].tolist() == [len(response) for _, response in responses]
        assert batch["tokens"].flatten()[batch["ends"]].tolist() == [int(response[-1]) for _, response in responses]


def test_what_is_reported_equals_a_computation_by_hand(policy: PreferencePolicy) -> None:
    """KTO's KL divergence, the KL of every next token of both answers, and what `predict` gives."""
    examples: Any = MadeUp(6)
    batches, samples = PairBatches(examples, pad=3), [4, 1, 5]
    batches.unrelated = True
    batch = batches[StepBatch(samples, range(0))]
    other = build_decoder(CONFIG, seed=5).double()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(8 if parameter.ndim == 2 else 1)
    policy.reference_decoder, policy.reference = other, "online"
    policy.trainer = cast(Any, SimpleNamespace(strategy=SimpleNamespace(reduce=lambda x, reduce_op: x)))
    try:
        reference = policy.reference_log_probabilities(batch)
        made = policy.pairs(batch, policy(batch, policy.response_log_probabilities), reference)
        values = policy.kl_from_reference(batch, batch["example"] >= 0)
        predicted = policy.predict_step(batch, 0)
    finally:
        policy.reference_decoder, policy.reference, policy._trainer = None, "precomputed", None

    twin = SimpleNamespace(decoder=other)
    ratios, divergences = [], []
    for number in samples:
        prompt, *own = examples.pairs[number]
        third = batches.unrelated_answer(number)
        ratios.append(naive(policy, prompt, third) - naive(cast(Any, twin), prompt, third))
        for response in own:
            tokens = torch.from_numpy(np.concatenate((prompt, response)))[None]
            p, q = (
                model.output(model(tokens))[0, len(prompt) - 1 : -1].log_softmax(-1).detach()
                for model in (cast(Any, policy.decoder), other)
            )
            divergences += (p.exp() * (p - q)).sum(-1).tolist()
    assert made.kl is not None
    assert made.kl.item() == pytest.approx(max(0.0, sum(ratios) / 3), abs=1e-9)
    assert sum(ratios) > 0  # else nothing was compared
    assert values.tolist() == pytest.approx(divergences, abs=1e-6)
    for place, side in enumerate(("chosen", "rejected"), start=1):
        by_hand = [naive(policy, examples.pairs[n][0], examples.pairs[n][place]) for n in samples]
        assert predicted[side] == pytest.approx(by_hand, abs=1e-6)


def test_which_answer_comes_first_does_not_matter(policy: PreferencePolicy) -> None:
    examples: Any = MadeUp(4)
    forward = policy(PairBatches(examples, 3)[StepBatch([0, 1, 2, 3], range(0))], policy.response_log_probabilities)
    for pair in examples.pairs:
        pair[1], pair[2] = pair[2], pair[1]
    backward = policy(PairBatches(examples, 3)[StepBatch([0, 1, 2, 3], range(0))], policy.response_log_probabilities)
    torch.testing.assert_close(forward.view(-1, 2).flip(1), backward.view(-1, 2), rtol=0, atol=1e-10)


def metrics(run: Path) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for _, _, name, value in read_metrics(run):
        found.setdefault(name, []).append(float(value))
    return found


def dpo(**more: Any) -> dict[str, Any]:
    return {"model_class": "alignment.PreferencePolicy", "loss": {"class_path": "alignment.DPO"}, **more}


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    "more",
    [{}, {"reference": "online"}, {"reference": "adapter_off", "lora": {"rank": 4}}],
    ids=["precomputed", "online", "adapter_off"],
)
def test_a_fresh_policy_begins_at_log_two_and_learns(align: Configure, tmp_path: Path, more: dict[str, Any]) -> None:
    main(["fit", "--config", str(align(dpo(**more), max_steps=12))])
    found = metrics(tmp_path / "run")
    assert found["train/loss"][0] == pytest.approx(math.log(2), abs=1e-6)
    assert found["train/rewards/margin"][0] == pytest.approx(0, abs=1e-5)
    assert found["train/loss"][-1] < 0.6
    assert found["validation/rewards/accuracy"][-1] > 0.8
    if more:
        assert 0 < found["validation/kl_per_token"][-1] < 5
    # Only what is trained has moved.
    assert found["validation/log_ratios/rejected"][-1] < found["validation/log_ratios/chosen"][-1]


@pytest.mark.end_to_end
@pytest.mark.parametrize("reference", ["precomputed", "online"])
def test_a_policy_that_begins_with_an_adapter_is_its_own_reference(
    align: Configure, tmp_path: Path, reference: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The adapter that the first stage trained belongs to the reference; then evaluation takes what was stored."""
    first = align({"lora": {"rank": 4}}, default_root_dir=str(tmp_path / "first"))
    main(["fit", "--config", str(first)])
    config = align(dpo(init_from=str(tmp_path / "first"), reference=reference), max_steps=2)
    main(["fit", "--config", str(config)])
    found = metrics(tmp_path / "run")
    assert found["train/loss"][0] == pytest.approx(math.log(2), abs=1e-6)
    assert found["train/rewards/margin"][0] == pytest.approx(0, abs=1e-5)
    off = align(dpo(init_from=str(tmp_path / "first"), reference="adapter_off"))
    assert "holds an adapter already" in refused(["fit", "--config", off], capsys)


@pytest.mark.end_to_end
def test_evaluation_takes_the_reference_that_training_stored(
    align: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(align(dpo()))
    main(["fit", "--config", config])
    last = metrics(tmp_path / "run")["validation/loss"][-1]
    # The configuration that training saved holds the model's shape as well.
    saved = str(tmp_path / "run/config.yaml")
    for command, used in itertools.product(("validate", "test"), (config, saved)):
        capsys.readouterr()
        main([command, "--config", used])
        (line,) = (line for line in capsys.readouterr().out.splitlines() if "/loss" in line)
        assert float(line.split("│")[2]) == pytest.approx(last, abs=1e-6)
    main(["predict", "--config", config])
    rows = [json.loads(line) for line in (tmp_path / "run/predictions-0.jsonl").read_text().splitlines()]
    assert rows
    assert all(set(row) == {"sample", "chosen", "rejected"} and row["chosen"] < 0 for row in rows)
    (stored,) = (tmp_path / "data").glob("reference-*")
    shutil.rmtree(stored)
    assert "nothing is stored for these pairs" in refused(["test", "--config", config], capsys)


@pytest.mark.end_to_end
def test_a_run_goes_on_with_the_reference_it_began_with(
    align: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned = str(tmp_path / "tuned")
    main(["fit", "--config", str(align({}, default_root_dir=tuned, max_steps=2))])
    main(["fit", "--config", str(align(dpo(), max_steps=2))])
    main(["fit", "--config", str(align(dpo(init_from=tuned), default_root_dir=str(tmp_path / "b"), max_steps=2))])
    changed = align(dpo(init_from=tuned), max_steps=4)
    assert "was trained against reference" in refused(["fit", "--config", changed], capsys)


@pytest.mark.end_to_end
def test_a_copy_of_the_weights_to_begin_from_is_the_same_reference(
    align: Configure, base_run: Path, tmp_path: Path
) -> None:
    main(["fit", "--config", str(align(dpo(), max_steps=2))])
    copied = tmp_path / "elsewhere"
    shutil.copytree(base_run, copied)
    main(["fit", "--config", str(align(dpo(init_from=str(copied)), max_steps=4))])
    assert len(metrics(tmp_path / "run")["train/loss"]) == 4
    assert len(list((tmp_path / "data").glob("reference-*"))) == 1


@pytest.mark.end_to_end
def test_experts_are_balanced_and_nothing_is_ignored(
    align: Configure, base_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The experts' own loss is part of what is learned; a loss of next-token prediction has no place here."""
    shape = {
        "vocabulary_size": 512,
        "width": 16,
        "layers": 1,
        "heads": 2,
        "key_value_heads": 1,
        "feed_forward_width": 24,
    }
    for settings in (dpo(), {"model_class": "alignment.RewardModel"}):
        losses = []
        for weight in (0.0, 10.0):
            experts = {"num_experts": 4, "experts_per_token": 2, "balance_weight": weight}
            run = tmp_path / f"{settings['model_class']}-{weight}"
            changes = {"init_from": None, "decoder": shape | {"experts": experts}}
            config = align(settings | changes, {"tokenizer": str(base_run)}, max_steps=2, default_root_dir=str(run))
            main(["fit", "--config", str(config)])
            losses.append(metrics(run)["train/gradient_norm"][0])
        assert losses[1] > 1.1 * losses[0]
        assert "z_loss=0.5" in refused(["fit", "--config", align(settings | {"z_loss": 0.5})], capsys)


@pytest.mark.end_to_end
def test_references_agree(align: Configure, tmp_path: Path) -> None:
    curves = []
    for reference in ("precomputed", "online"):
        config = align(dpo(reference=reference), default_root_dir=str(tmp_path / reference))
        main(["fit", "--config", str(config)])
        curves.append(metrics(tmp_path / reference)["train/loss"])
    assert curves[0] == pytest.approx(curves[1], abs=1e-5)


@pytest.mark.end_to_end
@pytest.mark.parametrize("name", ["IPO", "KTO", "ORPO"])
def test_other_losses_train(align: Configure, tmp_path: Path, name: str) -> None:
    main(["fit", "--config", str(align(dpo(loss={"class_path": f"alignment.{name}"}), max_steps=3))])
    found = metrics(tmp_path / "run")
    assert len(found["train/loss"]) == 3
    assert all(map(math.isfinite, itertools.chain(*found.values())))
    assert found["train/gradient_norm"][0] > 0


class KilledError(Exception):
    """Stands for a kill."""


@pytest.mark.end_to_end
def test_resuming_in_the_middle_of_an_epoch_changes_nothing(
    align: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = str(align(dpo(), max_steps=8))
    main(["fit", "--config", config, f"--trainer.default_root_dir={tmp_path / 'whole'}"])
    step = PreferencePolicy.training_step

    def die(self: Any, batch: Any, index: int) -> Any:
        if self.trainer.global_step == 5:
            raise KilledError
        return step(self, batch, index)

    with monkeypatch.context() as patched:
        patched.setattr(PreferencePolicy, "training_step", die)
        with pytest.raises(KilledError):
            main(["fit", "--config", config])
    main(["fit", "--config", config])
    assert learned(tmp_path / "run") == learned(tmp_path / "whole")


@pytest.mark.end_to_end
def test_what_is_stored_of_the_reference_is_checked(
    align: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(align(dpo(), max_steps=2))
    main(["fit", "--config", config])
    (folder,) = (tmp_path / "data").glob("reference-*")
    again = ["fit", "--config", config, f"--trainer.default_root_dir={tmp_path / 'again'}"]
    values = np.load(folder / "validation.npy")
    np.save(folder / "validation.npy", values - 1)
    assert "damaged" in refused(again, capsys)
    from common.artifacts import write_checksums

    write_checksums(folder, "train.npy", "validation.npy")
    assert "differ by 1 nats" in refused(again, capsys)


@pytest.mark.end_to_end
def test_mistakes_get_one_line(align: Configure, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    fit = ["fit", "--config"]
    assert "there is no adapter" in refused([*fit, align(dpo(reference="adapter_off"))], capsys)
    assert "loss.beta=-1" in refused(
        [*fit, align(dpo(loss={"class_path": "alignment.DPO", "init_args": {"beta": -1}}))], capsys
    )
    config = yaml.safe_load(align(dpo()).read_text())
    config["data"] = {"class_path": "datamodules.RandomTokens", "init_args": {"vocabulary_size": 512}}
    (tmp_path / "random.yaml").write_text(yaml.safe_dump(config))
    assert "learns from pairs" in refused([*fit, tmp_path / "random.yaml"], capsys)
    assert "no tokenizer.model or tokenizer.json there" in refused(
        [*fit, align(dpo(), {"tokenizer": str(tmp_path)})], capsys
    )
    assert "does not exist" in refused([*fit, align(dpo(init_from=str(tmp_path / "none.ckpt")))], capsys)
    pipeline = {"class_path": "strategies.PipelineParallelStrategy", "init_args": {"pipeline_parallel_size": 2}}
    assert "in a pipeline" in refused([*fit, align(dpo(), strategy=pipeline, devices=2)], capsys)
    assert "lora in a pipeline" in refused([*fit, align({"lora": {"rank": 2}}, strategy=pipeline, devices=2)], capsys)
    (tmp_path / "empty.jsonl").write_text('{"text": "no pair"}\n{broken\n')
    rows = {"class_path": "datamodules.FileRows", "init_args": {"paths": [str(tmp_path / "empty.jsonl")]}}
    line = refused([*fit, align(dpo(), {"rows": rows})], capsys)
    assert "2 rows leave no example for train (dropped: missing_keys 1, invalid_json 1)" in line

"""A response's score is that of the response alone, read where training read it, whatever is scored beside it."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment import OverlongPenalty, RewardModel, RewardModelScore, WeightedSum
from alignment.rewards.base import Response
from common.errors import InputError
from datamodules import PreferenceData
from datamodules.conversations.rows import FileRows
from datamodules.mixing.samplers import StepBatch
from datamodules.preferences import PairBatches
from datamodules.tokenization.files import find_tokenizer, load_tokenizer
from main import main
from models import AdamW, Cosine, DecoderConfig
from models.decoder import Decoder
from models.initialization import build_decoder
from models.weights.source import WeightSource
from tests.helpers.corpus import Configure
from tests.helpers.rollouts import MadeUp

CONFIG = DecoderConfig(
    vocabulary_size=48,
    width=32,
    layers=2,
    heads=4,
    key_value_heads=2,
    feed_forward_width=48,
    scalar_output=True,
    tied_embeddings=False,
)
END = 2


class Weights:
    """Stored weights that are in memory."""

    def __init__(self, config: DecoderConfig, seed: int = 1) -> None:
        self.config, self.decoder = config, build_decoder(config, seed)

    def whole_config(self) -> DecoderConfig:
        return self.config

    def merged(self, name: str) -> torch.Tensor:
        return self.decoder.get_parameter(name).detach()


WEIGHTS = Weights(CONFIG)


def reward(**settings: Any) -> RewardModelScore:
    made = RewardModelScore("run", **settings)
    made.load_from(WEIGHTS, END)
    made.prepare(torch.device("cpu"))
    return made


def alone(decoder: Decoder, tokens: list[int]) -> float:
    with torch.no_grad():
        return float(decoder.output(decoder(torch.tensor([tokens])))[0, -1])


def response(prompt: list[int], tokens: list[int], finish: Any = "stop") -> Response:
    return Response(prompt, tokens, "", finish, {})


PROMPTS = st.lists(st.lists(st.integers(3, 47), min_size=1, max_size=6), min_size=1, max_size=3, unique_by=tuple)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), prompts=PROMPTS, batch_tokens=st.integers(1, 80))
def test_scores_are_those_of_each_response_alone(data: Any, prompts: list[list[int]], batch_tokens: int) -> None:
    drawn = data.draw(
        st.lists(
            st.tuples(
                st.sampled_from(prompts),
                st.lists(st.integers(3, 47), max_size=6),
                st.sampled_from(["stop", "stopped before its end", "length"]),
            ),
            max_size=8,
        )
    )
    responses, expected = [], []
    for prompt, tokens, how in drawn:
        tokens = [*tokens, END] if how == "stop" else tokens
        responses.append(response(prompt, tokens, "length" if how == "length" else "stop"))
        expected.append(alone(WEIGHTS.decoder, [*prompt, *tokens, *([END] if how.endswith("end") else [])]))
    scores = reward(batch_tokens=batch_tokens)(responses)
    assert scores.shape == (len(drawn),)
    assert scores.tolist() == pytest.approx(expected, abs=1e-5)


def test_scores_are_those_of_training() -> None:
    """The layout of pairs, read by the module that trains."""
    examples = MadeUp(6)
    model = RewardModel(CONFIG, optimizer=AdamW(), schedule=Cosine())
    model.decoder = WEIGHTS.decoder
    pairs = [[side.tolist() for side in pair] for pair in examples.pairs]
    for pair in examples.pairs:
        for place in (1, 2):
            pair[place] = torch.tensor([*pair[place].tolist(), END]).numpy()
    batch = PairBatches(cast(Any, examples), pad=3)[StepBatch(list(range(6)), range(0))]
    with torch.no_grad():
        expected = model(batch, model.scores).tolist()
    responses = [response(prompt, side) for prompt, *sides in pairs for side in sides]
    assert reward()(responses).tolist() == pytest.approx(expected, abs=1e-5)


def test_shift_and_scale_make_a_reference_set_standard() -> None:
    responses = [response([5, 6], [7 + number]) for number in range(30)]
    mean, deviation = reward().measure(responses)
    standard = reward(shift=mean, scale=deviation)(responses)
    assert standard.mean().item() == pytest.approx(0, abs=1e-5)
    assert standard.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    whole = reward()(responses)
    torch.testing.assert_close(reward(precision="bfloat16")(responses), whole, atol=0.1, rtol=0)
    assert whole.dtype == torch.float32
    assert not whole.requires_grad


def test_autocast_changes_no_score_of_a_precision_that_was_asked_for() -> None:
    """Rewards are computed within a training step, and equal scores there are no information."""
    responses = [response([5, 6], [7 + number % 40, 8 + number // 40]) for number in range(80)]
    whole = reward()(responses)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(reward()(responses), whole)
    assert len(set(whole.tolist())) == 80


def test_the_head_of_scores_and_values_is_computed_in_float32() -> None:
    hidden = torch.randn(500, 32, generator=torch.Generator().manual_seed(0))
    output = WEIGHTS.decoder.output
    halves = hidden.bfloat16()
    expected = [given.float() @ output.weight[0] for given in (halves, hidden)]
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        for given, scores in zip((halves, hidden), expected, strict=True):
            torch.testing.assert_close(output.scores(given), scores)


def test_what_cannot_be_scored_is_refused() -> None:
    for wrong in ({"scale": 0}, {"shift": float("nan")}, {"batch_tokens": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            RewardModelScore("run", **wrong)
    with pytest.raises(InputError, match="not a reward model"):
        RewardModelScore("run").load_from(Weights(DecoderConfig(48, 32, 1, 2, 2, 48)), END)
    with pytest.raises(InputError, match="end of text is 48"):
        RewardModelScore("run").load_from(WEIGHTS, 48)
    with pytest.raises(InputError, match="its weights are not open"):
        RewardModelScore("run").prepare(torch.device("cpu"))
    with pytest.raises(InputError, match="not loaded"):
        RewardModelScore("run")([response([5], [6])])
    with pytest.raises(InputError, match="has id 48: take a reward model of the same tokenizer"):
        reward()([response([5], [48])])
    with pytest.raises(InputError, match="has no prompt"):
        reward()([response([], [5])])


def tokenizer_of(path: Path) -> Any:
    return load_tokenizer(find_tokenizer(path))


@pytest.mark.end_to_end
def test_a_trained_run_scores_its_own_pairs_as_it_predicts_them(
    align: Configure, tmp_path: Path, pairs_file: Path, base_run: Path, hugging_face_tokenizer: Path
) -> None:
    """An adapter is merged, the template's ending is the one of training, and other tokenizers are refused."""
    settings = {"model_class": "alignment.RewardModel", "lora": {"rank": 2}}
    config = align(settings, {"max_tokens": 512}, max_steps=2)
    configuration = yaml.safe_load(config.read_text())
    main(["fit", "--config", str(config)])
    pairs = PreferenceData(
        configuration["data"]["init_args"]["folder"], FileRows([str(pairs_file)]),
        tokenizer=str(base_run), chat_template="chatml", max_tokens=512, validation_fraction=0.2,
    )  # fmt: skip
    pairs.setup("fit")
    stored = WeightSource(tmp_path / "run")
    trained = RewardModel(DecoderConfig(**stored.config), optimizer=AdamW(), schedule=Cosine())
    trained.stored = stored
    trained.configure_model()
    batch = next(iter(pairs.val_dataloader()))
    with torch.no_grad():
        expected = trained(batch, trained.scores).tolist()
    score = RewardModelScore(str(tmp_path / "run"))
    WeightedSum([OverlongPenalty(9, 3), score]).open_weights(pairs.tokenizer, tokenizer_of)
    score.prepare(torch.device("cpu"))
    score.prepare(torch.device("cpu"))
    responses = []
    for number in batch["example"].tolist():
        prompt, *sides = (tokens.tolist() for tokens, _ in pairs.examples["validation"].segments(number))
        assert all(side[-1] == pairs.tokenizer.eos for side in sides)
        # A sampler may stop at the token before: ChatML's own end of a turn.
        responses += [response(prompt, side[:-1]) for side in sides]
    assert score(responses).tolist() == pytest.approx(expected, abs=1e-5)
    pairs.tokenizer = load_tokenizer(hugging_face_tokenizer / "tokenizer.json")
    with pytest.raises(InputError, match="another tokenizer than the data's"):
        score.open_weights(pairs.tokenizer, tokenizer_of)

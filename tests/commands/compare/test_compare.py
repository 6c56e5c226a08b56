"""Models side by side: every number against a loop that computes it one response at a time."""

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment import RougeN
from alignment.comparison.intervals import bootstrap, wilson, wins
from alignment.comparison.side_by_side import kl_estimates, rows_of
from alignment.rewards.base import Response
from commands.compare import command as compare
from common.errors import InputError
from main import main
from models.config import DecoderConfig
from models.decoder import Decoder
from models.initialization import build_decoder
from tests.commands.compare.comparison import compared

CONFIG = DecoderConfig(vocabulary_size=48, width=32, layers=2, heads=4, key_value_heads=2, feed_forward_width=48)


def made_up(seed: int, count: int) -> list[Response]:
    generator = random.Random(seed)

    def ids(most: int) -> list[int]:
        return [generator.randrange(48) for _ in range(generator.randint(1, most))]

    return [Response(ids(9), ids(6), "", "stop", {}) for _ in range(count)]


@torch.no_grad()
def naive_log_probabilities(decoder: Decoder, response: Response, temperature: float) -> torch.Tensor:
    """[tokens of the response, vocabulary]."""
    tokens = torch.tensor([[*response.prompt, *response.tokens]])
    logits = decoder.output(decoder(tokens))[0] / temperature
    return logits.log_softmax(-1)[len(response.prompt) - 1 : -1]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("batch_tokens", [1, 30, 1000])
def test_kls_equal_a_sum_over_the_vocabulary(temperature: float, batch_tokens: int) -> None:
    # An embedding of another scale, so that the two are far apart.
    decoder = build_decoder(CONFIG, seed=0).double()
    reference = build_decoder(replace(CONFIG, initial_std=0.3), seed=1).double()
    responses = made_up(0, 9)
    exact, sampled = kl_estimates(decoder, reference, responses, temperature, batch_tokens)
    for number, response in enumerate(responses):
        p, q = (naive_log_probabilities(model, response, temperature) for model in (decoder, reference))
        assert float(exact[number]) == pytest.approx(float((p.exp() * (p - q)).sum()), abs=1e-5)
        said = torch.tensor(response.tokens)[:, None]
        assert float(sampled[number]) == pytest.approx(float((p - q).gather(1, said).sum()), abs=1e-5)
    assert (exact > 0.01).all()
    assert (kl_estimates(decoder, decoder, responses, temperature, batch_tokens)[0] == 0).all()


def test_both_kls_have_one_mean() -> None:
    """Over responses drawn from the model itself, the log-ratio scatters around the exact sum."""
    decoder, reference = (build_decoder(replace(CONFIG, initial_std=std), seed=3) for std in (0.1, 0.2))
    from models.inference.generation import generate
    from models.inference.sampling import Sampling

    prompts = [[5, 7, number % 48] for number in range(600)]
    drawn = generate(decoder, prompts, max_new_tokens=4, sampling=Sampling(seed=1), slots=600)
    responses = [Response(prompt, one.tokens, "", one.finish, {}) for prompt, one in zip(prompts, drawn, strict=True)]
    exact, sampled = kl_estimates(decoder, reference, responses, 1.0, 4096)
    difference = sampled - exact
    assert exact.mean() > 0.1
    assert abs(float(difference.mean())) < 4 * float(difference.std()) / math.sqrt(len(responses))
    assert sampled.std() > 2 * exact.std()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 40))
def test_every_response_is_in_one_row_within_the_budget(seed: int, count: int, batch_tokens: int) -> None:
    responses = made_up(seed, count)
    seen: list[int] = []
    for numbers in rows_of(responses, batch_tokens):
        size = sum(len(responses[number].prompt) + len(responses[number].tokens) for number in numbers)
        assert size <= batch_tokens or len(numbers) == 1
        seen += numbers
    assert seen == list(range(count))


scores = st.lists(st.lists(st.integers(-2, 2), min_size=3, max_size=3), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(scores, st.integers(0, 3))
def test_wins_are_counted_pair_by_pair(values: list[list[int]], shift: int) -> None:
    ours = torch.tensor(values, dtype=torch.float32)
    theirs = ours.roll(shift, dims=1)[:, :2]
    expected = [
        sum(1.0 if a > b else 0.5 if a == b else 0.0 for a in mine for b in other) / (len(mine) * len(other))
        for mine, other in zip(ours.tolist(), theirs.tolist(), strict=True)
    ]
    assert wins(ours, theirs).tolist() == pytest.approx(expected)
    assert (wins(ours, theirs) + wins(theirs, ours)).tolist() == pytest.approx([1.0] * len(values))


def test_wilson_interval_of_published_examples() -> None:
    """Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29, method 3 (without continuity correction)."""
    for hits, count, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        found = wilson(torch.tensor([1.0] * hits + [0.0] * (count - hits)))
        assert (found.value, found.low, found.high) == pytest.approx((hits / count, low, high), abs=5e-5)


def test_bootstrap_interval_is_about_two_standard_errors() -> None:
    values = torch.randn(400, generator=torch.Generator().manual_seed(0)) * 3 + 1
    found = bootstrap(values)
    half = 1.96 * float(values.std()) / 20
    assert found.value == pytest.approx(float(values.mean()), abs=1e-6)
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), rel=0.15)
    assert bootstrap(values) == found
    assert bootstrap(torch.ones(5)) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("text", "right", "words", "expected"),
    [
        ("Return the area.", "return the area", 1, 1.0),
        ("the the the", "the area", 1, 2 * 1 / (3 + 2)),
        ("area of the", "the area of", 2, 2 * 1 / (2 + 2)),
        ("snake_case9", "snake case9", 1, 1.0),
        ("...", "the area", 1, 0.0),
        ("a", "a", 2, 0.0),
    ],
)
def test_word_overlap_by_hand(text: str, right: str, words: int, expected: float) -> None:
    reward = RougeN("response", words)
    assert reward([Response([], [], text, "stop", {"response": right})]).tolist() == pytest.approx([expected])


def test_word_overlap_says_what_it_lacks() -> None:
    with pytest.raises(InputError, match="words=0"):
        RougeN(words=0)
    with pytest.raises(InputError, match="answer_key=answer: a row has"):
        RougeN().check({"response": "a"})


# The command


@pytest.mark.end_to_end
def test_a_comparison_from_end_to_end(
    models: dict[str, str], prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = compared(models, prompts, tmp_path / "a", "--samples=2", "--max_prompt_tokens=100")
    assert found["settings"]["prompts"] == 12
    assert found["settings"]["left_out"] == {"no_prompt": 1, "longer_than_max_prompt_tokens": 1}
    rows = [json.loads(line) for line in (tmp_path / "a/responses.jsonl").open(encoding="utf-8")]
    assert len(rows) == 2 * 12 * 2
    by_model = {name: [row for row in rows if row["model"] == name] for name in ("base", "moved")}
    for name, numbers in found["models"].items():
        own = by_model[name]
        assert numbers["monitored_reward"]["value"] == pytest.approx(sum(row["monitored_reward"] for row in own) / 24)
        assert all(row["monitored_reward"] == sum(letter in "aeiou" for letter in row["text"]) for row in own)
        assert numbers["kl"]["value"] == pytest.approx(sum(row["kl"] for row in own) / 24)
        for judge in ("reward", "monitored_reward"):
            won = 0.0
            for prompt in range(12):
                pairs = [
                    (a[judge], b[judge]) for a in own for b in by_model["base"] if a["prompt"] == b["prompt"] == prompt
                ]
                won += sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs)
            assert numbers[f"win_rate_by_{judge}"]["value"] == pytest.approx(won / 12)
            assert found["win_rates"][judge][name]["base"] == pytest.approx(won / 12)
        pairs_of = [own[place : place + 2] for place in range(0, 24, 2)]
        best = [max(pair, key=lambda row: row["reward"]) for pair in pairs_of]
        for judge in ("reward", "monitored_reward"):
            expected = sum(row[judge] for row in best) / 12
            assert numbers[f"{judge}_of_best"]["value"] == pytest.approx(expected)
        assert numbers["kl_of_best"] == pytest.approx(math.log(2) - 1 / 2)
    assert found["models"]["base"]["kl"]["value"] == 0
    assert found["models"]["base"]["win_rate_by_reward"]["value"] == 0.5
    assert found["models"]["moved"]["kl"]["value"] > 0.01
    assert "moved" in capsys.readouterr().out
    page = (tmp_path / "a/report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 3
    assert "wins over base by the monitored reward" in page
    assert "monitored reward of the best of 2, at most 0.193 nats from the model" in page
    assert "<script" not in page
    # The same whatever is computed together.
    again = compared(
        models, prompts, tmp_path / "b", "--samples=2", "--max_prompt_tokens=100", "--slots=5", "--batch_tokens=40"
    )
    texts = [[row["text"] for row in map(json.loads, (tmp_path / place / "responses.jsonl").open())] for place in "ab"]
    assert texts[0] == texts[1]
    for name in ("base", "moved"):
        for key in ("kl", "reward", "monitored_reward"):
            assert again["models"][name][key] == pytest.approx(found["models"][name][key], abs=1e-5)


@pytest.mark.end_to_end
def test_a_comparison_that_is_killed_goes_on_with_the_next_model(
    models: dict[str, str], prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = compared(models, prompts, tmp_path / "whole", "--samples=2")
    real, asked = compare.generate_responses, []

    def watched(*arguments: Any) -> list[Response]:
        asked.append(arguments[-1])
        if "killed" in asked:
            raise KeyboardInterrupt
        return real(*arguments)

    def killed(*arguments: Any) -> Any:
        asked.append("killed")
        return kl_estimates(*arguments)

    monkeypatch.setattr(compare, "generate_responses", watched)
    with monkeypatch.context() as patch:
        patch.setattr(compare, "kl_estimates", killed)
        with pytest.raises(KeyboardInterrupt):
            compared(models, prompts, tmp_path / "again", "--samples=2")
    assert asked == ["base", "killed", "moved"]
    assert not (tmp_path / "again/comparison.json").exists()
    asked.clear()
    assert compared(models, prompts, tmp_path / "again", "--samples=2") == whole
    assert asked == ["moved"]
    assert (tmp_path / "again/responses.jsonl").read_bytes() == (tmp_path / "whole/responses.jsonl").read_bytes()
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == sorted(
        path.name for path in (tmp_path / "whole").iterdir()
    )
    # Of other settings nothing is taken.
    asked.clear()
    with monkeypatch.context() as patch:
        patch.setattr(compare, "kl_estimates", killed)
        with pytest.raises(KeyboardInterrupt):
            compared(models, prompts, tmp_path / "again", "--seed=1")
    asked.clear()
    compared(models, prompts, tmp_path / "again", "--seed=2")
    assert asked == ["base", "moved"]


@pytest.mark.end_to_end
def test_prompts_are_those_that_training_validates_on(models: dict[str, str], tmp_path: Path) -> None:
    from datamodules import FileRows, SFTData
    from datamodules.conversations.example_store import Examples

    rows = [{"prompt": f"Ba {number}", "response": "kiro", "group": f"{number // 2}"} for number in range(200)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    found = compared(
        models, path, tmp_path / "out", "--validation_fraction=0.2", "--split_seed=3", "--max_new_tokens=1"
    )
    data = SFTData(
        str(tmp_path / "data"),
        FileRows([str(path)]),
        tokenizer=models["base"],
        chat_template="plain",
        validation_fraction=0.2,
        split_seed=3,
    )
    assert found["settings"]["prompts"] == len(Examples(data.run_stages(), "validation"))
    limited = compared(models, path, tmp_path / "few", "--validation_fraction=0.2", "--split_seed=3", "--limit=7")
    assert limited["settings"]["prompts"] == 7
    assert limited["samples"] == limited["samples"][:7]


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--models={base: BASE}"], "name at least two"),
        (["--reference=ppo"], "reference=ppo: no such model, take one of base, moved"),
        (["--temperature=0"], "temperature=0.0"),
        (["--validation_fraction=0"], "validation_fraction=0.0"),
        (["--samples=0"], "samples=0: must be at least 1"),
        (["--models.moved=REWARD"], "is a reward model, which writes no text"),
        (["--reward_model=BASE"], "is not a reward model"),
        (["--models.moved=nowhere"], "nowhere does not exist"),
        (["--max_prompt_tokens=1"], "prompts: none is for validation ({'longer_than_max_prompt_tokens': 14"),
        (["--prompts=[nowhere.jsonl]"], "nowhere.jsonl does not exist"),
        (["--models.moved=OTHER"], "moved has another tokenizer than base"),
        (["--models.moved=WIDER"], "moved has 520 token ids, base 512"),
        (["--monitored_reward=alignment.ExactMatch"], "answer"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_mistakes_are_one_line(
    models: dict[str, str],
    prompts: Path,
    tmp_path: Path,
    change: list[str],
    message: str,
    hugging_face_tokenizer: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(Path(models["moved"]).read_bytes())
    (tmp_path / "other.tokenizer").mkdir()
    for file in hugging_face_tokenizer.iterdir():
        (tmp_path / "other.tokenizer" / file.name).write_bytes(file.read_bytes())
    places = {"WIDER": models["wider"], "BASE": models["base"], "REWARD": models["reward"], "OTHER": str(other)}
    given = [argument.replace(key, value) for argument in change for key, value in places.items() if key in argument]
    with pytest.raises(SystemExit) as raised:
        compared(models, prompts, tmp_path / "out", *(given or change))
    assert raised.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.end_to_end
def test_a_comparison_is_yaml_too(models: dict[str, str], prompts: Path, tmp_path: Path) -> None:
    configuration = {
        "models": {"moved": models["moved"], "base": models["base"]},
        "reference": "base",
        "prompts": {"class_path": "datamodules.FileRows", "init_args": {"paths": [str(prompts)]}},
        "monitored_reward": {"class_path": "alignment.RougeN", "init_args": {"answer_key": "response"}},
        "validation_fraction": 1,
        "limit": 3,
        "max_new_tokens": 4,
        "precision": "bfloat16",
        "output": str(tmp_path / "out"),
    }
    (tmp_path / "compare.yaml").write_text(yaml.safe_dump(configuration, sort_keys=False))
    main(["compare", "--config", str(tmp_path / "compare.yaml")])
    found = json.loads((tmp_path / "out/comparison.json").read_text())
    assert list(found["models"]) == ["moved", "base"]
    assert "reward" not in found["models"]["base"]
    assert "left_out" in found["settings"]

"""`main.py constitution` as a user meets it: killed, resumed, with our own models, and its rows learned from."""

import json
import random
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from alignment import DecoderJudge
from alignment.constitutional.judge import Request
from commands.constitution import LanguageModels
from common.run_folder import read_metrics
from datamodules.tokenization.base import TokenizerSettings
from datamodules.tokenization.sentencepiece import train_tokenizer
from main import main
from models.config import DecoderConfig
from models.initialization import build_decoder
from models.weights.single_file import write_safetensors
from tests.helpers.command_line import refused
from tests.helpers.corpus import ROOT, Configure, sentences
from tests.helpers.distributed import Command
from tests.helpers.http_server import Failure, chat, serving, token
from tests.helpers.scripted_judge import quality

PRINCIPLES = [
    {"name": name, "critique": f"Critique {name}.", "revision": f"Revise {name}.", "comparison": f"Which is {name}?"}
    for name in ("kind", "true")
]
FILES = ("revisions/records.jsonl", "revisions/rows.jsonl", "preferences/records.jsonl", "preferences/rows.jsonl")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny language model with a tokenizer beside it."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer([sentences(i, 40) for i in range(20)], TokenizerSettings(vocabulary_size=400))
    shape = {"width": 32, "layers": 2, "heads": 2, "key_value_heads": 2, "feed_forward_width": 48}
    config = DecoderConfig(vocabulary_size=len(tokenizer), **shape)
    decoder = build_decoder(config)
    tensors = {f"decoder.{name}": 3 * p.detach() for name, p in decoder.named_parameters()}
    write_safetensors(tensors, asdict(config), folder / "model.safetensors")
    tokenizer.write(folder)
    return folder / "model.safetensors"


def config(folder: Path, answering: dict[str, Any], **changes: Any) -> Path:
    (folder / "law.yaml").write_text(yaml.safe_dump({"principles": PRINCIPLES}))
    rows: list[Any] = [{"prompt": f"Prompt {number}", "group": f"g{number // 2}"} for number in range(22)]
    rows[5] = {"text": "no prompt"}
    rows[9] = {"chosen": "\n\nHuman: Nine?\n\nAssistant: a", "rejected": "\n\nHuman: Nine?\n\nAssistant: b"}
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    human = [{"prompt": f"h{number}", "chosen": "yes", "rejected": "no", "response": "yes"} for number in range(8)]
    (folder / "human.jsonl").write_text("\n".join(map(json.dumps, [*human, {"prompt": "nothing"}])))

    def files(name: str) -> dict[str, Any]:
        return {"class_path": "datamodules.FileRows", "init_args": {"paths": [str(folder / name)]}}

    content: dict[str, Any] = {
        "folder": str(folder / "out"), "constitution": str(folder / "law.yaml"), "prompts": files("prompts.jsonl"),
        "generator": answering, "revisions": {"class_path": "alignment.Revisions", "init_args": {"rounds": 2}},
        "helpful_instructions": files("human.jsonl"), "helpful_pairs": files("human.jsonl"), "batch_size": 4,
    }  # fmt: skip
    path = folder / f"constitution-{len(list(folder.glob('constitution-*')))}.yaml"
    path.write_text(yaml.safe_dump(content | changes))
    return path


def scripted(**settings: Any) -> dict[str, Any]:
    return {"class_path": "tests.helpers.scripted_judge.ScriptedJudge", "init_args": settings}


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.end_to_end
def test_killed_anywhere_it_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    path = config(tmp_path, scripted(bias=2.0, seconds=0.004))
    main(["constitution", "--config", str(path), "--folder", str(tmp_path / "whole")])
    expected, out = contents(tmp_path / "whole"), tmp_path / "out"
    chance, kills, last = random.Random(), 0, -1
    while True:
        process = Command(tmp_path, "constitution", "--config", path)
        # Somewhere further on, the first time before the end is near.
        goal = size(out) + chance.randint(0, size(tmp_path / "whole") // (1 if kills else 2))
        deadline = time.monotonic() + 60
        while process.poll() is None and size(out) <= goal and time.monotonic() < deadline:
            time.sleep(0.001)
        if process.poll() is None:
            time.sleep(chance.random() * 0.03)
            process.kill()
        _, errors = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -9, errors
        assert last <= size(out)
        kills, last = kills + 1, size(out)
        assert kills < 30
    assert kills >= 1
    assert contents(out) == expected


def size(folder: Path) -> int:
    """Bytes of records so far."""
    return sum(path.stat().st_size for path in folder.glob("*/records.jsonl"))


@pytest.mark.end_to_end
def test_what_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["constitution", "--config", str(config(tmp_path, scripted(bias=-3.0, prompt_price=1000.0)))]
    main(arguments)
    out = tmp_path / "out"
    printed = yaml.safe_load(capsys.readouterr().out)
    for stage in ("revisions", "preferences"):
        assert printed[str(out / stage / "rows.jsonl")] == json.loads((out / stage / "summary.json").read_text())
    records, rows = lines(out / "revisions/records.jsonl"), lines(out / "revisions/rows.jsonl")
    assert [record["sample"] for record in records] == list(range(22))
    assert records[5]["dropped"] == "no_prompt"
    assert records[5]["calls"] == []
    assert records[9]["prompt"] == [{"role": "user", "content": "Nine?"}]
    assert len(rows) == 21 * 2 + 8
    assert [row["source"] for row in rows] == ["constitution"] * 42 + ["helpful"] * 8
    assert rows[0]["response"] == records[0]["rounds"][0]["revision"]
    assert (rows[0]["group"], rows[-1]["messages"][-1]["content"]) == ("g0", "yes")
    summary = json.loads((out / "preferences/summary.json").read_text())
    assert summary["samples"] == 22
    assert (summary["rows"], summary["helpful_rows"]) == (21, 8)
    assert summary["dropped"] == {"no_prompt": 1, "helpful: missing_keys": 1}
    assert summary["position_bias"] == pytest.approx(-3.0)
    assert summary["cost"]["judge"]["calls"] == 42
    assert summary["cost"]["generator"]["price"] == pytest.approx(42 * 1e-3)
    pairs = lines(out / "preferences/rows.jsonl")
    for pair in pairs[:21]:
        assert quality(pair["chosen"]) > quality(pair["rejected"])
        assert 0.5 <= pair["preference_probability"] < 1
        assert set(pair["principles"]) <= {"kind", "true"}
        assert pair["models"] == records[0]["models"]
    identity = json.loads((out / "preferences/identity.json").read_text())
    assert identity["judge"] == {"scripted": -3.0}
    assert identity["constitution"]["principles"] == PRINCIPLES
    # Once more it has nothing to do, and what `fit` reads keeps its time.
    times = {name: (out / name).stat().st_mtime_ns for name in FILES}
    main(arguments)
    assert {name: (out / name).stat().st_mtime_ns for name in FILES} == times
    assert "made with another seed (see identity.json" in refused([*arguments, "--seed", "1"], capsys)
    assert "made with another rounds (see" in refused([*arguments, "--revisions.init_args.rounds", "3"], capsys)


def decoder_judge(model: Path, **settings: Any) -> dict[str, Any]:
    return {
        "class_path": "alignment.DecoderJudge",
        "init_args": {"init_from": str(model), "max_new_tokens": 10} | settings,
    }


@pytest.mark.end_to_end
def test_our_own_model_is_asked_and_its_rows_are_learned(model: Path, align: Configure, tmp_path: Path) -> None:
    """The whole way: records, the same after a cut, then fine-tuning and a reward model on what was made."""
    torch.set_num_threads(1)
    path = config(
        tmp_path, decoder_judge(model, chat_template="chatml"),
        judge=decoder_judge(model, chat_template="transcript", stop=["\n\nHuman:"]),
        revisions={"class_path": "alignment.Revisions", "init_args": {"rounds": 2, "unfinished": "keep"}},
    )  # fmt: skip
    main(["constitution", "--config", str(path)])
    out = tmp_path / "out"
    expected = contents(out)
    for name in ("revisions", "preferences"):
        records = out / name / "records.jsonl"
        whole = records.read_bytes()
        records.write_bytes(whole[: len(whole) // 2])
        main(["constitution", "--config", str(path)])
    assert contents(out) == expected
    main(["convert", "--input", str(model), "--output", str(tmp_path / "hugging-face")])
    for start in (model, tmp_path / "hugging-face"):
        replayed(out, {"generator": ("chatml", []), "judge": ("transcript", ["\n\nHuman:"])}, start)
    rounded = DecoderJudge(str(model), "chatml", max_new_tokens=4, dtype="bfloat16")
    rounded.prepare(LanguageModels(), tmp_path)
    assert {parameter.dtype for parameter in rounded.model.decoder.parameters()} == {torch.bfloat16}
    assert rounded.complete([Request([{"role": "user", "content": "Ba"}], 1)])[0].completion_tokens > 0
    labels = [record["probability"] for record in lines(out / "preferences/records.jsonl") if not record["dropped"]]
    assert len(labels) > 15
    assert len(set(labels)) == len(labels)
    for stage, settings, data in (
        ("revisions", {}, {"sequence_length": 64}), ("preferences", {"model_class": "alignment.RewardModel"}, {}),
    ):  # fmt: skip
        rows = {"class_path": "datamodules.FileRows", "init_args": {"paths": [str(out / stage / "rows.jsonl")]}}
        run = tmp_path / f"fit-{stage}"
        fit = align(settings | {"init_from": str(model)}, {"rows": rows} | data, default_root_dir=str(run), max_steps=3)
        main(["fit", "--config", str(fit)])
        assert len([1 for _, _, name, _ in read_metrics(run) if name == "train/loss"]) == 3


def replayed(out: Path, settings: dict[str, tuple[str, list[str]]], model: Path) -> None:
    """What the records say was asked, asked again, is answered as they say."""
    judges, models = {}, LanguageModels()
    for name, (template, stop) in settings.items():
        judges[name] = DecoderJudge(str(model), template, max_new_tokens=10, stop=stop)
        judges[name].prepare(models, Path("unused"))
    assert judges["generator"].model.decoder is judges["judge"].model.decoder
    for stage in ("revisions", "preferences"):
        examples = json.loads((out / stage / "identity.json").read_text())["examples"]
        calls = [call for record in lines(out / stage / "records.jsonl")[:4] for call in record["calls"]]
        assert len(calls) >= 4 * 4
        for call in calls:
            shown = examples[call["examples"]] if "examples" in call else []
            request, judge = Request([*shown, *call["messages"]], call["number"]), judges[call["model"]]
            if "completion" in call:
                assert judge.complete([request])[0].text == call["completion"]
            else:
                (verdict,) = judge.choose([request], call["options"])
                assert verdict.log_probabilities == pytest.approx(call["log_probabilities"], abs=1e-4)


@pytest.mark.end_to_end
def test_an_endpoint_that_fails_in_the_middle_is_not_paid_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    letters = {"content": [token("A", A=-0.2, B=-1.7)]}

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        if "logprobs" in body:
            return chat("A", logprobs=letters)
        return chat(f"{body['messages'][-1]['content'][:40]} {body['seed']}")

    with serving(reply) as server:
        endpoint = {"class_path": "alignment.EndpointJudge", "init_args": {
            "base_url": server.url, "model": "m", "retries": 1, "first_wait_seconds": 0.001, "concurrency": 2,
            "prompt_price": 3.0, "completion_price": 15.0,
        }}  # fmt: skip
        path = config(tmp_path, endpoint)
        for fine in (9, 60):
            server.failures = [Failure(pause=0.0001)] * fine + [Failure(500)] * 4
            assert "start again to go on" in refused(["constitution", "--config", path], capsys)
        server.failures = []
        main(["constitution", "--config", str(path)])
        # 21 samples: an answer and two rounds of two; two answers and both orders.
        assert server.answered == 21 * 5 + 21 * 4
    summary = json.loads((tmp_path / "out/preferences/summary.json").read_text())
    assert summary["mean_label"] == pytest.approx(0.5)
    assert summary["position_bias"] == pytest.approx(1.5)
    assert summary["cost"]["judge"]["price"] == pytest.approx(42 * (11 * 3.0 + 3 * 15.0) / 1e6)
    assert (tmp_path / "out/preferences/journal-generator.jsonl").read_bytes() == b""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"seed": -1}, "seed=-1: must lie between"),
        ({"samples": 0}, "samples=0"),
        ({"revisions": None, "preferences": None}, "there is nothing to do"),
        ({"constitution": "nowhere.yaml"}, "constitution=nowhere.yaml cannot be read"),
        ({"revisions": {"class_path": "alignment.Revisions", "init_args": {"rounds": 0}}}, "revisions.rounds=0"),
        (
            {"preferences": {"class_path": "alignment.Preferences", "init_args": {"principles_per_pair": 3}}},
            "principles_per_pair=3: ",
        ),
        ({"generator": {"class_path": "alignment.DecoderJudge", "init_args": {"init_from": "no"}}}, "does not exist"),
        ({"generatr": 3}, "generatr"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_mistakes_are_one_line(
    changes: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(tmp_path, scripted(), **changes)
    assert message in refused(["constitution", "--config", path], capsys)


def test_prompts_that_are_none_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config(tmp_path, scripted())
    (tmp_path / "prompts.jsonl").write_text('{"text": "a"}\n{broken\n')
    line = refused(["constitution", "--config", path], capsys)
    assert "2 rows hold no prompt ({'no_prompt': 1, 'invalid_json': 1})" in line


@pytest.mark.end_to_end
@pytest.mark.parametrize("name", ["quickstart", "endpoint"])
def test_shipped_configurations_parse(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = ROOT / f"configs/constitution/{name}.yaml"
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"# python main.py constitution --config configs/constitution/{name}.yaml\n")
    with pytest.raises(SystemExit) as raised:
        main(["constitution", "--config", str(path), "--print_config"])
    assert raised.value.code in (0, None)
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["generator"]["class_path"].startswith("alignment.")
    assert (ROOT / printed["constitution"]).is_file()

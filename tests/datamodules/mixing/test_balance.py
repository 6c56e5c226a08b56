"""The mixture reaches what was asked, breaks no cap, and goes on without a gap when it is changed."""

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from common.run_folder import read_metrics
from datamodules import Files, PretrainingData, TextSource
from datamodules.mixing.balance import Balance
from datamodules.mixing.mixture import BLOCK, Mixture, slots_of
from datamodules.resumable import ResumableDataModule
from datamodules.tokenization.base import TokenizerSettings
from main import main
from tests.helpers.command_line import learned, refused
from tests.helpers.corpus import Configure

NAMES = ["books", "code", "web"]


def shares(slots: np.ndarray) -> dict[str, float]:
    return dict(zip(NAMES, slots / BLOCK, strict=True))


def test_temperature_draws_sources_together() -> None:
    tokens = {"books": 100, "code": 10_000, "web": 1_000_000}
    weights = dict.fromkeys(tokens, 1.0)
    proportional = Balance(temperature=1, max_epochs=None).wanted(weights, tokens)
    assert proportional == {name: float(size) for name, size in tokens.items()}
    halved = Balance(temperature=2, max_epochs=None).wanted(weights, tokens)
    assert halved == pytest.approx({"books": 10, "code": 100, "web": 1000})


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 3000), min_size=3, max_size=3),
    weights=st.lists(st.integers(1, 60), min_size=3, max_size=3),
    cap=st.sampled_from([1.0, 2.5, 4.0]),
    first=st.integers(0, 5000),
    more=st.integers(1, 20_000),
)
def test_no_source_is_repeated_more_often_than_its_cap(
    sizes: list[int], weights: list[int], cap: float, first: int, more: int
) -> None:
    """Whatever was mixed before; the rest goes to the other sources in proportion to their weights."""
    wanted = dict(zip(NAMES, (w / sum(weights) for w in weights), strict=True))
    of_size = dict(zip(NAMES, sizes, strict=True))
    mixture = Mixture(of_size, wanted, seed=3)
    before = mixture.consumed(first)
    room = sum(max(int(cap * of_size[name]) - before[name], 0) for name in NAMES)
    try:
        slots = Balance(max_epochs=cap).slots(mixture, wanted, first, first + more)
    except InputError as error:
        refused_for = str(error)
    else:
        refused_for = ""
    if refused_for:
        # Too little text up to the rounding to slots, or a source too small for one slot.
        assert room < more + len(NAMES) * (more // BLOCK + 2) or "less than 1/4096" in refused_for
        return
    assert room >= more
    assert slots.sum() == BLOCK
    assert mixture.consumed(first) == before
    reached = mixture.consumed(first + more)
    assert sum(reached.values()) == first + more
    free = []
    for name, share in shares(slots).items():
        if reached[name] > before[name]:
            assert reached[name] <= cap * of_size[name]
        if share > wanted[name] - 1 / BLOCK:
            free.append(share / wanted[name])
    # Those that are not capped keep their proportions, up to the rounding to 1/4096.
    largest = max(free)
    assert all(abs(share - largest * wanted[name]) < 2 / BLOCK or share <= largest * wanted[name] + 2 / BLOCK
               for name, share in shares(slots).items())  # fmt: skip


def test_a_cap_gives_the_rest_to_the_others_in_proportion() -> None:
    mixture = Mixture({"books": 100, "code": 10_000, "web": 100_000}, {"books": 8, "code": 15, "web": 60}, 0)
    wanted = {"books": 8 / 83, "code": 15 / 83, "web": 60 / 83}
    slots = Balance(max_epochs=4).slots(mixture, wanted, 0, 40_000)
    reached = mixture.consumed(40_000)
    assert 360 <= reached["books"] <= 400
    assert reached["web"] / reached["code"] == pytest.approx(4, rel=0.01)
    assert slots.tolist() == slots_of(shares(slots), NAMES).tolist()


@pytest.mark.parametrize(
    ("balance", "message"),
    [
        ({"temperature": 0.5}, "balance.temperature=0.5"),
        ({"max_epochs": 0}, "balance.max_epochs=0"),
        ({"max_epochs": {"web": -1}}, "balance.max_epochs"),
    ],
)
def test_settings_that_cannot_work_are_refused(balance: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Balance(**balance)


def test_what_contradicts_the_run_is_refused() -> None:
    with pytest.raises(InputError, match="say the same thing twice"):
        Balance(temperature=2).settings({"a": 1.0, "b": 2.0}, 10)
    with pytest.raises(InputError, match="max_epochs names c, the sources are a, b"):
        Balance(max_epochs={"c": 2}).settings({"a": 1.0, "b": 1.0}, 10)
    with pytest.raises(InputError, match="trainer.max_steps, which is not set"):
        Balance().settings({"a": 1.0}, None)
    mixture = Mixture(dict.fromkeys(NAMES, 10), dict.fromkeys(NAMES, 1.0), 0)
    with pytest.raises(InputError, match="hold 120 samples within it, the run takes 400"):
        Balance().slots(mixture, dict.fromkeys(NAMES, 1 / 3), 0, 400)


@settings(max_examples=40, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 6000), st.lists(st.integers(0, 50), min_size=3, max_size=3).filter(any)), max_size=4
    ),
    sizes=st.lists(st.integers(1, 900), min_size=3, max_size=3),
)
def test_windows_of_a_source_are_consecutive_over_any_changes(
    changes: list[tuple[int, list[int]]], sizes: list[int]
) -> None:
    """Every source goes through whole epochs, each a permutation, as if nothing had changed."""
    of_size = dict(zip(NAMES, sizes, strict=True))
    plain = Mixture(of_size, dict.fromkeys(NAMES, 1.0), seed=5)
    mixture = Mixture(of_size, dict.fromkeys(NAMES, 1.0), seed=5)
    for first, weights in sorted(changes, key=lambda change: change[0]):
        slots = np.array(weights) * BLOCK // sum(weights)
        slots[int(np.argmax(slots))] += BLOCK - slots.sum()
        mixture.change(first, slots)
    orders: dict[str, list[tuple[int, int]]] = {name: [] for name in NAMES}
    for sample in range(8000):
        name, epoch, window = mixture.locate(sample)
        orders[name].append((epoch, window))
    assert {name: len(order) for name, order in orders.items()} == mixture.consumed(8000)
    expected: dict[str, list[tuple[int, int]]] = {name: [] for name in NAMES}
    sample = 0
    while any(len(expected[name]) < len(orders[name]) for name in NAMES):
        name, epoch, window = plain.locate(sample)
        expected[name].append((epoch, window))
        sample += 1
    assert all(expected[name][: len(orders[name])] == orders[name] for name in NAMES)


def test_going_back_forgets_what_came_after() -> None:
    sizes, slots = dict.fromkeys(NAMES, 70), slots_of({"books": 1, "code": 1, "web": 6}, NAMES)
    once = Mixture(sizes, dict.fromkeys(NAMES, 1.0), 1)
    once.change(500, slots)
    twice = Mixture(sizes, dict.fromkeys(NAMES, 1.0), 1)
    twice.change(900, slots[::-1].copy())
    twice.change(500, slots)
    assert [once.locate(i) for i in range(2000)] == [twice.locate(i) for i in range(2000)]


def test_going_back_over_a_spike_changes_no_later_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With caps the mixture follows from the length of the run, which skipped samples are no part of."""
    monkeypatch.setattr(PretrainingData, "order", lambda self: {})

    def data() -> Any:
        sources = {
            name: TextSource(Files([str(tmp_path)]), weight=weight) for name, weight in (("books", 1), ("web", 3))
        }
        made: Any = PretrainingData(
            str(tmp_path), sources, TokenizerSettings(512), balance=Balance(max_epochs={"books": 2})
        )
        made.trainer = SimpleNamespace(
            accumulate_grad_batches=1, distributed_sampler_kwargs=None, global_step=0, max_steps=1500
        )
        made.sizes, made.train_windows = {"books": 700, "web": 90_000}, SimpleNamespace()
        made.mix([])
        return made

    first = data()
    assert first.samples_of_run() == 12_000
    first.trainer.global_step = 500
    state = ResumableDataModule.state_dict(first) | {"mixture": first.history}
    again = data()
    again.skipped.add(4_100, 4_164)
    again.load_state_dict(state)
    assert again.samples_of_run() == 12_000
    assert again.history == first.history
    assert [again.mixture.locate(i) for i in range(4_164, 12_064)] == [
        first.mixture.locate(i) for i in range(4_164, 12_064)
    ]
    # A longer run is another mixture from where it goes on.
    again.trainer.max_steps = 3000
    again.load_state_dict(state)
    assert [entry["first"] for entry in again.history] == [0, 4000]


def read_mixture(run: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((run / "mixture.json").read_text(encoding="utf-8"))
    return loaded


@pytest.mark.end_to_end
def test_a_run_is_resumed_with_other_weights(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As an overlay of the configuration; the tokenizer and the shards stay, other data is still refused."""
    config, run = str(configure(trainer__max_steps=8)), tmp_path / "run"
    main(["fit", "--config", config])
    shown = capsys.readouterr().out
    assert "mixture" in shown
    assert read_mixture(run)["sources"]["notes"]["requested_share"] == pytest.approx(2 / 3)
    names = [name for _, _, name, _ in read_metrics(run) if name.startswith("mixture/notes/")]
    assert sorted(names) == sorted({*names})

    overlay = tmp_path / "overlay.yaml"
    sources = {"notes": {"weight": 1}, "stories": {"weight": 7}}
    overlay.write_text(yaml.safe_dump({"data": {"init_args": {"sources": sources}}}))
    changed = ["fit", "--config", config, "--config", str(overlay), "--trainer.max_steps=12"]
    main(changed)
    history = read_mixture(run)["history"]
    assert [entry["first"] for entry in history] == [0, 32]  # 8 steps x 2 micro-batches x 2 windows
    assert history[1]["slots"] == {"notes": BLOCK // 8, "stories": 7 * BLOCK // 8}
    assert history[0]["settings"]["weights"]["notes"] == 2

    # The same from the checkpoint before, and then without a change: bit-identical.
    aside = tmp_path / "again"
    main([*changed, f"--trainer.default_root_dir={aside}", f"--ckpt_path={run}/checkpoints/step=8.ckpt"])
    steps = {str(step) for step in range(9, 13)}
    assert [row for row in learned(aside) if row[0] in steps] == [row for row in learned(run) if row[0] in steps]
    main([*changed[:-1], "--trainer.max_steps=14"])
    assert read_mixture(run)["history"] == history
    line = refused([*changed, "--trainer.max_steps=16", "--data.init_args.seed=1"], capsys)
    assert "was trained on other data" in line


@pytest.mark.end_to_end
def test_a_cap_is_kept_and_reported(configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(configure(trainer__max_steps=8, data__init_args__balance={"max_epochs": {"notes": 0.05}}))
    main(["fit", "--config", config])
    report = read_mixture(tmp_path / "run")["sources"]
    assert 0 < report["notes"]["epochs"] <= 0.05
    assert report["notes"]["share"] < report["notes"]["requested_share"]
    assert Counter({name: row["tokens"] for name, row in report.items()}).total() == 32 * 64
    assert "notes" in capsys.readouterr().out

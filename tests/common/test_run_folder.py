"""Run folder: checkpoints by number, files with lines torn by a kill."""

import json
from pathlib import Path

import pytest

from common.errors import InputError
from common.run_folder import (
    CHECKPOINTS,
    CONFIG,
    GOODPUT,
    METRICS,
    RUN_FACTS,
    SAMPLES,
    SPIKES,
    checkpoint_name,
    checkpoint_step,
    checkpoints,
    latest_checkpoint,
    read_config,
    read_goodput,
    read_metrics,
    read_object,
    read_samples,
    read_spikes,
)


def test_latest_checkpoint_is_by_number_and_ignores_partial_files(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    (tmp_path / CHECKPOINTS).mkdir()
    for name in ("step=9.ckpt", "step=10.ckpt", ".step=11.ckpt.partial", "step=12.txt", "last.ckpt"):
        (tmp_path / CHECKPOINTS / name).write_text("content")
    (tmp_path / CHECKPOINTS / "step=13.ckpt").touch()
    (tmp_path / CHECKPOINTS / "step=14.ckpt").mkdir()
    (tmp_path / CHECKPOINTS / "step=14.ckpt" / ".DS_Store").write_bytes(b"x")
    assert latest_checkpoint(tmp_path) == tmp_path / CHECKPOINTS / "step=10.ckpt"
    assert [checkpoint_step(path) for path in checkpoints(tmp_path)] == [9, 10, 13, 14]


def test_a_checkpoint_is_named_by_its_step() -> None:
    assert checkpoint_step(Path(checkpoint_name(7))) == 7
    with pytest.raises(InputError, match=r"best\.ckpt: its name must be step=N\.ckpt"):
        checkpoint_step(Path("best.ckpt"))


def test_a_last_line_torn_by_a_kill_is_left_out(tmp_path: Path) -> None:
    (tmp_path / METRICS).write_text("step,time,name,value\n1,0.5,train/loss,2.0\n2,0.6,train/lo")
    (tmp_path / SPIKES).write_text('{"step": 3}\n{"step": 4, "los')
    assert read_metrics(tmp_path) == [(1, "0.5", "train/loss", "2.0")]
    assert read_spikes(tmp_path) == [{"step": 3}]


LINES = {
    METRICS: (b"1,0.5,train/loss,2.0", (1, "0.5", "train/loss", "2.0"), read_metrics),
    SAMPLES: (b'{"step": 3}', {"step": 3}, read_samples),
    SPIKES: (b'{"step": 3}', {"step": 3}, read_spikes),
    GOODPUT: (b'{"start": 3}', {"start": 3}, read_goodput),
}


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize(
    "damage",
    [
        b"\xff\xfe", b"", b"\0\0\0", b"2,0.6,tr\xe9,1", b'2,0.6,"train,1', b"2,0.6,loss,1.x", b"x,0.6,a,1",
        b"[" * 99999, b'{"step": 4, "los', b'["step"]', b'"step"', b"{\"step\": \xff}", b"x" * 200_000,
    ],
)  # fmt: skip
def test_damaged_lines_are_left_out_and_the_others_kept(name: str, damage: bytes, tmp_path: Path) -> None:
    line, row, read = LINES[name]
    head = b"step,time,name,value\n" if name == METRICS else b""
    (tmp_path / name).write_bytes(head + line + b"\n" + damage + b"\n" + line + b"\n" + damage)
    assert read(tmp_path) == [row, row]


@pytest.mark.parametrize("content", [b"", b'{"a": ', b"[1]", b"\xff", b"null"])
def test_a_damaged_object_is_one_line_with_its_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / RUN_FACTS).write_bytes(content)
    with pytest.raises(InputError, match=r"run\.json is damaged, it holds no JSON object: delete it"):
        read_object(tmp_path / RUN_FACTS)
    (tmp_path / CONFIG).write_bytes(content)
    with pytest.raises(InputError, match=r"config\.yaml is damaged"):
        read_config(tmp_path)


def test_a_torn_line_between_two_starts_of_the_ledger_is_left_out(tmp_path: Path) -> None:
    (tmp_path / GOODPUT).write_text('{"start": 1}\n{"time": 2, "st\n{"half}\n{"start": 3}\n')
    assert read_goodput(tmp_path) == [{"start": 1}, {"start": 3}]


def test_files_that_are_not_there_hold_nothing(tmp_path: Path) -> None:
    assert read_samples(tmp_path) == read_spikes(tmp_path) == read_goodput(tmp_path) == []
    assert read_object(tmp_path / RUN_FACTS) == {}


def test_samples_facts_and_configuration_are_read(tmp_path: Path) -> None:
    rows = [{"step": 1, "prompt": "a\u2028b"}, {"step": 2, "prompt": "c"}]
    (tmp_path / SAMPLES).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / RUN_FACTS).write_text('{"steps": 2}')
    (tmp_path / CONFIG).write_text("trainer:\n  max_steps: 2\n")
    assert read_samples(tmp_path) == rows
    assert read_object(tmp_path / RUN_FACTS) == {"steps": 2}
    assert read_config(tmp_path) == {"trainer": {"max_steps": 2}}

"""Record log: JSON lines appended batch by batch and synced, so that a kill costs one batch.

One JSON line a sample, in the samples' order, whole batches at a time and on disk before the next begins. A stage that
is started again cuts off what a kill left of a batch and makes it again with the very same samples side by side,
because the last digits of a sum depend on what is computed beside it: the file is then the same to the byte, wherever
it was killed. What is measured of time is no part of it.
"""

import filecmp
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from alignment.constitutional.judge import Judge
from alignment.constitutional.llm_calls import PromptRecord, RecordedCalls
from common.errors import InputError
from common.files import append_synced, sync, write_bytes_atomically

RECORDS, IDENTITY, SECONDS = "records.jsonl", "identity.json", "seconds.json"


class Records:
    """A folder of records, which one process writes.

    Args:
        folder: made where it is not there.

    Raises:
        InputError: when another process writes there.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.path = folder, folder / RECORDS
        self._lock = FileLock(folder / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise InputError(f"{folder}: another process writes there, wait for it or name another folder") from error
        self.seconds: dict[str, float] = {}
        if (folder / SECONDS).exists():
            self.seconds = json.loads((folder / SECONDS).read_text(encoding="utf-8"))

    def require(self, identity: Mapping[str, Any]) -> None:
        """Say what the records are a function of, by name, JSON-able.

        Raises:
            InputError: when the folder holds records of another identity.
        """
        file = self.folder / IDENTITY
        if not file.exists():
            write_if_changed(file, [json.dumps(identity, indent=1, ensure_ascii=False).encode()])
        found, mine = json.loads(file.read_text(encoding="utf-8")), json.loads(json.dumps(identity))
        if differing := sorted(key for key in {*found, *mine} if found.get(key) != mine.get(key)):
            raise InputError(
                f"{self.folder} holds records made with another {', '.join(differing)} (see {IDENTITY} there): restore "
                "it, or name another folder"
            )

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def make(
        self,
        samples: Sequence[PromptRecord],
        batch: int,
        make: Callable[[list[PromptRecord]], list[dict[str, Any]]],
        llm: RecordedCalls,
        stage: str,
    ) -> None:
        """Make the records that are not there yet, with a progress bar.

        Args:
            samples: all there are to be, in order.
            batch: samples made together.
            make: their records.
            llm: calls to models, which commit what is recorded and whose seconds are counted.
            stage: name for the bar.

        Raises:
            InputError: when there are more records than samples, or a damaged one.
        """
        done = self._repair(len(samples), batch)
        before = dict(self.seconds)
        with tqdm(total=len(samples), initial=done, desc=stage, unit=" samples") as bar:
            for start in range(done, len(samples), batch):
                made = make(list(samples[start : start + batch]))
                append_synced(self.path, json_lines(made))
                for sample in samples[start : start + batch]:
                    sample.calls = []  # in the records now
                for model in {id(model): model for model in llm.models.values()}.values():
                    model.commit()
                self.seconds = {name: before.get(name, 0.0) + seconds for name, seconds in llm.seconds.items()}
                write_if_changed(self.folder / SECONDS, [json.dumps(self.seconds).encode()])
                bar.update(len(made))

    def _repair(self, total: int, batch: int) -> int:
        """Cut off half lines and unfinished batches; the number of records left."""
        if not self.path.exists():
            return 0
        ends = [0]
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                number = None
                with suppress(ValueError, KeyError, TypeError):
                    number = json.loads(line)["sample"]
                if number != len(ends) - 1:
                    raise InputError(
                        f"{self.path}, line {len(ends)}: no record of sample {len(ends) - 1}, the file is damaged: "
                        "delete that line and those below it"
                    )
                ends.append(ends[-1] + len(line))
        done = len(ends) - 1
        if done > total:
            raise InputError(f"{self.path} holds {done} records, there are {total} samples: name another folder")
        if done < total:
            done -= done % batch
        if ends[done] < self.path.stat().st_size:
            os.truncate(self.path, ends[done])
        return done

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self.path.exists():
            with self.path.open(encoding="utf-8") as file:
                yield from map(json.loads, file)


def costs(records: Records, models: Mapping[str, Judge]) -> dict[str, dict[str, float]]:
    """Calls, tokens, seconds and price of each model over all records, those of earlier processes included."""
    counted = {name: Counter[str]() for name in models}
    for record in records:
        for call in record["calls"]:
            counted[call["model"]]["calls"] += 1
            for name in ("prompt_tokens", "response_tokens"):
                counted[call["model"]][name] += call[name]
    found: dict[str, dict[str, float]] = {}
    for name, model in models.items():
        prompt, response = counted[name]["prompt_tokens"], counted[name]["response_tokens"]
        found[name] = {
            "calls": counted[name]["calls"],
            "prompt_tokens": prompt,
            "response_tokens": response,
            "seconds": records.seconds.get(name, 0.0),
            "price": (prompt * model.prompt_price + response * model.response_price) / 1e6,
        }
    return found


def json_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """A line a row."""
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def write_if_changed(path: Path, parts: Iterable[bytes]) -> None:
    """Atomic write that leaves a file of the same content alone, its time too."""
    new = path.with_name(f".{path.name}.new")
    write_bytes_atomically(new, parts)
    if path.is_file() and filecmp.cmp(new, path, shallow=False):
        new.unlink()
    else:
        new.replace(path)
        sync(path.parent)

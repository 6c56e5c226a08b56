"""Facts of a finished run, `run.json`, for the commands that compare runs with a plan or a law."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.run_folder import CONFIG, METRICS, RUN_FACTS


def read_run_facts(folder: Path, said: str, needed: Sequence[str]) -> dict[str, Any]:
    """Contents of `run.json`, refused where the run did not end.

    Args:
        folder: run folder.
        said: the folder's name in an error message, such as `--verify runs/a`.
        needed: names that must be there.

    Raises:
        InputError: when the folder holds no finished run, or its facts are damaged.
    """
    if not folder.is_dir():
        raise InputError(f"{said}: not a folder: give the folder of a finished run that used callbacks.Throughput")
    for name in (RUN_FACTS, CONFIG, METRICS):
        if not (folder / name).is_file():
            raise InputError(
                f"{said}: no {name} in it: give the folder of a finished run that used callbacks.Throughput"
            )
    try:
        facts = json.loads((folder / RUN_FACTS).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{said}: its run.json is damaged ({error}), run it again to its end") from error
    if not isinstance(facts, dict):
        raise InputError(f"{said}: its run.json is damaged (no object but {facts!r}), run it again to its end")
    for name in needed:
        if facts.get(name) is None:
            raise InputError(f"{said}: its run.json has no {name}, it did not end or ran elsewhere: run it to its end")
    return facts

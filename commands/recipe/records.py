"""Records of a recipe: of each stage the dependencies and the state of its last start, in `recipe.json`.

They are the recipe's memory and nothing else is: a stage is judged by them and by what lies in its folder.
"""

import json
from dataclasses import asdict
from pathlib import Path

from commands.recipe.plan import Record
from common.errors import InputError
from common.files import write_text_atomically

RECORDS = "recipe.json"


def read_records(root: Path) -> dict[str, Record]:
    """Records by stage.

    Raises:
        InputError: when the file is damaged.
    """
    path = root / RECORDS
    if not path.exists():
        return {}
    try:
        return {name: Record.of(stored) for name, stored in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error!r}): move it and the stages' folders away") from error


def write_records(root: Path, records: dict[str, Record]) -> None:
    """Replace the records in one step."""
    stored = {name: asdict(record) for name, record in records.items()}
    write_text_atomically(root / RECORDS, json.dumps(stored, indent=1))

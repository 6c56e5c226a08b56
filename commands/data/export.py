"""`export`: writes prepared tokens for another trainer."""

from pathlib import Path
from typing import Literal

from common.errors import InputError
from datamodules.pretraining import PretrainingData
from datamodules.shards.megatron_export import export_megatron


def export(datamodule: PretrainingData, output: str, format: Literal["megatron"] = "megatron") -> None:
    """Write the tokens of every source and split in the format of another trainer.

    Args:
        datamodule: data module of the configuration; prepared first if it is not yet.
        output: folder to write to.
        format: megatron writes .bin and .idx files for Megatron-LM, and the tokenizer.
    """
    if not isinstance(datamodule, PretrainingData):
        raise InputError(f"export: {type(datamodule).__name__} has no shards, give a pretraining configuration")
    prepared = datamodule.run_stages()
    for path in export_megatron(prepared.shards, prepared.load_tokenizer(), Path(output)):
        print(f"exported: {path}.bin, {path.name}.idx")

"""`prepare`: collects, cleans, tokenizes and packs the data of a configuration, without a model or a trainer."""

from callbacks.reports.data_report import write_data_report
from common.artifacts import remove_unfinished
from common.errors import InputError
from datamodules.conversation_data import ConversationDataModule
from datamodules.pretraining import PretrainingData


def prepare(datamodule: PretrainingData | ConversationDataModule, clean: bool = False) -> None:
    """Collect, clean, tokenize and pack the data, without training.

    Args:
        datamodule: data module of the configuration.
        clean: delete what stopped runs with other settings left unfinished in the folder of prepared data.
    """
    if isinstance(datamodule, PretrainingData):
        print(f"prepared: {datamodule.run_stages().shards}")
        print(f"report: {write_data_report(datamodule.summary(), datamodule.folder, datamodule.folder.name)}")
    elif isinstance(datamodule, ConversationDataModule):
        print(f"prepared: {datamodule.run_stages()}")
    else:
        raise InputError(f"prepare: {type(datamodule).__name__} prepares nothing, give data that reads text or rows")
    for path in remove_unfinished(datamodule.folder) if clean else []:
        print(f"deleted: {path}")

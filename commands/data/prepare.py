"""`prepare`: collects, cleans, tokenizes and packs the data of a configuration, without a model or a trainer."""

from callbacks.reports.data_report import write_data_report
from common.errors import InputError
from datamodules.conversation_data import ConversationDataModule
from datamodules.pretraining import PretrainingData


def prepare(datamodule: PretrainingData | ConversationDataModule) -> None:
    """Collect, clean, tokenize and pack the data, without training.

    Args:
        datamodule: data module of the configuration.
    """
    if isinstance(datamodule, PretrainingData):
        print(f"prepared: {datamodule.run_stages().shards}")
        print(f"report: {write_data_report(datamodule.summary(), datamodule.folder, datamodule.folder.name)}")
    elif isinstance(datamodule, ConversationDataModule):
        print(f"prepared: {datamodule.run_stages()}")
    else:
        raise InputError(f"prepare: {type(datamodule).__name__} prepares nothing, give data that reads text or rows")

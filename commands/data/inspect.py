"""`inspect`: explains what curation did with documents, from the files it wrote."""

from common.errors import InputError
from datamodules.pretraining import PretrainingData


def inspect(datamodule: PretrainingData, why: str | None = None, reason: str | None = None, samples: int = 3) -> None:
    """Clean the data if that is not done, and show what became of it, or of one document; nothing is tokenized.

    Args:
        datamodule: data module of the configuration.
        why: a document's id (decimal or hexadecimal) or its path in provenance: whether it was kept and where, or by
            which step it was dropped, for which measured value against which threshold of which paper, or which
            document it duplicates.
        reason: show only documents dropped for this reason, or `kept` ones.
        samples: documents to show for each reason.
    """
    if not isinstance(datamodule, PretrainingData):
        raise InputError(f"inspect: {type(datamodule).__name__} cleans no documents, give a pretraining configuration")
    if samples < 1:
        raise InputError(f"--samples {samples}: must be at least 1")
    print(datamodule.explain(why) if why is not None else datamodule.examples(reason, samples))

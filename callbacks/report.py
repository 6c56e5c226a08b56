"""Report callback: the page of a run when training ends.

The page is made from the run's files (`callbacks.reports.run_report`), which the command `report` does as well; the
callback saves that command and gives the loggers what curation counted.
"""

import json
from pathlib import Path
from typing import Any

import lightning

from callbacks.reports.charts import BITS
from callbacks.reports.data_report import flat_numbers
from callbacks.reports.run_report import read_curves, write_report
from common.contracts import SummarizedData, attached_data
from common.files import write_text_atomically
from common.run_folder import DATA_SUMMARY, METRICS


class Report(lightning.Callback):
    """Writes `report.html` into the run's folder when training ends, and prints bits per byte by source.

    What curation counted goes to the loggers as facts about the run, when training begins.
    """

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        data = attached_data(trainer)
        if not isinstance(data, SummarizedData) or not trainer.is_global_zero:
            return
        numbers = flat_numbers(data.summary())
        for logger in trainer.loggers if numbers else []:
            logger.log_hyperparams(numbers)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if not trainer.is_global_zero:
            return
        run = Path(trainer.default_root_dir)
        data = attached_data(trainer)
        if isinstance(data, SummarizedData):
            write_text_atomically(run / DATA_SUMMARY, json.dumps(data.summary()))
        if not (run / METRICS).exists():
            return
        if not read_curves(run):
            return
        final = {name: curve[1][-1] for name, curve in read_curves(run).items() if name.startswith(BITS)}
        if final:
            print("\nvalidation bits per byte")
        for name, value in sorted(final.items(), key=lambda item: item[1]):
            print(f"  {name.removeprefix(BITS):<16}{value:8.3f}")
        print(f"report: {write_report(run)}")

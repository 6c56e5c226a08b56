"""`report`: writes the HTML page of a run again, from the files in its folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from commands.argument_parser import CommandArguments
from common.errors import InputError


def report(arguments: list[str], resolve: Callable[[list[str]], tuple[dict[str, Any], list[Path]]]) -> None:
    """Write the report of a run.

    Args:
        arguments: those after the command's name.
        resolve: makes the whole configuration of `fit` from its arguments.
    """
    parser = CommandArguments("report", "in place of RUN: --config FILE, and what else fit reads")
    parser.add_argument("run", metavar="RUN", nargs="?", help="folder of the run")
    first, *_ = arguments or [""]
    # argparse would take the value of an option it does not know for RUN.
    if first.startswith("-") and first not in ("-h", "--help"):
        parser.refuse_unknown(arguments)
        configuration, _ = resolve(["fit", *arguments])
        run = configuration["trainer"].get("default_root_dir") or "runs/default"
    else:
        run = parser.parse_args(arguments).run
    if run is None:
        raise InputError("report: name the folder of a run, or give --config FILE as for fit")

    from callbacks.reports.run_report import write_report

    print(f"report: {write_report(Path(run))}")

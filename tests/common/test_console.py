"""Messages where the terminal's encoding lacks their characters."""

import os
import subprocess
import sys

from tests.helpers.corpus import ROOT

PROGRAM = """
from commands.cli import main
try:
    main(["--version"])
except SystemExit:
    print("dot \\u2022")
"""


def test_a_terminal_without_unicode_stops_no_command() -> None:
    """A bar of progress once ended a trained run with a codec's error."""
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment.pop("PYTHONIOENCODING", None)
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, cwd=ROOT, env=environment | {"PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, rb"dot \u2022"), done.stderr

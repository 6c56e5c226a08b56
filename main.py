"""Command line of the project: `python main.py COMMAND`, or `llm COMMAND` where the project is installed.

data        prepare, inspect, export, classifier
training    fit, validate, test, predict, report, recipe
alignment   constitution, compare
models      generate, chat, evaluate, convert
planning    plan, parity, scaling_law, schema

`--help` shows a line about each of them, `COMMAND --help` an example and the options. This file is an entry point
and nothing else: what the commands are is in `commands/registry.py`, what they do in the other packages.
"""

from commands.cli import main

if __name__ == "__main__":
    main()

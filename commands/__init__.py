"""Commands of the command line: one module each, started by `commands.cli` from the list in `commands.registry`."""

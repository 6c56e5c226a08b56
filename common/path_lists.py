"""Lists of paths as options: one path needs no list around it, on the command line and in YAML."""

PathList = str | list[str]
"""Type of an option that takes paths. Text comes first: the parser would read a list from the file that it names."""


def path_list(paths: PathList | None) -> list[str]:
    """Paths as a list; None is an empty one."""
    if paths is None:
        return []
    return [paths] if isinstance(paths, str) else list(paths)

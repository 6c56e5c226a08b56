"""Lists of paths as options: one path needs no list around it, on the command line and in YAML."""

PathList = list[str] | str
"""Type of an option that takes paths. The list comes first: a text that reads as a YAML list is one."""


def path_list(paths: PathList | None) -> list[str]:
    """Paths as a list; None is an empty one."""
    if paths is None:
        return []
    return [paths] if isinstance(paths, str) else list(paths)

"""Lists of paths as options: one path needs no list around it, on the command line and in YAML."""

import glob
import os

PathList = str | list[str]
"""Type of an option that takes paths. Text comes first: the parser would read a list from the file that it names."""


def path_list(paths: PathList | None) -> list[str]:
    """Paths as a list; None is an empty one."""
    if paths is None:
        return []
    return [paths] if isinstance(paths, str) else list(paths)


def expand_pattern(path: str) -> list[str]:
    """Files and folders that a pattern with `*` matches, sorted; the path itself where it exists or matches none."""
    local = os.path.expanduser(path)
    if "://" in path or os.path.exists(local):
        return [path]
    return sorted(glob.glob(local, recursive=True)) or [path]

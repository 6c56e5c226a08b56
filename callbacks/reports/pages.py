"""Page templates and files: values are escaped, and a page is written whole or not at all."""

import functools
from pathlib import Path

import jinja2

from common.files import write_text_atomically


@functools.cache
def template(name: str) -> jinja2.Template:
    """Template of a page, with HTML escaping."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    return environment.get_template(name)


def write_page(path: Path, page: str) -> Path:
    """Write a page in one step and return its path."""
    write_text_atomically(path, page)
    return path


def shown(text: str) -> str:
    """Text with control characters made visible: HTML has no way to hold them."""
    return "".join(c if c in "\n\t" or (c >= " " and c != "\x7f") else f"\\x{ord(c):02x}" for c in text)

"""Jinja environments for the pages and cards that are written: a name that is missing is an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def environment(package: str, *, escape: bool = True, keep_trailing_newline: bool = False) -> Environment:
    """The templates of a package.

    Args:
        package: with a folder `templates`.
        escape: as HTML; Markdown has an escape of its own.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(package),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=keep_trailing_newline,
    )

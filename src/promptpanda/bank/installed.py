"""Banks that other distributions bring: read beside the user's own, never written to.

A distribution names its bank in its pyproject.toml; the value is the folder (a string or a path), a function that
returns it, or the module whose folder it is:

    [project.entry-points."promptpanda.banks"]
    starter = "my_bank:FOLDER"
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from promptpanda.errors import PandaError
from promptpanda.files import check_name
from promptpanda.plugins import loaded, one_line, source_of

GROUP = "promptpanda.banks"


@cache
def installed_banks() -> tuple[dict[str, Path], tuple[str, ...]]:
    """Folders by the banks' names, and what is wrong with those that cannot be used, one sentence each."""
    found: dict[str, Path] = {}
    problems: list[str] = []
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        try:
            if point.name in found:
                raise PandaError(
                    f"The bank {point.name!r} of {source_of(point)} has the name of another; it is left out."
                )
            found[check_name(point.name, "Name of a bank")] = _folder(point)
        except PandaError as error:
            problems.append(str(error))
    return found, tuple(problems)


def _folder(point: EntryPoint) -> Path:
    value = loaded(point)
    try:
        if isinstance(value, ModuleType):
            value = Path(str(value.__file__)).parent
        elif callable(value):
            value = value()
    except Exception as error:  # a stranger's code may raise anything
        raise PandaError(
            f"The bank {point.name!r} of {source_of(point)} cannot be found: {one_line(error)}."
        ) from error
    if not isinstance(value, (str, Path)) or not Path(value).is_dir():
        raise PandaError(f"The bank {point.name!r} of {source_of(point)} is not a folder: found {str(value)[:200]!r}.")
    return Path(value)

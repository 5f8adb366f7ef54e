"""Entries of a registry that other distributions bring: found through entry points, or registered in a running program.

A distribution names its entries in its pyproject.toml, and they are there once it is installed:

    [project.entry-points."promptpanda.methods"]
    half_source = "my_package.methods:HALF_SOURCE"

An entry that cannot be loaded is a problem to be told; it takes nothing else down.
Reference: https://packaging.python.org/en/latest/specifications/entry-points/
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from promptpanda.errors import PandaError

T = TypeVar("T")

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


class Registry(Mapping[str, T], Generic[T]):
    """Entries by name: our own first, then those of other distributions, then those of this program.

    Entry points are loaded when the registry is first read, so that importing the package stays quick.

    Args:
        group: of the entry points, such as `promptpanda.methods`.
        own: our own entries.
        check: makes an entry of what an entry point holds, or raises PandaError: (object, name, where it comes from).
    """

    def __init__(self, group: str, own: Mapping[str, T], check: Callable[[object, str, str], T]) -> None:
        self._group, self._own, self._check = group, dict(own), check
        self._registered: dict[str, T] = {}
        self._found: dict[str, T] | None = None
        self._problems: list[str] = []

    def __getitem__(self, name: str) -> T:
        return self._own[name] if name in self._own else self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def register(self, name: str, entry: object) -> None:
        """Add an entry for as long as the program runs; one that was registered before under its name is replaced.

        Raises:
            PandaError: the name is taken by one of ours or of an installed distribution, or is no name; or the entry is
                not what the registry holds.
        """
        self._registered[self._free(name, "this program", self._installed())] = self._check(entry, name, "this program")

    def foreign(self) -> list[str]:
        """The names that are not our own."""
        return [name for name in self._all() if name not in self._own]

    def problems(self) -> list[str]:
        """What is wrong with entries that could not be loaded, or failed; one sentence each."""
        self._installed()
        return list(self._problems)

    def report(self, problem: str) -> None:
        """Add a problem that showed when an entry was used."""
        if problem not in self._problems:
            self._problems.append(problem)

    def _all(self) -> dict[str, T]:
        return {**self._own, **self._installed(), **self._registered}

    def _installed(self) -> dict[str, T]:
        if self._found is None:
            self._found = {}
            for point in sorted(entry_points(group=self._group), key=lambda point: (point.name, point.value)):
                try:
                    name = self._free(point.name, source_of(point), self._found)
                    self._found[name] = self._check(loaded(point), name, source_of(point))
                except PandaError as error:
                    self.report(str(error))
        return self._found

    def _free(self, name: str, source: str, taken: Mapping[str, T]) -> str:
        if not _NAME.fullmatch(name):
            raise PandaError(
                f"{name!r} of {source} is not a valid name for {self._group}: lower-case letters, digits and _ serve, "
                "at most "
                "40, a letter first."
            )
        if name in self._own or name in taken:
            raise PandaError(f"The name {name!r} of {source} in {self._group} is taken; choose another.")
        return name


def source_of(point: EntryPoint) -> str:
    """The distribution that an entry point comes from, with its version."""
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value


def loaded(point: EntryPoint) -> object:
    """What an entry point holds. Raises PandaError, whatever went wrong in its module."""
    try:
        return point.load()
    except Exception as error:  # a stranger's module may raise anything
        raise PandaError(
            f"The entry point {point.name!r} ({point.group}) of {source_of(point)} cannot be used: "
            f"{one_line(error)}; update or uninstall that package."
        ) from error


def one_line(error: BaseException) -> str:
    """An exception of a stranger's code in one line."""
    text = " ".join(str(error).split())[:200].rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

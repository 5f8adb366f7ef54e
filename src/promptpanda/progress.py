"""How long work is and how far it has come, for whoever wants to show it. The library itself prints nothing."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told by long work what it does."""

    def begin(self, label: str, total: int) -> None:
        """A piece of work of `total` units starts."""

    def advance(self, units: int) -> None:
        """That many units more are done."""

    def note(self, message: str) -> None:
        """Something the user should know."""


class Silent:
    """Shows nothing."""

    def begin(self, label: str, total: int) -> None: ...

    def advance(self, units: int) -> None: ...

    def note(self, message: str) -> None: ...

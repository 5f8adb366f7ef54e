"""How much work there is and how much is done, for callers who want to show it. The library itself prints nothing."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the progress of long work. Pass an object with these methods as `progress`."""

    def begin(self, label: str, total: int) -> None:
        """A piece of work of `total` units starts; `label` names it."""

    def advance(self, units: int) -> None:
        """This many more units are done."""

    def note(self, message: str) -> None:
        """A sentence that the user should read."""


class Silent:
    """Progress that shows nothing."""

    def begin(self, label: str, total: int) -> None: ...

    def advance(self, units: int) -> None: ...

    def note(self, message: str) -> None: ...

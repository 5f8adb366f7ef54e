"""The one exception that a user can fix. Its message is one sentence: what was found, what was expected, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PandaError(ValueError):
    """An error that the caller can fix.

    Its message is one sentence: what was found, what was expected, and what to do. The command line prints the message
    and exits with code 2.
    """


def suggest(name: str, known: Iterable[str]) -> str:
    """' Did you mean X?' for the known name nearest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""

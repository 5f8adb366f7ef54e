"""Adding a method or an estimator to a running program, such as a notebook; packages use entry points instead."""

from __future__ import annotations

from promptpanda.errors import PandaError
from promptpanda.transfers.estimators import ESTIMATORS, Estimator
from promptpanda.transfers.method import Method
from promptpanda.transfers.methods import METHODS


def register(entry: Method | Estimator | type[Estimator], name: str | None = None) -> None:
    """Register your own method or estimator by name, for as long as the program runs.

    It can then be used wherever ours can: `transfer(methods=...)`, `rank`, recipes, reports.

    Args:
        entry: a `Method`, an `Estimator`, or a class of estimators that needs no arguments.
        name: lower-case letters, digits and `_`. A method is registered under its own name by default; an estimator
            needs a name.

    Raises:
        PandaError: the entry is neither a method nor an estimator, or the name is missing, invalid, or taken.
    """
    if isinstance(entry, Method):
        METHODS.register(entry.name if name is None else name, entry)
    elif isinstance(entry, Estimator) or (isinstance(entry, type) and issubclass(entry, Estimator)):
        if name is None:
            raise PandaError('An estimator is registered under a name; say register(estimator, "my_name").')
        ESTIMATORS.register(name, entry)
    else:
        raise PandaError(f"register takes a Method or an Estimator, found {type(entry).__name__}.")

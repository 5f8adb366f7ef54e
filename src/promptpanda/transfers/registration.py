"""Adding a method or an estimator to a running program, a notebook say; distributions use entry points instead."""

from __future__ import annotations

from promptpanda.errors import PandaError
from promptpanda.transfers.estimators import ESTIMATORS, Estimator
from promptpanda.transfers.method import Method
from promptpanda.transfers.methods import METHODS


def register(entry: Method | Estimator | type[Estimator], name: str | None = None) -> None:
    """Make a method or an estimator known by name, as long as the program runs.

    It is then taken wherever ours are: `transfer(methods=...)`, `rank`, recipes, reports.

    Args:
        entry: a `Method`, an `Estimator`, or a class of estimators that needs no arguments.
        name: lower-case letters, digits and `_`; of a method its own name is taken, an estimator needs one.

    Raises:
        PandaError: it is neither, or the name is missing, no name, or taken by one of ours or of an installed package.
    """
    if isinstance(entry, Method):
        METHODS.register(entry.name if name is None else name, entry)
    elif isinstance(entry, Estimator) or (isinstance(entry, type) and issubclass(entry, Estimator)):
        if name is None:
            raise PandaError('An estimator is registered under a name; say register(estimator, "my_name").')
        ESTIMATORS.register(name, entry)
    else:
        raise PandaError(f"register takes a Method or an Estimator, found {type(entry).__name__}.")

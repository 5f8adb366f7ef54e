"""The same done to many things at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from promptpanda.errors import PandaError

T = TypeVar("T")
R = TypeVar("R")


def in_parallel(
    function: Callable[[T], R], things: Sequence[T], workers: int, done: Callable[[], None], *, strict: bool = False
) -> list[R | PandaError]:
    """Results in the order of the things; of those for which a PandaError was raised, that error.

    Any other exception, or with `strict` any at all, is raised once what has begun is finished; the rest is not begun.
    """

    def tried(thing: T) -> R | PandaError:
        try:
            return function(thing)
        except PandaError as error:
            if strict:
                raise
            return error

    with ThreadPoolExecutor(max(1, min(workers, len(things)))) as pool:
        waiting = [pool.submit(tried, thing) for thing in things]
        results = []
        try:
            for one in waiting:
                results.append(one.result())
                done()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results

"""Independent forward passes at once: on a CPU a thread for each, and one of torch's threads in each.

Threads that share one pass wait for each other in every layer; two with a pass each do about a third more
(docs/log.md). What a pass gives does not depend on which others run beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Within, torch computes with so many threads; afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def mapped(function: Callable[[Item], Result], items: Sequence[Item], device: torch.device) -> Iterator[Result]:
    """What a function makes of each item, in their order.

    Args:
        function: may be called by several threads at once, unless `device` is a GPU or torch has one thread.
    """
    threads = min(torch.get_num_threads(), len(items))
    if device.type != "cpu" or threads < 2:
        yield from map(function, items)
        return
    # A part of the setting that the pool's threads make is the process's.
    with (
        torch_threads(torch.get_num_threads()),
        ThreadPoolExecutor(threads, "pass", initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        yield from pool.map(function, items)

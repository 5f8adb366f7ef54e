"""The queue before the model: rows that wait, of all requests, and the threads that compute them in batches.

On a CPU two threads with a batch each do more in the same time than two threads on one batch, which wait for each other
in every layer (docs/log.md).
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from promptpanda.serving.limits import RefusedError
from promptpanda.serving.mixing import Piece, Work

_Key = tuple[int, int, int]  # tokens of a row, number of its work, number of the row


class Runner(Protocol):
    """What the threads do with the model."""

    def enter(self) -> None:
        """Called once by each thread, before anything else."""

    def run(self, pieces: Sequence[Piece]) -> None:
        """Compute rows; what it raises is the fault of some of them."""

    def idle(self) -> None:
        """Nobody has asked for `idle_after` seconds; nothing is computed meanwhile."""


class Batcher:
    """Rows of all requests wait here, and leave in batches of similar length.

    Requests take turns: the one whose turn it is puts its longest row into the next batch, and the rows of any request
    that are nearest in length fill it. So a large request does not hold up small ones, and no row waits for ever.

    Args:
        runner: what computes.
        max_batch: rows of a batch.
        max_wait: seconds that a row may wait for others while the model has nothing else to do.
        max_queue: rows that may wait.
        idle_after: seconds without work after which `runner.idle` is called, once; None: never.
        workers: threads that compute a batch each. Few rows are shared out among those that are free.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        max_batch: int,
        max_wait: float,
        max_queue: int,
        idle_after: float | None = None,
        workers: int = 1,
    ) -> None:
        self._runner = runner
        self._max_batch, self._max_wait, self._max_queue = max_batch, max_wait, max_queue
        self._idle_after = idle_after
        self._changed = threading.Condition()
        self._turns: deque[Work] = deque()
        self._rows: dict[object, list[_Key]] = {}  # by form, sorted
        self._works: dict[int, Work] = {}
        self._next_number = 0
        self._numbers: dict[int, int] = {}  # of a work, by its identity
        self._jobs: deque[Iterator[str]] = deque()
        self._closing = self._held = False  # held: one thread is to have the model for itself
        self._busy = 0  # threads that compute
        self._threads = [
            threading.Thread(target=self._loop, args=(number == 0,), name=f"model {number}", daemon=True)
            for number in range(workers)
        ]

    def start(self) -> None:
        """Begin to compute."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Take nothing more, finish what was taken, and end the threads."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    @property
    def waiting(self) -> int:
        """Rows that were not begun."""
        return sum(map(len, self._rows.values()))

    def submit(self, work: Work) -> None:
        """Queue a work. Raises RefusedError if the queue has no room for it."""
        if work.rows > self._max_queue:
            raise RefusedError(
                413,
                f"The texts make {work.rows} rows for the model, at most {self._max_queue} are allowed; send fewer.",
            )
        with self._changed:
            if self._closing:
                raise RefusedError(503, "The server is being stopped; try again when it is back.")
            if self.waiting + work.rows > self._max_queue:
                raise RefusedError(429, "Too many rows are waiting for the model; try again in a moment.")
            number = self._next_number
            self._next_number += 1
            self._works[number], self._numbers[id(work)] = work, number
            lengths = work.encoded.row_lengths
            rows = self._rows.setdefault(work.form, [])
            for row in sorted(range(work.rows), key=lambda row: -int(lengths[row])):
                work.waiting[row] = None
                insort(rows, (int(lengths[row]), number, row))
            work.arrived = time.monotonic()
            self._turns.append(work)
            self._changed.notify_all()

    def cancel(self, work: Work) -> bool:
        """Forget the rows of a work that were not begun; nobody waits for its outputs any more.

        Returns whether it was known until now.
        """
        with self._changed:
            number = self._numbers.pop(id(work), None)
            if number is None:
                return False
            del self._works[number]
            rows = self._rows[work.form]
            rows[:] = [key for key in rows if key[1] != number]
            work.waiting.clear()
            return True

    def run(self, job: Iterator[str]) -> None:
        """Have something else done with the model, which nothing else uses meanwhile: step by step, batches in between.

        Args:
            job: says after each step what it did; it raises nothing.
        """
        with self._changed:
            if self._closing:
                raise RefusedError(503, "The server is being stopped; try again when it is back.")
            self._jobs.append(job)
            self._changed.notify_all()

    def _loop(self, first: bool) -> None:
        """What a thread does; the first of them also takes the steps of jobs, and tells that nobody asks."""
        self._runner.enter()
        while self._await_work(first):
            with self._changed:
                self._gather()
                pieces = [] if self._held else self._take()
                self._busy += bool(pieces)
            if pieces:
                self._compute(pieces)
                with self._changed:
                    self._busy -= 1
                    self._changed.notify_all()
            if first and self._jobs:
                with self._alone():
                    if next(self._jobs[0], None) is None:
                        self._jobs.popleft()

    def _await_work(self, first: bool) -> bool:
        """Sleep until there is something to do. False: there never will be."""
        idle_after = self._idle_after if first else None
        while True:
            with self._changed:
                if not self._has_work(first) and not self._closing:
                    woken = self._changed.wait(idle_after)
                if self._has_work(first):
                    return True
                if self._closing:
                    return False
                idle = not woken and not self._works
            if idle:
                with self._alone():
                    self._runner.idle()
                idle_after = None

    def _has_work(self, first: bool) -> bool:
        return (first and bool(self._jobs)) or (self.waiting > 0 and not self._held)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Within, no other thread computes."""
        with self._changed:
            self._held = True
            self._changed.wait_for(lambda: self._busy == 0)
        try:
            yield
        finally:
            with self._changed:
                self._held = False
                self._changed.notify_all()

    def _gather(self) -> None:
        """Give a batch that is not full a moment to fill. Called with the lock, which is free while it waits."""
        while not self._closing and not self._jobs and 0 < self.waiting < self._max_batch:
            oldest = min(work.arrived for work in self._works.values() if work.waiting)
            left = oldest + self._max_wait - time.monotonic()
            if left <= 0:
                return
            self._changed.wait(left)

    def _take(self) -> list[Piece]:
        """The rows of the next batch. Called with the lock."""
        while self._turns and not self._turns[0].waiting:
            self._turns.popleft()
        if not self._turns:
            return []
        work = self._turns.popleft()
        rows = self._rows[work.form]
        first = next(iter(work.waiting))
        key = int(work.encoded.row_lengths[first]), self._numbers[id(work)], first
        share = -(-len(rows) // (len(self._threads) - self._busy))
        start, stop = _narrowest(rows, bisect_left(rows, key), min(share, self._max_batch))
        chosen: dict[int, list[int]] = {}
        for _, number, row in rows[start:stop]:
            chosen.setdefault(number, []).append(row)
            del self._works[number].waiting[row]
        del rows[start:stop]
        if work.waiting:
            self._turns.append(work)
        return [(self._works[number], tuple(own)) for number, own in chosen.items()]

    def _compute(self, pieces: list[Piece]) -> None:
        try:
            self._runner.run(pieces)
        except Exception as error:
            if len(pieces) == 1:
                pieces[0][0].error = error
            else:  # whose fault it is shows when each is computed alone
                for piece in pieces:
                    self._compute([piece])
                return
        for work, _ in pieces:
            if work.error is not None or len(work.outputs) == work.rows:
                self._release(work)

    def _release(self, work: Work) -> None:
        if self.cancel(work):  # else it was cancelled meanwhile, or another thread computed its last rows too
            work.done()


def _narrowest(rows: list[_Key], place: int, size: int) -> tuple[int, int]:
    """Where, around a place in sorted rows, the `size` rows stand whose lengths differ least."""
    size = min(size, len(rows))
    starts = range(max(0, place - size + 1), min(place, len(rows) - size) + 1)
    start = min(starts, key=lambda start: rows[start + size - 1][0] - rows[start][0])
    return start, start + size

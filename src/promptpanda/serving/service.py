"""What stands behind the HTTP routes: one model, the prompts of the banks, and the queue between requests and model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from promptpanda.errors import PandaError
from promptpanda.serving.batching import Batcher
from promptpanda.serving.limits import Limits, RefusedError, outward
from promptpanda.serving.messages import inputs_of, response_prediction
from promptpanda.serving.metrics import Metrics
from promptpanda.serving.mixing import Piece, Work, compute, finished, prepared
from promptpanda.serving.model import Model
from promptpanda.serving.registry import Entry, Registry
from promptpanda.transfers.calibrated import calibrated as calibrated_prompt

_MOST_WORKERS = 8  # beyond, Python's lock holds them up


class Service:
    """Answers for all prompts of some banks with one model.

    Args:
        model: the backbone.
        banks: folders of banks by name.
        installed: names of those that packages bring; whether the server is ready depends on the others.
        limits: of every request.
        max_batch, max_wait: rows of a batch, and seconds that a row waits for others (`Batcher`).
        idle_after: seconds without a request after which model and prompts are let go; None: never.
        threads: that compute; on a CPU up to eight batches are computed at once, elsewhere one.
        tell: takes sentences for the log.
    """

    def __init__(
        self,
        model: Model,
        banks: Mapping[str, Path],
        *,
        limits: Limits,
        tell: Callable[[str], None],
        installed: Collection[str] = (),
        max_batch: int = 32,
        max_wait: float = 0.004,
        idle_after: float | None = None,
        threads: int = 1,
    ) -> None:
        workers = min(threads, _MOST_WORKERS) if model.backbone.device.type == "cpu" else 1
        self._threads_each = threads // workers
        self.model, self.limits, self.tell = model, limits, tell
        self.registry = Registry(banks, model, tell)
        self._own = set(banks).difference(installed)
        self.batcher = Batcher(
            self,
            max_batch=max_batch,
            max_wait=max_wait,
            max_queue=limits.queue,
            idle_after=idle_after,
            workers=workers,
        )
        self.metrics = Metrics(
            waiting=lambda: self.batcher.waiting,
            served=lambda: sum(entry.served for entry in self.registry.entries()),
            loaded=lambda: model.loaded,
        )
        # One thread: a tokenizer serves one at a time.
        self._preparing = ThreadPoolExecutor(1, thread_name_prefix="texts")
        self._stopping = self._ranking = False

    def start(self) -> None:
        self.registry.start()
        self.batcher.start()

    def close(self) -> None:
        """Finish what was accepted, then end all threads."""
        self._stopping = True
        self.batcher.close()
        self._preparing.shutdown()
        self.registry.close()

    @contextmanager
    def one_ranking(self) -> Iterator[None]:
        """Rankings take the model's time; there is one at a time. Raises RefusedError (429) for a second."""
        if self._ranking:
            raise RefusedError(429, "Another request is ranking the bank just now; try again in a moment.")
        self._ranking = True
        try:
            yield
        finally:
            self._ranking = False

    def unready(self) -> str | None:
        """Why nobody should be sent here now, or None."""
        if self._stopping:
            return "The server is being stopped."
        if self._own and self._own <= self.registry.gone:
            return "The bank is gone."
        return None

    def enter(self) -> None:
        """Called by each thread that runs the model: torch's number of threads is each thread's own."""
        torch.set_num_threads(self._threads_each)

    def run(self, pieces: Sequence[Piece]) -> None:
        """Compute rows. Called by the threads that run the model."""
        backbone = self.model.ready()
        began = time.perf_counter()
        compute(backbone, pieces)
        self.metrics.model_seconds.inc(time.perf_counter() - began)
        self.metrics.batch_rows.observe(sum(len(rows) for _, rows in pieces))
        self.metrics.batch_prompts.observe(len({id(work.trained) for work, _ in pieces}))

    def idle(self) -> None:
        """Let go what can be read again. Called by a thread that runs the model, while no other computes."""
        if self.model.loaded:
            self.model.release()
            self.registry.release()
            self.tell("No requests: model and prompts are unloaded until the next one.")

    async def predict(
        self,
        entry: Entry,
        texts: Sequence[Any] | None,
        rows: Sequence[dict[str, Any]] | None,
        *,
        gone: Callable[[], Awaitable[None]],
        probabilities: bool = False,
        top: int | None = None,
        calibrated: bool = False,
    ) -> list[dict[str, Any]]:
        """Predictions of a prompt for texts or rows, as `predict` gives them.

        Args:
            gone: returns when whoever asked is not there any more.
            calibrated: scale probabilities by the temperature in the prompt's card.

        Raises:
            RefusedError: the texts cannot be read, there is no room, no time, or the model fails on them.
            ConnectionError: whoever asked is gone.
        """
        began = time.perf_counter()
        found = await self._answered(entry, texts, rows, gone, calibrated)
        self.metrics.rows.labels(entry.id).inc(len(found))
        self.metrics.seconds.labels(entry.id).observe(time.perf_counter() - began)
        return [response_prediction(one, probabilities=probabilities, top=top) for one in found]

    async def _answered(
        self,
        entry: Entry,
        texts: Sequence[Any] | None,
        rows: Sequence[dict[str, Any]] | None,
        gone: Callable[[], Awaitable[None]],
        calibrate: bool,
    ) -> list[dict[str, Any]]:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()

        def done() -> None:
            with suppress(RuntimeError):  # the loop was closed: nobody waits
                loop.call_soon_threadsafe(ready.set)

        def prepare() -> Work:
            trained = self.registry.trained(entry)
            inputs = inputs_of(trained.card, texts, rows)
            try:
                if calibrate:
                    trained = calibrated_prompt(trained)
                with self.model.tokenizing:
                    return prepared(self.model.backbone, trained, inputs, done)
            except PandaError as error:
                raise RefusedError(422, outward(error)) from error

        work = None
        try:
            async with asyncio.timeout(self.limits.seconds):
                work = await loop.run_in_executor(self._preparing, prepare)
                self.batcher.submit(work)
                await first_of(ready.wait(), gone())
                if not ready.is_set():
                    raise ConnectionError
                if work.error is None:
                    return await loop.run_in_executor(self._preparing, finished, work)
        except TimeoutError as error:
            raise RefusedError(
                503, f"There was no answer within {self.limits.seconds:g} seconds; send fewer rows, or try again later."
            ) from error
        except PandaError as error:
            raise RefusedError(422, outward(error)) from error
        finally:
            if work is not None:
                self.batcher.cancel(work)
        raise self._failed(work.error)

    def _failed(self, error: Exception) -> Exception:
        """What a failure of the model means to whoever asked."""
        return RefusedError(503, outward(error)) if isinstance(error, PandaError) else error


async def first_of(*waiting: Awaitable[Any]) -> None:
    """Wait for the first of them, and give up the others."""
    tasks = [asyncio.ensure_future(one) for one in waiting]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()

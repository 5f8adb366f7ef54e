"""Where work is carried out: in this process, in others of this machine, on a Dask cluster, on Slurm.

The driver talks to any executor of the shape of `concurrent.futures`; a `Workers` is one with what it needs to know
beside that.
"""

from __future__ import annotations

import concurrent.futures
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from promptpanda.errors import PandaError

IN_PROCESS = "in-process"
FORMS = f"{IN_PROCESS}, processes:N, dask://HOST:PORT, tcp://HOST:PORT, slurm:N"
_POLL = 1.0  # seconds between two looks at Slurm's jobs
_JOB_MINUTES = 24 * 60  # of a Slurm job, where SBATCH_TIMELIMIT does not say

Answer = TypeVar("Answer")


class Executor(Protocol):
    """What is used of an executor of `concurrent.futures`."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """Begin a call."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Free what it holds."""


@dataclass
class Workers:
    """An executor, and how many calls it carries out at once.

    Attributes:
        make: gives an executor; called again when the last one broke.
        count: how many workers there are now.
        stop: ends calls that are under way, where the executor itself cannot; None where it can or none is.
    """

    make: Callable[[], Executor]
    count: Callable[[], int]
    stop: Callable[[], None] | None = None
    _executor: Executor | None = None

    @classmethod
    def around(cls, executor: Executor, count: int) -> Workers:
        """Workers from any executor of `concurrent.futures`."""
        return cls(lambda: executor, lambda: count)

    def submit(self, function: Callable[..., Answer], /, *arguments: Any) -> Future[Answer]:
        """Begin a call. A broken executor is replaced."""
        if self._executor is None:
            self._executor = self.make()
        try:
            return self._executor.submit(function, *arguments)
        except concurrent.futures.BrokenExecutor:
            self.close()
            self._executor = self.make()
            return self._executor.submit(function, *arguments)

    def close(self, *, kill: bool = False) -> None:
        """Free what the executor holds; with `kill`, end what is under way."""
        if kill and self.stop is not None:
            self.stop()
        if self._executor is not None:
            self._executor.shutdown(wait=not kill, cancel_futures=True)
            self._executor = None


def workers_named(name: str) -> int:
    """How many workers a name of `--executor` tells by itself; of a cluster 1."""
    kind, _, rest = name.partition(":")
    return _count(name, rest) if kind in ("processes", "slurm") and rest else 1


def workers_of(name: str, folder: Path, *, threads: int = 1) -> Workers:
    """The workers that `--executor` names.

    Args:
        folder: where Slurm's jobs leave their files.
        threads: of a run.

    Raises:
        PandaError: an unknown form, a missing extra, or a cluster that does not answer.
    """
    if name == IN_PROCESS:
        return Workers(InProcess, lambda: 1)
    kind, _, rest = name.partition(":")
    if kind == "processes":
        count = _count(name, rest)
        return Workers(lambda: _processes(count), lambda: count, _kill_children)
    if kind in ("dask", "tcp") and rest.startswith("//"):
        return _dask(f"tcp:{rest}")
    if kind == "slurm":
        count = _count(name, rest or "1")
        jobs = Jobs(folder, "slurm", threads)
        return Workers.around(jobs, count)
    raise PandaError(f"No executor {name!r}; there are {FORMS}.")


class InProcess(concurrent.futures.Executor):
    """Calls at once, in this process."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments, **keywords))
        except Exception as error:
            future.set_exception(error)
        return future


def _count(name: str, text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 10_000:
        raise PandaError(f"--executor {name!r} needs a number of workers, such as {name.partition(':')[0]}:2.")
    return int(text)


def _processes(count: int) -> Executor:
    from multiprocessing import get_context

    return concurrent.futures.ProcessPoolExecutor(count, get_context("spawn"), _begin_worker)


def _begin_worker() -> None:
    """In a new worker process: Ctrl-C is the driver's business, and without a driver there is no work."""
    import multiprocessing
    from multiprocessing.connection import wait

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        assert parent is not None
        wait([parent.sentinel])
        os._exit(1)  # the queue of a killed driver never ends by itself

    if parent is not None:
        threading.Thread(target=watch, daemon=True).start()


def _kill_children() -> None:
    import multiprocessing

    for child in multiprocessing.active_children():
        child.kill()


def _dask(address: str) -> Workers:
    try:
        from distributed import Client
    except ImportError as error:
        raise PandaError("The executor dask needs the extra: pip install 'promptpanda[dask]'.") from error
    try:
        client: Any = Client(address, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise PandaError(
            f"No Dask scheduler answers at {address}; start one (dask scheduler) or check the address."
        ) from error

    def count() -> int:
        if client.status != "running":
            raise PandaError(
                f"The Dask scheduler at {address} is gone; what was finished is kept, run the command again."
            )
        threads = client.nthreads()
        if any(number > 1 for number in threads.values()):
            raise PandaError(
                "A run sets the threads of its whole process, so Dask's workers must take one run at a time: start "
                "them with --nthreads 1 (and --nworkers for more of them)."
            )
        return len(threads)

    class ClosingExecutor:
        def __init__(self) -> None:
            self._executor = client.get_executor(pure=False)

        def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
            future: Future[Any] = self._executor.submit(function, *arguments)
            return future

        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            self._executor.shutdown(wait=wait)  # cancels what is not done
            client.close()

    count()
    return Workers(ClosingExecutor, count)


class Jobs(concurrent.futures.Executor):
    """Every call a job of submitit. Its futures are watched by one thread.

    Args:
        folder: on a file system that all nodes share.
        cluster: `slurm`, or `local` for processes of this machine.
        threads: of a run, for each of which a job gets a core.
    """

    def __init__(self, folder: Path, cluster: str, threads: int = 1) -> None:
        try:
            import submitit
        except ImportError as error:
            raise PandaError("The executor slurm needs the extra: pip install 'promptpanda[slurm]'.") from error
        try:
            self._executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        except RuntimeError as error:
            raise PandaError(f"Slurm cannot be used here ({error}); choose another --executor.") from error
        # submitit asks for five minutes where nothing is said; SBATCH_TIMELIMIT, where it is set, goes before this.
        self._executor.update_parameters(name="panda-sweep", timeout_min=_JOB_MINUTES, cpus_per_task=threads)
        self._jobs: dict[Future[Any], Any] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
        job = self._executor.submit(function, *arguments, **keywords)
        future: Future[Any] = Future()
        with self._lock:
            self._jobs[future] = job
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        while wait and not cancel_futures and self._jobs:
            time.sleep(_POLL)
        self._closed.set()
        with self._lock:
            for job in self._jobs.values():
                job.cancel()
            self._jobs.clear()

    def _watch(self) -> None:
        while not self._closed.wait(_POLL):
            with self._lock:
                done = [(future, job) for future, job in self._jobs.items() if job.done()]
                for future, _ in done:
                    del self._jobs[future]
            for future, job in done:
                try:
                    future.set_result(job.result())
                except Exception as error:  # whatever became of the job, the driver decides what to do
                    future.set_exception(error)

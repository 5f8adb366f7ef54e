"""The driver: it gives runs to workers, writes what comes back, and alone writes."""

from __future__ import annotations

import concurrent.futures
import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from promptpanda.bank.bank import Bank
from promptpanda.bank.card import Card, TestCard
from promptpanda.errors import PandaError
from promptpanda.files import check_name, sweep_staging, whole_folder
from promptpanda.progress import Progress, Silent
from promptpanda.sweep.cache import Planned
from promptpanda.sweep.estimate import Clock
from promptpanda.sweep.executors import Workers
from promptpanda.sweep.filters import RunFilter, chosen, duration
from promptpanda.sweep.pending import is_intact, pending_runs
from promptpanda.sweep.row import ID_LIMIT, Row
from promptpanda.sweep.spec import RunSpec
from promptpanda.sweep.store import Store
from promptpanda.sweep.work import Order, PromptFiles, Result, execute, failed_row, reason_of

_ATTEMPTS = 3  # of a run whose worker is lost
_LOOK = 5.0  # seconds after which the workers are looked at, if nothing happened
_BECAUSE = "It starts from a run that failed"

Stopped = Literal["limit", "time-limit"]


@dataclass(frozen=True)
class Outcome:
    """What a call came to.

    Attributes:
        total: runs that the call was about, with those that they start from.
        finished, failed: of these, in the store.
        left: not done yet.
        begun: by this call.
        stopped: by which wish, or None if nothing is left to do.
        seconds: wall time.
        seconds_left: what those that are left will take, or None where it cannot be told.
    """

    total: int
    finished: int
    failed: tuple[Row, ...]
    left: int
    begun: int
    stopped: Stopped | None
    seconds: float
    seconds_left: float | None


@contextmanager
def exclusive(store: Path) -> Iterator[None]:
    """Be the only driver of a store. Raises PandaError at once if there is another; a killed one leaves no trace."""
    lock = FileLock(store.with_name(f"{store.name}.lock"))
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise PandaError(
            f"Another sweep is running on {store}; wait until it is done, or choose another place (--out)."
        ) from error
    except OSError as error:
        raise PandaError(
            f"A sweep cannot write in {store.parent} ({error.strerror or error}); choose another place (--out), what "
            "was finished is kept."
        ) from error
    try:
        yield
    finally:
        lock.release()


def drive(
    planned: Planned,
    store: Store,
    bank: Bank,
    workers: Workers,
    clock: Clock,
    *,
    run_filter: RunFilter | None = None,
    progress: Progress | None = None,
    record: Callable[[Row], None] | None = None,
) -> Outcome:
    """Carry out the runs of a plan that the store has not finished. The caller holds `exclusive` on the store.

    Args:
        record: takes every row that is written, when it is.

    Raises:
        PandaError: the store cannot be written, or the workers are gone.
    """
    calm = False
    try:
        chosen_runs = run_filter or RunFilter()
        driver = _Driver(planned, store, bank, workers, clock, chosen_runs, progress or Silent(), record)
        outcome = driver.run()
        calm = True
        return outcome
    finally:
        workers.close(kill=not calm)


class _Driver:
    def __init__(
        self,
        planned: Planned,
        store: Store,
        bank: Bank,
        workers: Workers,
        clock: Clock,
        run_filter: RunFilter,
        progress: Progress,
        record: Callable[[Row], None] | None,
    ) -> None:
        self._record = record
        self._planned, self._store, self._bank, self._workers = planned, store, bank, workers
        self._clock, self._run_filter, self._progress = clock, run_filter, progress
        self._rows = {row.key: row for row in store.rows()}
        self._attempts: dict[RunSpec, int] = {}
        self._under_way: dict[Future[Result], RunSpec] = {}
        self._failed_again: dict[RunSpec, Row] = {}  # finished before, but their prompt could not be made again
        self._suspects: list[RunSpec] = []  # were under way when a pool broke; one by one they tell which did it
        self._begun: set[RunSpec] = set()
        self._stopped: Stopped | None = None
        sweep_staging(bank.folder)
        self._unreferenced = (
            set(bank.ids()) - store.prompts()
        )  # a driver may have been killed before it wrote their rows
        self._concerned = list(
            dict.fromkeys(one for spec in chosen(planned.plan.runs, run_filter.only) for one in spec.closure())
        )
        self._todo = pending_runs(planned, self._rows, bank, chosen(planned.plan.runs, run_filter.only), run_filter)

    def run(self) -> Outcome:
        """Work until nothing is left, or a wish stops it."""
        self._clock.observe_all(self._planned.plan.runs, self._rows)
        if self._run_filter.time_limit is not None:
            self._clock.measure(self._todo)
        self._progress.begin("sweep", len(self._todo))
        self._fail_dependents()
        while True:
            self._begin_runs()
            if not self._under_way:
                break
            done, _ = concurrent.futures.wait(self._under_way, _LOOK, concurrent.futures.FIRST_COMPLETED)
            if not done:
                self._workers.count()  # raises if they are gone for good
            for future in done:
                self._collect(self._under_way.pop(future), future)
        rows = [row for row in map(self._row, self._concerned) if row is not None]
        failed = tuple(row for row in rows if row.status == "failed")
        return Outcome(
            len(self._concerned),
            len(rows) - len(failed),
            failed,
            len(self._todo),
            len(self._begun),
            self._stopped if self._todo else None,
            time.monotonic() - self._run_filter.began,
            self._seconds_left(),
        )

    def _row(self, spec: RunSpec) -> Row | None:
        return self._rows.get(self._planned.keys[spec].key)

    def _seconds_left(self) -> float | None:
        return self._clock.total(self._todo, self._workers.count()) if self._todo else 0.0

    def _begin_runs(self) -> None:
        """Give runs to all workers that are free."""
        while len(self._under_way) < (1 if self._suspects else max(1, self._workers.count())):
            spec = self._next()
            if spec is None:
                return
            order = self._order(spec)
            if isinstance(order, Row):
                self._settle(spec, order)
                self._fail_dependents()
                continue
            self._attempts[spec] = self._attempts.get(spec, 0) + 1
            self._begun.add(spec)
            self._under_way[self._workers.submit(execute, order)] = spec

    def _next(self) -> RunSpec | None:
        """A run that can be begun now, if a wish does not forbid it."""
        busy = set(self._under_way.values())
        ready = (
            spec
            for spec in self._suspects or self._todo
            if spec not in busy and all(need not in self._todo for need in spec.needs.values())
        )
        for spec in ready:
            if (
                self._run_filter.limit is not None
                and spec not in self._begun
                and len(self._begun) >= self._run_filter.limit
            ):
                self._stopped = "limit"
                return None
            if self._in_time(spec):
                return spec
            self._stopped = "time-limit"
        return None

    def _in_time(self, spec: RunSpec) -> bool:
        if self._run_filter.time_limit is None:
            return True
        needed = self._clock.seconds(spec) or 0.0
        return time.monotonic() - self._run_filter.began + needed <= self._run_filter.time_limit

    def _fail_dependents(self) -> None:
        """Runs that start from a failed one fail because of it, and so do those that start from them."""
        for spec in list(self._todo):  # in topological order, so that one pass suffices
            for need in spec.needs.values():
                row = self._failed_again.get(need) or self._row(need)
                if need not in self._todo and row is not None and row.status == "failed":
                    reason = row.reason or ""
                    if not reason.startswith(_BECAUSE):
                        reason = f"{_BECAUSE} ({need.label}): {reason}"
                    self._settle(spec, failed_row(self._bare(spec), reason))
                    break

    def _order(self, spec: RunSpec) -> Order | Row:
        """What the worker is told; or why the run cannot be begun."""
        order = self._bare(spec)
        try:
            for role, need in spec.needs.items():
                row = self._row(need)
                assert row is not None and row.prompt is not None
                order.prompts[role] = PromptFiles.of(self._bank.folder / row.prompt)
        except OSError as error:
            return failed_row(order, f"The prompt that it starts from cannot be read ({error.strerror or error}).")
        if spec.method is None:
            return order
        own = self._store.trained_alike(self._planned.keys[spec].training)
        own += [name for name in sorted(self._unreferenced) if name.startswith(f"{spec.task}-s{spec.seed}-")]
        found = [self._bank.folder / name for name in own if (self._bank.folder / name).is_dir()]
        return replace(order, candidates=tuple(PromptFiles.of(folder) for folder in found))

    def _bare(self, spec: RunSpec) -> Order:
        plan = self._planned.plan
        return Order(
            spec=spec,
            key=self._planned.keys[spec].key,
            model=plan.models[spec.model],
            task=plan.tasks[spec.task],
            data_dir=self._planned.data_dir,
            backbone_fingerprint=self._planned.backbones[spec.model],
            facts=self._planned.facts[spec.task],
            prompts={},
        )

    def _collect(self, spec: RunSpec, future: Future[Result]) -> None:
        """Write what came of a run; one whose worker was lost is begun again."""
        try:
            result = future.result()
        except (Exception, concurrent.futures.CancelledError) as error:
            # A worker makes a row of all that a run raises; so the worker itself is lost.
            if isinstance(error, BrokenExecutor) and spec not in self._suspects:
                self._suspects.append(spec)  # another run may have done it, so this does not count
                self._attempts[spec] -= 1
            elif self._attempts[spec] >= _ATTEMPTS:
                reason = f"Its worker was lost {_ATTEMPTS} times ({type(error).__name__}); it may need too much memory."
                self._settle(spec, failed_row(self._bare(spec), reason))
                self._fail_dependents()
            return
        row = result.row
        if result.prompt is not None:
            try:
                _write(result.prompt, self._bank.folder)
            except (OSError, PandaError) as error:
                row = failed_row(self._bare(spec), f"Its prompt could not be written: {reason_of(error)}")
        else:
            _record_test(row, self._bank)
        self._settle(spec, row, result)
        if row.status == "failed":
            self._fail_dependents()

    def _settle(self, spec: RunSpec, row: Row, result: Result | None = None) -> None:
        before = self._row(spec)
        attempts = (0 if before is None else before.attempts) + self._attempts.pop(spec, 1)
        row = row.model_copy(update={"attempts": attempts})
        answers = None if result is None else result.answers
        if before is not None and before.status == "finished" and row.status == "failed":
            self._failed_again[spec] = row  # what was earned stands; what needs the prompt learns why it is not there
        else:
            self._store.write(row, answers, self._planned.keys[spec].training)
            self._rows[row.key] = row
            if self._record is not None:
                self._record(row)
        self._unreferenced.discard(row.prompt or "")
        self._todo.pop(spec)
        if spec in self._suspects:
            self._suspects.remove(spec)
        if row.status == "finished":
            self._clock.learn(spec, row.seconds)
        self._progress.advance(1)
        self._progress.note(self._line(spec, row))

    def _line(self, spec: RunSpec, row: Row) -> str:
        total = len(self._concerned)
        if row.status == "failed":
            outcome = f"failed: {row.reason}"
        elif row.validation is not None and row.metric is not None:
            outcome = f"validation {row.metric} {row.validation[row.metric]:.3f}, {row.seconds:.1f} s"
        else:
            outcome = f"{row.seconds:.1f} s"
        left = self._seconds_left()
        end = "" if left is None or not self._todo else f"; {duration(left)} left"
        return f"[{total - len(self._todo)}/{total}] {spec.label}: {outcome}{end}"


def _record_test(row: Row, bank: Bank) -> None:
    """Let the card of a prompt that was trained before tell the test scores too, if it tells none."""
    if row.prompt is None or row.test is None or not (bank.folder / row.prompt).is_dir():
        return
    with contextlib.suppress(PandaError):  # a damaged one is made again by the run that needs it
        card = Card.read(bank.folder / row.prompt)
        if card.test is None and row.n_test is not None and row.test_fingerprint is not None:
            test = TestCard(scores=row.test, n_test=row.n_test, data_fingerprint=row.test_fingerprint)
            card.model_copy(update={"test": test}).write(bank.folder / row.prompt)


def _write(prompt: PromptFiles, bank: Path) -> None:
    """Write a prompt's folder, whole or not at all. A sound one of the same id stays; a damaged one is replaced."""
    target = bank / check_name(prompt.id, "Prompt id", ID_LIMIT)
    if target.exists() and not is_intact(target):
        shutil.rmtree(target)
    with whole_folder(target) as staging:
        for name, content in prompt.files.items():
            (staging / check_name(name, "File of a prompt")).write_bytes(content)

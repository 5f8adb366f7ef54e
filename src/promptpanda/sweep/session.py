"""A sweep from a recipe to a store: what `panda sweep` does, for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from promptpanda.bank.bank import Bank
from promptpanda.errors import PandaError
from promptpanda.progress import Progress, Silent
from promptpanda.sweep.cache import CACHE, identify
from promptpanda.sweep.drive import Outcome, drive, exclusive
from promptpanda.sweep.estimate import Clock, Forecast, Work, forecast
from promptpanda.sweep.exchange import export_rows, import_rows
from promptpanda.sweep.executors import IN_PROCESS, Workers, workers_of
from promptpanda.sweep.filters import RunFilter, chosen
from promptpanda.sweep.pending import pending_runs
from promptpanda.sweep.plan import expand
from promptpanda.sweep.recipe import SweepRecipe
from promptpanda.sweep.row import Row
from promptpanda.sweep.store import STORE_NAME, Store, is_superseded


@dataclass(frozen=True)
class Places:
    """Where a sweep reads and writes.

    Attributes:
        out: folder of the store.
        bank: folder of the prompts; by default beside the store.
        data_dir: data root, or None for what the recipe or PANDA_DATA names.
        base: the folder that the recipe's relative paths start from.
    """

    out: Path
    bank: Path | None = None
    data_dir: Path | None = None
    base: Path | None = None

    @property
    def store(self) -> Path:
        return self.out / STORE_NAME

    def open_bank(self) -> Bank:
        return Bank(self.bank or self.out / "bank")

    def data(self, recipe: SweepRecipe) -> Path | None:
        """The data root of a recipe."""
        if self.data_dir is not None or recipe.data_dir is None:
            return self.data_dir
        return (self.base or Path()) / Path(recipe.data_dir).expanduser()


def sweep(
    recipe: SweepRecipe,
    places: Places,
    *,
    workers: Workers | str = IN_PROCESS,
    run_filter: RunFilter | None = None,
    imported: Path | None = None,
    command: str = "",
    progress: Progress | None = None,
    record: Callable[[Row], None] | None = None,
) -> Outcome:
    """Carry out a recipe. What the store has finished is not computed again.

    Args:
        workers: where runs are carried out; a name as of `--executor`, or `Workers.around` any executor.
        imported: rows of another store (`export`), taken as finished first.
        command: how the call was made, for the record.
        record: takes every row that this call adds, when it is in the store.

    Raises:
        PandaError: something that the caller can mend, before anything begins; or the store cannot be written.
    """
    run_filter, progress = run_filter or RunFilter(), progress or Silent()
    plan = expand(recipe, places.base)
    chosen(plan.runs, run_filter.only)
    with exclusive(places.store):
        CACHE.forget()
        if isinstance(workers, str):
            workers = workers_of(workers, places.out / "slurm", threads=recipe.threads)
        with Store.create(places.store) as store:
            store.note(name=recipe.name, recipe=recipe.to_yaml(), command=command)
            if imported is not None:
                progress.note(f"{_import(store, imported)} rows taken from {imported}.")
            progress.note(f"Reading the data of {len(plan.tasks)} tasks, and {len(plan.models)} models.")
            planned = identify(plan, recipe.protocol, places.data(recipe))
            store.note(plan=json.dumps({planned.keys[spec].key: spec.variant for spec in plan.runs}))
            clock = Clock(Work(planned))
            return drive(
                planned,
                store,
                places.open_bank(),
                workers,
                clock,
                run_filter=run_filter,
                progress=progress,
                record=record,
            )


def preview(
    recipe: SweepRecipe,
    places: Places,
    *,
    workers: int = 1,
    run_filter: RunFilter | None = None,
    imported: Path | None = None,
) -> Forecast:
    """What a recipe holds, and what is left of it takes. Nothing is written.

    Where a model or data is not at hand, runs are counted all the same, and the forecast says why there is no time.
    """
    run_filter = run_filter or RunFilter()
    plan = expand(recipe, places.base)
    requested = list(dict.fromkeys(one for spec in chosen(plan.runs, run_filter.only) for one in spec.closure()))
    CACHE.forget()
    try:
        planned = identify(plan, recipe.protocol, places.data(recipe))
    except PandaError as error:
        return forecast(plan, requested, why_unknown=str(error))
    rows: dict[str, Row] = {}
    if places.store.is_file():
        with Store.open(places.store) as store:
            rows = {row.key: row for row in store.rows()}
    for row in [] if imported is None else import_rows(imported)[0]:
        if row.key not in rows or is_superseded(rows[row.key], row):
            rows[row.key] = row
    status = {spec: rows[planned.keys[spec].key].status for spec in plan.runs if planned.keys[spec].key in rows}
    left = list(pending_runs(planned, rows, places.open_bank(), chosen(plan.runs, run_filter.only), run_filter))
    clock = Clock(Work(planned))
    clock.observe_all(plan.runs, rows)
    clock.measure(left)
    return forecast(plan, left, status={**status}, clock=clock, workers=workers)


def export(store: Path, path: Path) -> int:
    """Write all rows of a store to a Parquet or CSV file; returns how many."""
    with Store.open(store) as opened:
        rows = opened.rows()
        export_rows(rows, opened.answers(), path)
    return len(rows)


def import_rows_of(store: Path, path: Path) -> int:
    """Take rows that `export` wrote into a store, as they are; returns how many were new."""
    with exclusive(store), Store.create(store) as opened:
        return _import(opened, path)


def _import(store: Store, path: Path) -> int:
    return store.join(*import_rows(path))

"""Which runs of a plan are left to do, by what the store and the bank have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from promptpanda.bank.bank import Bank
from promptpanda.bank.card import Card
from promptpanda.bank.folder import check_files
from promptpanda.bank.layout import CARD_NAME
from promptpanda.errors import PandaError
from promptpanda.sweep.cache import Planned
from promptpanda.sweep.filters import RunFilter
from promptpanda.sweep.row import Row
from promptpanda.sweep.spec import RunSpec


def pending_runs(
    planned: Planned, rows: Mapping[str, Row], bank: Bank, requested: Sequence[RunSpec], run_filter: RunFilter
) -> dict[RunSpec, None]:
    """The runs that are asked for and not done, and what they start from where that is missing, in their order.

    Args:
        rows: what the store has, by key.
    """
    required: set[RunSpec] = set()

    def row_of(spec: RunSpec) -> Row | None:
        return rows.get(planned.keys[spec].key)

    def is_open(row: Row | None) -> bool:
        return row is None or (row.status == "failed" and run_filter.retry_failed)

    def want(spec: RunSpec) -> None:
        if spec not in required:
            required.add(spec)
            for need in spec.needs.values():
                row = row_of(need)
                if is_open(row) or (row is not None and _lacking(row, bank, run_filter)):
                    want(need)

    for spec in requested:
        if is_open(row_of(spec)):
            want(spec)
    return dict.fromkeys(spec for spec in planned.plan.runs if spec in required)


def _lacking(row: Row, bank: Bank, run_filter: RunFilter) -> bool:
    """Whether a finished run's prompt must be made again: its row was imported, or its folder is gone.

    A folder without a card is what a loss of power leaves. A damaged one counts as gone when failed runs are tried
    again; until then those that need it say so.
    """
    if row.status == "failed" or row.prompt is None:
        return False
    folder = bank.folder / row.prompt
    return not (folder / CARD_NAME).is_file() or (run_filter.retry_failed and not is_intact(folder))


def is_intact(folder: Path) -> bool:
    """Whether a prompt's folder has all its files, unchanged."""
    try:
        check_files(folder, Card.read(folder))
    except PandaError:
        return False
    return True

"""The table of controls."""

from __future__ import annotations

import statistics

from promptpanda.cli import output
from promptpanda.transfers.methods import METHODS
from promptpanda.transfers.result import TransferResult
from promptpanda.transfers.scores import spread


def print_ablation(result: TransferResult) -> None:
    """Controls in rows, if they were asked for."""
    if result.ablation is None:
        return
    rows = []
    for name, one in result.ablation.items():
        rows.append(
            [
                name,
                one.control.changed or METHODS[one.control.method].title,
                output.points(one.mean),
                output.points(one.std),
                output.points(statistics.fmean(one.validation)),
                output.points(spread(one.validation)),
                f"{statistics.fmean(one.gains):+.3f}",
                f"{one.cost:.1f}",
                one.control.question,
            ]
        )
    where = "test" if result.n_test else "validation"
    title = f"Ablation: one thing changed at a time (gain: over prompt tuning, {where} data; cost: trainings per seed)"
    columns = ["control", "what is changed", "test mean", "std", "validation mean", "std", "gain", "cost", "question"]
    output.print_table(title, columns, rows, (2, 3, 4, 5, 6, 7), optional=(8, 3, 5))

"""The table of a transfer."""

from __future__ import annotations

from promptpanda.cli import output
from promptpanda.transfers.methods import METHODS
from promptpanda.transfers.transfer import TransferResult


def print_transfer(result: TransferResult) -> None:
    """Methods in rows; test scores where there are test data, else validation scores, labelled as such."""
    metric = result.task.spec.metric
    counts = f"{result.n_train} training and {result.n_val} validation examples"
    where = f"{result.n_test} test examples" if result.n_test else "no test data: validation scores only"
    if result.protocol == "paper":
        where = f"{result.n_test} official validation examples, which also chose the epoch"
    seeds = ",".join(map(str, result.seeds))
    title = (
        f"{result.task.name}, {metric}; source {result.source or 'none'}; {counts}, {where}; "
        f"{result.protocol} protocol, seeds {seeds}"
    )
    rows = []
    for name, method in result.methods.items():
        validation = sum(method.validation) / len(method.validation)
        rows.append(
            [
                METHODS[name].title + (" *" if name == result.chosen else ""),
                output.points(method.mean),
                output.points(method.std),
                output.points(validation),
                f"{method.seconds:.0f}",
            ]
        )
    if result.constant is not None:
        rows.append(["(a constant)", output.points(result.constant), "-", "-", "-"])
    columns = ["method (* chosen)", "test mean", "std", "validation mean", "seconds"]
    output.print_table(title, columns, rows, (1, 2, 3, 4))

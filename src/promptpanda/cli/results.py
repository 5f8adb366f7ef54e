"""The table of a transfer."""

from __future__ import annotations

import statistics

import typer

from promptpanda.cli import output
from promptpanda.transfers.frozen import FrozenEmbeddings
from promptpanda.transfers.methods import METHODS
from promptpanda.transfers.result import TransferResult


def print_transfer(result: TransferResult) -> None:
    """Methods in rows; test scores where there are test data, else validation scores, labelled as such."""
    metric = result.task.spec.metric
    quick = result.selection is not None and not result.selection[0].posterior
    counts = f"{result.n_train} training and {result.n_val} validation examples"
    if quick:
        counts = f"{result.n_train + result.n_val} labelled examples, all trained on"
    where = f"{result.n_test} test examples" if result.n_test else "no test data"
    if not result.n_test and not quick:
        where += ": validation scores only"
    if result.protocol == "paper":
        where = f"{result.n_test} official validation examples, which also chose the epoch"
    seeds = ",".join(map(str, result.seeds))
    title = (
        f"{result.task.name}, {metric}; source {result.source or 'none'}; {counts}, {where}; "
        f"{result.protocol} protocol, seeds {seeds}"
    )
    rows = []
    for name, method in result.methods.items():
        validation = None if method.validation is None else sum(method.validation) / len(method.validation)
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
    if quick and not result.n_test:
        rows += _probes(result)
    if result.frozen_embeddings is not None:
        rows.append(_frozen(result.frozen_embeddings))
    columns = ["method (* chosen)", "test mean", "std", "validation mean", "seconds"]
    output.print_table(title, columns, rows, (1, 2, 3, 4))
    if result.selection is not None:
        _print_selection(result)


def _probes(result: TransferResult) -> list[list[str]]:
    """The line that says how good the chosen prompt is at least, where no example was kept back to measure it."""
    found = [one.cross_validation for one in result.selection or () if one.cross_validation is not None]
    if not found:
        return []
    under = "its source" if METHODS[result.chosen].needs_source else "the bare model"
    return [[f"(linear probe of {under}, cross-validated)", "-", "-", output.points(statistics.fmean(found)), "-"]]


def _frozen(frozen: FrozenEmbeddings) -> list[str]:
    """The line to compare with; without test data its cross-validated score, which is of all labelled examples."""
    name, validation = f"{frozen.model} on frozen embeddings", None
    if frozen.mean is None:
        name, validation = f"{name}, cross-validated", statistics.fmean(frozen.cross_validation)
    return [
        f"({name})",
        output.points(frozen.mean),
        output.points(frozen.std),
        output.points(validation),
        f"{frozen.seconds:.0f}",
    ]


def _print_selection(result: TransferResult) -> None:
    """One row a seed: what won the race, what was chosen, how sure that is. And what it cost."""
    assert result.selection is not None
    rows = []
    for seed, one in zip(result.seeds, result.selection, strict=True):
        if one.gain is None:
            continue
        expected, gain = one.posterior[one.chosen], one.gain
        rows.append(
            [
                str(seed),
                "-" if one.trial.source is None else one.trial.source.id,
                METHODS[one.chosen].title,
                f"{expected.mean:.3f} +- {expected.se:.3f}",
                f"{gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})",
                "yes" if gain.distinguishable else "no",
            ]
        )
    columns = ["seed", "winner of the race", "chosen", "expected score", "validation gain over prompt tuning", "sure"]
    title = "Selection (expected: shrunken validation score; sure: the 95 % interval of the gain leaves out 0)"
    if rows:
        output.print_table(title, columns, rows)
    planned = sum(one.planned for one in result.selection) / len(result.selection)
    typer.echo(f"Cost: {result.cost:.1f} trainings per seed ({planned:.1f} planned).")

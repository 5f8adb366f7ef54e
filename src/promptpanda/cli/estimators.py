"""panda estimators [evaluate]"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptpanda.cli import output
from promptpanda.cli.command import command
from promptpanda.cli.options import Json
from promptpanda.errors import PandaError

if TYPE_CHECKING:
    from promptpanda.evaluation.agreement import Measured
    from promptpanda.evaluation.result import Choice, ModelEvaluation

app = typer.Typer(invoke_without_command=True)

_PROMPTS, _EXAMPLES = 21, 100  # what costs are told for
_NEEDS = {
    "bank": "the bank alone",
    "examples": "the target's examples",
    "labels": "the target's examples and labels",
    "target_prompt": "a prompt trained on the target",
}


@app.callback()
def list_estimators(context: typer.Context, json: Json = False) -> None:
    """List the estimators, which predict how well a source will help: needs, costs and references."""
    if context.invoked_subcommand is not None:
        return
    from promptpanda.tasks.protocol import validation_size
    from promptpanda.tasks.spec import Kind
    from promptpanda.training.defaults import resolved
    from promptpanda.training.options import TrainingOptions
    from promptpanda.transfers.estimators import DEFAULT_ESTIMATOR, estimators

    n_train = _EXAMPLES - validation_size(_EXAMPLES)
    epochs = resolved(TrainingOptions(), Kind.SINGLE_CLASSIFICATION, n_train).epochs
    known = estimators()
    costs = {name: one.cost.relative(_PROMPTS, _EXAMPLES, n_train, epochs) for name, one in known.items()}
    if json:
        output.print_json(
            {
                "default": DEFAULT_ESTIMATOR,
                "estimators": {
                    name: {
                        "needs": one.needs,
                        "cost": one.cost.words,
                        "passes": one.cost.passes,
                        "trainings": costs[name],
                        "reference": one.reference,
                    }
                    for name, one in known.items()
                },
            }
        )
        return
    lines = [
        [name, _NEEDS[one.needs], f"{costs[name]:.2f}", one.cost.words, one.reference] for name, one in known.items()
    ]
    output.print_table(None, ["estimator", "needs", "trainings", "cost", "reference"], lines, (2,))
    typer.echo(
        f"trainings: the cost of scoring {_PROMPTS} prompts for a target of {_EXAMPLES} examples, in units of one "
        "training on it.\nA forward pass is one over all these examples, and counts a third; estimators share the "
        f"passes and the training.\npanda rank orders by {DEFAULT_ESTIMATOR}."
    )


@command(app, "evaluate")
def evaluate_estimators(
    paper: Annotated[Path | None, typer.Option(help="Folder with the published tables.json and heatmaps.json.")] = None,
    store: Annotated[
        Path | None, typer.Option(help="Folder or store of a sweep, or rows that --export wrote (.parquet, .csv).")
    ] = None,
    json: Json = False,
) -> None:
    """Compare the predictions of estimators with measured transfers: published ones, or those of a sweep."""
    if paper is None and store is None:
        raise PandaError(
            "Estimators are evaluated on measured transfers: give --store with a sweep's folder, --paper with the "
            "folder of the published tables, or both."
        )
    from promptpanda.evaluation.grid import evaluate_rows
    from promptpanda.evaluation.paper import evaluate_paper
    from promptpanda.evaluation.result import Evaluation
    from promptpanda.sweep.exchange import read_rows

    found = Evaluation({})
    if paper is not None:
        found = found.joined(evaluate_paper(paper))
    if store is not None:
        rows, _, _, plan = read_rows(store)
        found = found.joined(evaluate_rows(rows, plan=plan))
    if json:
        output.print_json(found.to_json())
        return
    for name, model in found.models.items():
        _print_model(name, model)
    if found.left_out:
        pairs = ", ".join(f"{source} for {target}" for source, target in found.left_out)
        typer.echo(f"Left out, since the sets share texts: {pairs}.")


def _print_model(name: str, model: ModelEvaluation) -> None:
    from promptpanda.evaluation.grid import KS

    if model.regret:
        columns = ["estimator", "Spearman", "where gains", "Kendall", "regret top 1", "regret top 3"]
        lines = [
            [
                name,
                *(
                    _with_error(table[name], 2) if name in table else "-"
                    for table in (model.spearman, model.spearman_where_gains, model.kendall)
                ),
                *(_with_error(by_k[k], 1) if k in by_k else "-" for k in KS),
            ]
            for name, by_k in model.regret.items()
        ]
    else:
        columns = ["estimator", "Spearman", "Kendall"]
        lines = [
            [estimator, _with_error(value, 2), _with_error(model.kendall[estimator], 2)]
            for estimator, value in model.spearman.items()
        ]
    numeric = tuple(range(1, len(columns)))
    output.print_table(
        f"{name}: estimators against {model.measured}, mean over {len(model.targets)} targets ± its standard error",
        columns,
        lines,
        numeric,
    )
    rules = [
        [rule, _mean(choice.points, 1), _with_error(choice.gain, 1), _range(choice)]
        for rule, choice in model.selection.items()
    ]
    output.print_table(
        f"{name}: what selection rules reach, in points", ["rule", "PoT", "gain", "range over ties"], rules, (1, 2, 3)
    )


def _mean(value: Measured, digits: int) -> str:
    return "-" if value.mean is None else f"{value.mean:.{digits}f}"


def _with_error(value: Measured, digits: int) -> str:
    error = "" if value.targets_error is None else f" ± {value.targets_error:.{digits}f}"
    return _mean(value, digits) + error


def _range(choice: Choice) -> str:
    return "" if choice.low is None else f"{choice.low:.1f} to {choice.high:.1f}"

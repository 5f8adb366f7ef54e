"""Tables over all groups: what stands out, models of several sizes, sources, failed runs, where it comes from."""

from __future__ import annotations

from collections.abc import Sequence

from promptpanda.report.answers import Comparison
from promptpanda.report.constants import COLUMN, constant_cells, mean_constant
from promptpanda.report.predicted import mean_agreement, mean_cell
from promptpanda.report.results import gain_cell
from promptpanda.report.study import Group, Study
from promptpanda.report.tables import NOTHING, Cell, Table, points
from promptpanda.sweep.row import Row


def overview(study: Study, compared: Sequence[Sequence[Comparison]]) -> Table | None:
    """One row for every group and contender: its mean gain over prompt tuning.

    Args:
        compared: of every group.
    """
    rows = []
    for group, comparisons in zip(study.groups, compared, strict=True):
        for one in comparisons:
            rows.append(
                (
                    Cell(one.contender.title),
                    gain_cell(one.gain),
                    Cell(str(one.better), value=one.better, mark="better" if one.better else ""),
                    Cell(str(one.worse), value=one.worse, mark="worse" if one.worse else ""),
                    Cell(str(len(one.targets)), value=len(one.targets)),
                    Cell(study.label(group)),
                )
            )
    if not rows:
        return None
    return Table(
        "glance",
        "Gain over prompt tuning, all targets together",
        "",
        "Mean over targets in points, with its 95 % bootstrap interval; and on how many targets the interval lies "
        "wholly above zero (better) or below (worse).",
        ("method", "mean gain", "better", "worse", "targets", "runs"),
        tuple(rows),
    )


def estimator_overview(study: Study) -> Table | None:
    """Mean Spearman of every estimator in every group."""
    names = list(dict.fromkeys(name for group in study.groups for name in group.estimators))
    rows = []
    for group in study.groups:
        found = [mean_agreement(group, name) for name in names]
        known = [one.mean for one in found if one.mean is not None]
        if not known:
            continue
        cells = [mean_cell(one, "best" if one.mean == max(known) else "") for one in found]
        rows.append((Cell(study.label(group)), *cells))
    if not rows:
        return None
    return Table(
        "estimators",
        "How well estimators predict the gain of PoT",
        "",
        "Spearman's rank correlation with the measured gain, mean over targets with its standard error.",
        ("runs", *names),
        tuple(rows),
    )


def by_scale(groups: Sequence[Group], prefix: str, conditions: str, targets: Sequence[str]) -> Table:
    """Models by contenders, means over the targets that all have; groups from small to large."""
    contenders = list(dict.fromkeys(one for group in groups for one in group.contenders))
    floors = any(constant_cells(group, targets) for group in groups)
    rows = []
    for group in groups:
        means = [group.mean_result(one, targets) for one in contenders]
        best = max((mean for mean in means if mean is not None), default=None)
        rows.append(
            (
                Cell(group.conditions.model_name),
                *([mean_constant(group, targets)] if floors else []),
                *(
                    NOTHING if mean is None else Cell(points(mean), "", mean, "", "best" if mean == best else "")
                    for mean in means
                ),
            )
        )
    return Table(
        f"{prefix}-by-scale",
        "Mean scores of the models",
        conditions,
        f"Mean score in points over the targets that all models and methods have: {', '.join(targets) or 'none'}.",
        ("model", *([COLUMN] if floors else []), *(one.title for one in contenders)),
        tuple(rows),
    )


def sources(study: Study) -> Table | None:
    """The source prompts."""
    rows = [
        (
            Cell(row.task),
            Cell(row.model),
            Cell(str(row.seed), value=row.seed),
            Cell(str(row.n_train or 0), value=row.n_train or 0),
            Cell(row.metric or "\u2013"),
            _validation(row),
            Cell(f"{row.seconds:.1f}", value=row.seconds),
            Cell(row.prompt or "\u2013"),
        )
        for row in study.sources
    ]
    return None if not rows else Table(
        "sources",
        "Source prompts",
        "",
        "What transfers start from: prompts trained on the source tasks, with their validation scores in points.",
        ("task", "model", "seed", "trained on", "metric", "validation", "seconds", "prompt"),
        tuple(rows),
        words=2,
    )  # fmt: skip


def failed(study: Study) -> Table | None:
    """Runs that have no result, with their reasons."""
    rows = [
        (
            Cell(row.task),
            Cell(row.method or row.kind),
            Cell(row.source or "\u2013"),
            Cell(row.model),
            Cell("all" if row.budget is None else str(row.budget), value=row.budget),
            Cell(str(row.seed), value=row.seed),
            Cell(str(row.attempts), value=row.attempts),
            Cell(row.reason or "no reason was recorded"),
        )
        for row in study.failed
    ]
    return None if not rows else Table(
        "failed",
        "Failed runs",
        "",
        "What has no result, and why; panda sweep FILE --retry-failed tries again.",
        ("task", "method", "source", "model", "examples", "seed", "attempts", "reason"),
        tuple(rows),
    )  # fmt: skip


def versions(study: Study) -> Table:
    """What the runs say of the machines and libraries that made them."""
    seen: dict[str, dict[str, int]] = {}
    for row in study.finished:
        for name, value in row.environment.items():
            counts = seen.setdefault(name, {})
            counts[value] = counts.get(value, 0) + 1
    rows = []
    for name, counts in sorted(seen.items()):
        values = [value if len(counts) == 1 else f"{value} ({count} runs)" for value, count in counts.items()]
        rows.append((Cell(name), Cell("; ".join(values))))
    return Table(
        "versions",
        "Versions and machines",
        "",
        "As the finished runs recorded them.",
        ("what", "value"),
        tuple(rows),
    )


def fingerprints(study: Study) -> Table:
    """SHA-256 of every model's weights and every task's data, so that two reports can be told to speak of the same."""
    found: dict[tuple[str, str, str], set[str]] = {}
    for row in study.finished:
        found.setdefault(("model", row.model, row.backbone_fingerprint), set()).add("weights")
        if row.data_fingerprint is not None and row.kind != "estimates":
            budget = "all examples" if row.budget is None else f"{row.budget} examples"
            found.setdefault(("training and validation data", row.task, row.data_fingerprint), set()).add(
                f"{budget}, seed {row.seed}"
            )
        if row.test_fingerprint is not None:
            found.setdefault(("test data", row.task, row.test_fingerprint), set()).add(f"{row.n_test} examples")
    rows = [
        (Cell(kind), Cell(name), Cell("; ".join(sorted(of))), Cell(value))
        for (kind, name, value), of in sorted(found.items())
    ]
    return Table(
        "fingerprints",
        "Fingerprints of models and data",
        "",
        "Equal fingerprints: the same model (weights, configuration, tokenizer), or equal texts and labels in order.",
        ("what", "name", "of", "fingerprint"),
        tuple(rows),
    )


def _validation(row: Row) -> Cell:
    if row.validation is None or row.metric not in row.validation:
        return NOTHING
    value = 100 * row.validation[row.metric]
    return Cell(points(value), value=value)


def total_seconds(study: Study) -> float:
    """Wall time of all finished runs, added up."""
    return sum(row.seconds for row in study.finished)

"""What an evaluation of estimators found, by model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from promptpanda.errors import PandaError
from promptpanda.evaluation.agreement import Measured

Table = dict[str, Measured]


@dataclass(frozen=True)
class Choice:
    """What a selection rule reaches: the score of the source that it takes, in points, mean over targets.

    Attributes:
        gain: over no transfer, in points; its errors are smaller, since targets differ more than rules do.
        low, high: of `points`, over all ways to break ties, where ties matter; else None.
    """

    points: Measured
    gain: Measured
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ModelEvaluation:
    """Estimators and selection rules on one model.

    Attributes:
        measured: in words, what sources are ordered by.
        spearman, kendall: of every estimator, mean over targets.
        spearman_where_gains: over the targets alone where transfer helps.
        selection: of every rule.
        regret: of every estimator and k, in points: what the best source, or none, would have given more than the best
            of the k predicted best.
        targets: details of every target.
    """

    measured: str
    spearman: Table
    kendall: Table
    selection: dict[str, Choice]
    regret: dict[str, dict[int, Measured]] = field(default_factory=dict)
    spearman_where_gains: Table = field(default_factory=dict)
    targets: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """All models.

    Attributes:
        left_out: (source, target) pairs that are no part of it, since the two sets share texts.
    """

    models: dict[str, ModelEvaluation]
    left_out: tuple[tuple[str, str], ...] = ()

    def joined(self, other: Evaluation) -> Evaluation:
        """Both. Raises PandaError if they have a model's name in common."""
        for name in self.models:
            if name in other.models:
                raise PandaError(f"--paper and --store both have a model called '{name}'; evaluate them one at a time.")
        return Evaluation(self.models | other.models, self.left_out + other.left_out)

    def to_json(self) -> dict[str, Any]:
        """`spearman[model][estimator]`, `selection[model][rule]` and so on, with errors beside them."""
        models = self.models.items()
        tables = {
            "spearman": {name: one.spearman for name, one in models},
            "kendall": {name: one.kendall for name, one in models},
            "spearman_where_gains": {name: one.spearman_where_gains for name, one in models},
            "selection": {
                name: {rule: choice.points for rule, choice in one.selection.items()} for name, one in models
            },
            "selection_gains": {
                name: {rule: choice.gain for rule, choice in one.selection.items()} for name, one in models
            },
        }
        found: dict[str, Any] = {"measured": {name: one.measured for name, one in models}}
        for title, by_model in tables.items():
            found[title] = {
                model: {key: value.mean for key, value in table.items()} for model, table in by_model.items()
            }
            found[f"{title}_errors"] = {
                model: {key: value.errors() for key, value in table.items()} for model, table in by_model.items()
            }
        found["selection_ranges"] = {
            name: {rule: [one.low, one.high] for rule, one in model.selection.items() if one.low is not None}
            for name, model in models
        }
        for title, pick in (("regret", lambda value: value.mean), ("regret_errors", Measured.errors)):
            found[title] = {
                name: {key: {str(k): pick(value) for k, value in by_k.items()} for key, by_k in one.regret.items()}
                for name, one in models
            }
        found["targets"] = {name: one.targets for name, one in models}
        found["left_out"] = [list(pair) for pair in self.left_out]
        return found

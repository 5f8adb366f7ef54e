"""Made-up rows for tests of the report. Their numbers are drawn at random: they are results of nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from promptpanda.files import digest
from promptpanda.sweep.row import Answers, Curve, Row
from promptpanda.tasks.catalog import catalog_spec
from promptpanda.tasks.inputs import Choices, Split, ragged
from promptpanda.tasks.metrics import compute_metrics
from promptpanda.tasks.spec import Kind, TaskSpec
from promptpanda.tasks.tags import tag_names

TARGETS = ("cr", "rte", "cola", "stsb", "copa", "conll04")
SOURCES = ("sst2", "mr", "mrpc", "mnli", "qqp", "trec", "wic", "conll03")
MODELS = ("bert-small", "bert-tiny")
ENVIRONMENT = {"python": "3.11.9", "torch": "2.13.0", "transformers": "5.23.0", "device": "cpu", "threads": "1"}


def class_names(spec: TaskSpec) -> tuple[str, ...]:
    if spec.kind == Kind.TOKEN_CLASSIFICATION:
        return tag_names(("Loc", "Org", "Peop", "Other"))
    return spec.labels if spec.kind.classifies else ()


def made_answers(name: str, n_test: int, groups: Sequence[int] | None = None) -> Answers:
    """Random right answers of a catalog task, always the same for the same name and number."""
    spec = catalog_spec(name)
    rng = np.random.default_rng(int(digest([name, n_test])[:8], 16))
    labels: list[Any]
    if spec.kind == Kind.REGRESSION:
        labels = [round(float(value), 2) for value in rng.uniform(0, 5, n_test)]
    elif spec.kind == Kind.MULTIPLE_CHOICE:
        labels = [[int(value)] for value in rng.integers(0, 2, n_test)]
    elif spec.kind == Kind.TOKEN_CLASSIFICATION:
        labels = [_tags(rng, int(length)) for length in rng.integers(4, 12, n_test)]
    else:
        labels = [int(value) for value in rng.integers(0, len(class_names(spec)), n_test)]
    return Answers(
        test_fingerprint=digest(["test", name, n_test]),
        task=name,
        task_spec=spec.model_dump(mode="json"),
        class_names=class_names(spec),
        labels=labels,
        groups=None if groups is None else list(groups),
    )


def made_predictions(answers: Answers, right: float, rng: np.random.Generator) -> list[Any]:
    """Predictions of which about a share `right` is right; of a regression, that go with the labels the more."""
    spec = TaskSpec.parse(answers.task_spec, "a test")
    wrong = rng.random(len(answers.labels)) > right
    if spec.kind == Kind.REGRESSION:
        noise = rng.normal(0, 3 * (1 - right) + 0.05, len(wrong))
        return [float(label + step) for label, step in zip(answers.labels, noise, strict=True)]
    if spec.kind == Kind.MULTIPLE_CHOICE:
        return [(1 - label[0]) if miss else label[0] for label, miss in zip(answers.labels, wrong, strict=True)]
    if spec.kind == Kind.TOKEN_CLASSIFICATION:
        return [
            _tags(rng, len(label)) if miss else list(label) for label, miss in zip(answers.labels, wrong, strict=True)
        ]
    classes = len(answers.class_names)
    return [int((label + 1 + rng.integers(classes - 1)) % classes) if miss else label
            for label, miss in zip(answers.labels, wrong, strict=True)]  # fmt: skip


def scores_of(answers: Answers, predictions: list[Any], rows: Sequence[int] | None = None) -> dict[str, float]:
    """All metrics of a task by the package's own definition, on all rows or on these."""
    spec = TaskSpec.parse(answers.task_spec, "a test")
    taken = list(range(len(answers.labels)) if rows is None else rows)
    labels = [answers.labels[row] for row in taken]
    found = [predictions[row] for row in taken]
    plain = spec.kind.classifies or spec.kind == Kind.REGRESSION
    text = Choices((("",), ("",)), ("a", "b")) if spec.kind == Kind.MULTIPLE_CHOICE else ("",)
    groups = None if answers.groups is None else np.asarray(answers.groups)[taken]
    known = np.asarray(labels) if plain else ragged([tuple(label) for label in labels])
    said = np.asarray(found) if plain or spec.kind == Kind.MULTIPLE_CHOICE else found
    return compute_metrics(spec, answers.class_names, Split((text,) * len(taken), known, groups), said)


def made_row(method: str | None = "prompt_tuning", **changes: Any) -> Row:
    """A finished run on a target."""
    values: dict[str, Any] = {
        "kind": "target",
        "status": "finished",
        "model": "bert-tiny",
        "task": "cr",
        "method": method,
        "seed": 0,
        "budget": 64,
        "spec": {},
        "backbone_fingerprint": digest(["weights", changes.get("model", "bert-tiny")]),
        "metric": "accuracy",
        "n_train": 52,
        "n_val": 12,
        "example_steps": 520,
        "forward_examples": 12,
        "seconds": 10.0,
        "environment": ENVIRONMENT,
        "finished": "2026-11-20T10:00:00+00:00",
    } | changes
    values.setdefault("key", digest([repr(item) for item in sorted(values.items(), key=lambda item: item[0])]))
    return Row(**values)


def scored(row: Row, answers: Answers, predictions: list[Any], validation: float | None = None) -> Row:
    """The row with these predictions and their scores."""
    metrics = scores_of(answers, predictions)
    metric = TaskSpec.parse(answers.task_spec, "a test").metric
    return row.model_copy(
        update={
            "metric": metric,
            "test": {**metrics, "loss": 0.5},
            "test_fingerprint": answers.test_fingerprint,
            "n_test": len(predictions),
            "predictions": predictions,
            "validation": {metric: metrics[metric] if validation is None else validation, "loss": 0.5},
        }
    )


def made_study(
    targets: Sequence[str] = TARGETS,
    sources: Sequence[str] = SOURCES,
    models: Sequence[str] = MODELS,
    seeds: Sequence[int] = (0, 1, 2),
    n_test: int = 300,
    budget: int | None = 64,
) -> tuple[list[Row], list[Answers]]:
    """Sources, four methods on every target, and estimates, with a few failures."""
    rng = np.random.default_rng(7)
    answers = {target: made_answers(target, n_test) for target in targets}
    worth = {(source, target): rng.normal(0.02, 0.05) for source in sources for target in targets}
    rows: list[Row] = []
    for size, model in enumerate(models):
        rows += [_source(rng, model, source) for source in sources]
        for target in targets:
            level = rng.uniform(0.6, 0.75) - 0.05 * size
            for seed in seeds:
                base = made_row(
                    model=model, task=target, seed=seed, budget=budget, data_fingerprint=digest([target, seed])
                )
                rows += _runs(rng, base, answers[target], level, {s: worth[s, target] for s in sources if s != target})
    return rows, list(answers.values())


def changed(row: Row, **changes: Any) -> Row:
    """The row with other values, and a key of its own."""
    return row.model_copy(update={"key": digest([row.key, repr(changes)])} | changes)


def _source(rng: np.random.Generator, model: str, source: str) -> Row:
    validation = {"accuracy": float(rng.uniform(0.7, 0.9)), "loss": 0.4}
    return made_row(
        kind="source",
        model=model,
        task=source,
        budget=2000,
        n_train=1600,
        seconds=80.0,
        validation=validation,
        prompt=f"{source}-s0-{digest([model, source])[:8]}",
        data_fingerprint=digest(["data", source]),
    )


def _runs(
    rng: np.random.Generator, base: Row, answers: Answers, level: float, worth: dict[str, float]
) -> Iterator[Row]:
    """All methods on one target with one seed, and what estimators say."""

    def run(method: str, right: float, cost: float, source: str | None = None) -> Row:
        row = changed(base, method=method, source=source, curve=_curve(rng, right))
        row = row.model_copy(update={"seconds": 20 * cost, "example_steps": round(2080 * cost)})
        validation = float(np.clip(right + rng.normal(0, 0.03), 0, 1))
        return scored(row, answers, made_predictions(answers, right, rng), validation)

    tuned = level + rng.normal(0, 0.012)
    yield run("prompt_tuning", tuned, 1.0)
    yield run("head_only", tuned - 0.04, 0.0)
    for source, value in worth.items():
        if (source, base.task) == ("conll03", "rte"):
            reason = "Training rte-s0-1234abcd stopped: the loss was no longer finite in epoch 3 of 40; lower --lr."
            yield changed(base, method="pot", source=source, status="failed", reason=reason, attempts=2)
            continue
        gain = value + rng.normal(0, 0.01)
        yield run("pot", tuned + gain, 1.0, source)
        yield run("panda", tuned + gain / 2, 1.05, source)
        estimates = {
            "cosine": float(np.clip(0.85 + value + rng.normal(0, 0.05), -1, 1)),
            "on": float(0.6 + rng.normal(0, 0.08)),
            "logme": float(2 * value + rng.normal(0, 0.03)),
        }
        unscored = {"method": None, "metric": None, "seconds": 0.4, "example_steps": 0}
        yield changed(base, kind="estimates", source=source, estimates=estimates, **unscored)


def _curve(rng: np.random.Generator, right: float) -> tuple[Curve, ...]:
    falls = [0.7 * np.exp(-epoch / 6) + 1 - right + rng.normal(0, 0.01) for epoch in range(12)]
    return tuple(Curve(train_loss=float(loss), validation=None) for loss in falls)


def _tags(rng: np.random.Generator, length: int) -> list[int]:
    return [int(tag) for tag in rng.choice([0, 1, 3, 5], length, p=[0.6, 0.15, 0.15, 0.1])]

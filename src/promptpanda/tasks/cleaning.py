"""Rows as people have them, made fit for a task, and what has to be told of them.

Labels are stripped, rows without a label or a text are left out, spellings of one class are joined. Nothing of it
happens in silence: every change is a sentence. Only own data is treated so; that of the catalog is clean.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from promptpanda.errors import PandaError
from promptpanda.tasks.annotations import answered, span_notes, tagged
from promptpanda.tasks.files.records import Record, Row
from promptpanda.tasks.labels import as_name, as_number
from promptpanda.tasks.missing import is_missing, lacks_text
from promptpanda.tasks.spec import Kind, TaskSpec
from promptpanda.tasks.tags import as_bio, find_scheme, to_bio

_ONE_CLASS = (Kind.SINGLE_CLASSIFICATION, Kind.PAIR_CLASSIFICATION)
_SHOWN = 10  # line numbers in a sentence
_COMMA_NUMBER = re.compile(r"\s*[+-]?\d+(,\d+)?\s*")
_SCHEMES = {
    "iob1": "IOB1 (I- begins a span)",
    "bioes": "BIOES or BILOU",
    "io": "without B- and I- (neighbours with one tag are one span)",
    "plain": "without prefixes and on every word (each word is a span of its own)",
}


@dataclass
class Cleaned:
    """Rows that a task can read.

    Attributes:
        records: those that are left, with the numbers that they have in the file.
        notes: what should be told, a sentence each.
    """

    records: list[Record]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Cleaner:
    """Makes the rows of one split fit for a task.

    Attributes:
        spec: of the task.
        origin: where the rows come from, for sentences.
        where: the split and the task, for the sentences of errors.
        unit: what `Record.line` counts.
        known: the classes, where they do not come from these rows.
        strict: rows without a label or a text are refused.
    """

    spec: TaskSpec
    origin: str
    where: str
    unit: str = "line"
    known: tuple[str, ...] = ()
    strict: bool = False

    def clean(self, records: Sequence[Record]) -> Cleaned:
        """The rows that are left and what is to be told. Raises PandaError that names the row."""
        cleaned = Cleaned(self._filled(records))
        if not self.strict:
            self._leave_out(cleaned)
        else:
            self._refuse(cleaned.records)
        if self.spec.kind == Kind.TOKEN_CLASSIFICATION:
            self._tag(cleaned)
        elif self.spec.kind == Kind.EXTRACTIVE_QA:
            self._change(cleaned, answered)
        elif self.spec.kind == Kind.REGRESSION:
            self._read_commas(cleaned)
        elif self.spec.kind in _ONE_CLASS:
            self._change(cleaned, _single)
            self._read_integers(cleaned)
            self._join_spellings(cleaned)
        return cleaned

    def _filled(self, records: Sequence[Record]) -> list[Record]:
        """A field that other rows have is empty where a row lacks it, as in JSON that leaves out nulls."""
        names = [*self.spec.fields, *self.spec.label_fields]
        there = {name for name in names if any(name in record.values for record in records)}
        if len(there) < len(set(names)):
            return list(records)  # a field that no row has: whoever reads it says so, with the names that there are
        return [
            record
            if all(name in record.values for name in names)
            else record._replace(values=dict.fromkeys(names) | record.values)
            for record in records
        ]

    def _no_text(self, row: Row) -> bool:
        return lacks_text(self.spec, row)

    def _leave_out(self, cleaned: Cleaned) -> None:
        lacks = {"label": self._without(cleaned.records, self._lacks_label), "text": []}
        if lacks["label"] and len(lacks["label"]) == len(cleaned.records):
            self._change(cleaned, lambda _: None)  # the wrong column, or data without labels: whoever reads it says so
            return
        lacks["text"] = self._without(cleaned.records, self._no_text)
        for what, records in lacks.items():
            if records:
                cleaned.notes.append(
                    f"{self.origin}: {_rows(len(records), 'has', 'have')} no {what} and "
                    f"{'is' if len(records) == 1 else 'are'} left out ({self._lines(records)})."
                )
        left_out = {record.number for records in lacks.values() for record in records}
        cleaned.records = [record for record in cleaned.records if record.number not in left_out]

    def _lacks_label(self, row: Row) -> bool:
        if self.spec.label_columns:
            return all(name in row and is_missing(row[name]) for name in self.spec.label_columns)
        value = row.get(self.spec.label, "")
        if self.spec.kind == Kind.MULTI_LABEL and isinstance(value, str) and not value.strip():
            return False  # a text without any label
        if self.spec.label not in row or as_name(value) in self.spec.labels:
            return False
        if isinstance(value, list) and not value:
            return self.spec.kind in _ONE_CLASS
        return is_missing(value)

    @staticmethod
    def _without(records: Iterable[Record], lacks: Any) -> list[Record]:
        return [record for record in records if lacks(record.values)]

    def _refuse(self, records: list[Record]) -> None:
        for record in records:
            if self._lacks_label(record.values):
                name = self.spec.label_fields[0]
                raise PandaError(
                    f"Row {record.number} of {self.where} has no label: {record.values[name]!r} in '{name}'; fill it, "
                    "leave the row out, or leave --strict out."
                )

    def _change(self, cleaned: Cleaned, change: Any) -> None:
        name = self.spec.label
        cleaned.records = [
            record._replace(values=record.values | {name: change(record.values[name])})
            if name in record.values
            else record
            for record in cleaned.records
        ]

    def _tag(self, cleaned: Cleaned) -> None:
        """Words and tags in lists; tags of other schemes as BIO, where one can tell."""
        (text,) = self.spec.segment_fields(self.spec.segments[0])
        label, count = self.spec.label, Counter[str]()
        records = []
        for record in cleaned.records:
            row = record.values
            if text in row and label in row:
                row = tagged(row, text, label, f"Row {record.number} of {self.where}", count)
            records.append(record._replace(values=row))
        cleaned.records = records
        cleaned.notes += span_notes(count, self.origin)
        listed = [record.values.get(label) for record in records]
        tags = [one for one in listed if isinstance(one, list) and all(isinstance(tag, str) for tag in one)]
        scheme = find_scheme(tags) if self.spec.scheme is None and len(tags) == len(records) else None
        if scheme is None:
            return
        cleaned.notes.append(f"{self.origin}: its tags are {_SCHEMES[scheme]}; read as BIO.")
        if scheme == "iob1":
            self._change(cleaned, lambda one: list(to_bio(one, self.where, "iob1")))
        elif scheme != "bioes":
            self._change(cleaned, lambda one: as_bio(one, scheme))

    def _read_commas(self, cleaned: Cleaned) -> None:
        """0,5 as a number, if all are written so."""
        values = [record.values.get(self.spec.label) for record in cleaned.records]
        if any(isinstance(one, str) and "," in one for one in values) and all(
            isinstance(one, (int, float)) or (isinstance(one, str) and _COMMA_NUMBER.fullmatch(one)) for one in values
        ):
            self._change(cleaned, lambda one: one.replace(",", ".") if isinstance(one, str) else one)
            cleaned.notes.append(f"{self.origin}: its numbers have decimal commas.")

    def _read_integers(self, cleaned: Cleaned) -> None:
        """1.0 as 1, if all are such: pandas makes integers with a gap among them floats, and their class stays one."""
        values = [record.values.get(self.spec.label) for record in cleaned.records]
        if all(isinstance(one, (int, float)) and one % 1 == 0 for one in values):
            self._change(
                cleaned, lambda one: int(one) if isinstance(one, float) and str(one) not in self.known else one
            )

    def _join_spellings(self, cleaned: Cleaned) -> None:
        """One class for names that differ in case or spaces alone: the known one, or the commonest."""
        values = [record.values.get(self.spec.label) for record in cleaned.records]
        counts = Counter(one for one in values if isinstance(one, str))
        known = {_folded(name): name for name in (*self.known, *self.spec.aliases)}
        groups = defaultdict[str, list[str]](list)
        for name, _ in counts.most_common():
            groups[_folded(name)].append(name)
        joined: dict[str, str] = {}
        for folded, names in groups.items():
            if self.known:
                target = known.get(folded)
                taken = [name for name in names if target is not None and name not in (*self.known, *self.spec.aliases)]
            else:
                target, taken = names[0], names[1:]
            joined |= dict.fromkeys(taken, str(target))
        if self.strict:
            return
        for name, target in joined.items():
            cleaned.notes.append(
                f"{self.origin}: {name!r} ({_rows(counts[name])}) is read as {target!r}; they differ only in case or "
                "spaces."
            )
        if joined:
            self._change(cleaned, lambda one: joined.get(one, one) if isinstance(one, str) else one)

    def _lines(self, records: Sequence[Record]) -> str:
        return lines([record.line for record in records], self.unit)


def class_notes(cleaned: Cleaned, cleaner: Cleaner) -> list[str]:
    """What should be told of training data: classes of one row, numbers, rows that repeat or contradict each other."""
    spec, told = cleaner.spec, list[str]()
    if all(is_missing(record.values.get(spec.label)) for record in cleaned.records):
        return told
    if spec.kind in _ONE_CLASS:
        by_class = defaultdict[str, list[Record]](list)
        for record in cleaned.records:
            value = record.values.get(spec.label)
            if not isinstance(value, (list, dict)):
                by_class[as_name(value)].append(record)
        single = [name for name, records in by_class.items() if len(records) == 1]
        if single:
            which = ", ".join(f"{name!r} ({cleaner._lines(by_class[name])})" for name in single[:5])
            more = f" and {len(single) - 5} more" if len(single) > 5 else ""
            told.append(
                f"{cleaner.origin}: {'a class has' if len(single) == 1 else f'{len(single)} classes have'} one row: "
                f"{which}{more}; how well it is learnt cannot be measured."
            )
        if not spec.labels and _are_amounts(by_class):
            told.append(
                f"{cleaner.origin}: '{spec.label}' holds numbers with {len(by_class)} values; if they are amounts and "
                "not classes, say --kind regression."
            )
    return told + _repeated_notes(cleaned, cleaner)


def lines(numbers: Sequence[int], unit: str) -> str:
    """`lines 3, 4, 9`, at most ten of them."""
    more = f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else ""
    return f"{unit}{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers[:_SHOWN]))}{more}"


def _repeated_notes(cleaned: Cleaned, cleaner: Cleaner) -> list[str]:
    spec = cleaner.spec
    fields = [*spec.fields, *spec.group]
    if any(name not in cleaned.records[0].values for name in (*fields, spec.label)):
        return []  # a column that is not there: whoever reads it says so
    first: dict[str, Record] = {}
    labels = defaultdict[str, dict[str, Record]](dict)
    again: list[Record] = []
    for record in cleaned.records:
        text = repr([record.values.get(name) for name in fields])
        label = repr([record.values.get(name) for name in spec.label_fields])
        if text in first and label in labels[text]:
            again.append(record)
        first.setdefault(text, record)
        labels[text].setdefault(label, record)
    told = []
    if again:
        told.append(
            f"{cleaner.origin}: {_rows(len(again), 'repeats', 'repeat')} an earlier row, text and label "
            f"({cleaner._lines(again)})."
        )
    against = [record for found in labels.values() if len(found) > 1 for record in found.values()]
    against.sort(key=lambda record: record.number)
    if against:
        texts = sum(len(found) > 1 for found in labels.values())
        told.append(
            f"{cleaner.origin}: {texts} text{'s' * (texts > 1)} of the training data come{'s' * (texts == 1)} with "
            f"more than one label; no model can get all of them right ({cleaner._lines(against)})."
        )
    return told


def _are_amounts(by_class: dict[str, list[Record]]) -> bool:
    numbers = [as_number(name) for name in by_class]
    if len(numbers) < 3 or any(number is None for number in numbers):
        return False
    return len(numbers) > 5 or any(number is not None and number % 1 for number in numbers)


def _single(value: Any) -> Any:
    """A label without blanks around it; the one class of a list, as doccano writes it."""
    if isinstance(value, (list, tuple)) and len(value) == 1 and not isinstance(value[0], (list, dict)):
        value = value[0]
    return value.strip() if isinstance(value, str) else value


def _folded(name: str) -> str:
    return " ".join(name.split()).casefold()


def _rows(count: int, one: str = "", more: str = "") -> str:
    return f"1 row {one}".strip() if count == 1 else f"{count} rows {more}".strip()

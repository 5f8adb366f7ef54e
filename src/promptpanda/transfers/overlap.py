"""Which prompts have seen a target's rows: by the record of their texts, and by the names of their tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from promptpanda.bank.bank import Bank
from promptpanda.bank.card import Card
from promptpanda.bank.catalogue import Catalogue
from promptpanda.bank.entry import Entry
from promptpanda.bank.folder import SourcePrompt, read_seen
from promptpanda.bank.seen_texts import KnownRows, OtherVersionError, SeenTexts
from promptpanda.errors import PandaError
from promptpanda.progress import Progress
from promptpanda.tasks.inputs import Input, Split
from promptpanda.tasks.protocol import Partition
from promptpanda.tasks.shared_text import share_text

_LISTED = 5  # prompts that a note names


@dataclass(frozen=True)
class LeftOut:
    """A prompt that is no source for a target.

    Attributes:
        rows: how many of the target's labelled and test rows it saw; None where nothing is recorded, so that the names
            of its tasks decided.
    """

    prompt: str
    rows: int | None

    def to_json(self) -> dict[str, str | int | None]:
        return {"prompt": self.prompt, "rows": self.rows}


@dataclass(frozen=True)
class Overlap:
    """How many of a target's rows a prompt saw, of how many."""

    labelled: int
    test: int
    n_labelled: int
    n_test: int

    @property
    def rows(self) -> int:
        return self.labelled + self.test

    def __str__(self) -> str:
        """To follow "saw"."""
        parts = [f"{self.labelled} of the target's {self.n_labelled} rows"] if self.labelled else []
        whose = "its" if parts else "the target's"
        parts += [f"{self.test} of {whose} {self.n_test} test rows"] if self.test else []
        return " and ".join(parts) or f"none of the target's {self.n_labelled + self.n_test} rows"


@dataclass(frozen=True)
class TargetRows:
    """The rows of a target that no source may have seen: the labelled ones of the budget, and those of the test."""

    labelled: KnownRows
    test: KnownRows

    @classmethod
    def of(cls, partitions: Sequence[Partition], test: Split | None) -> TargetRows:
        """Of all seeds together; a row that several seeds draw counts once."""
        drawn: Counter[Input] = Counter()
        for part in partitions:
            drawn |= Counter(part.train.texts + part.validation.texts)
        reported = () if test is None or any(part.validation is test for part in partitions) else test.texts
        return cls(KnownRows.of(drawn.elements()), KnownRows.of(reported))

    @property
    def hashes(self) -> np.ndarray:
        """Of all their texts. *Shape:* (texts,), uint64."""
        return np.concatenate([self.labelled.hashes, self.test.hashes])

    def overlap(self, record: SeenTexts) -> Overlap:
        """How many of them a record holds."""
        return Overlap(self.labelled.seen_by(record), self.test.seen_by(record), self.labelled.count, self.test.count)


@dataclass(frozen=True)
class Fitting:
    """Prompts that a target can start from, and those that only its texts forbid.

    Attributes:
        vectors: mean word embeddings of their texts, where they are too many for a pass each. *Shape:* (cards, hidden).
    """

    cards: tuple[Entry, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    vectors: np.ndarray | None = field(default=None, repr=False, compare=False)

    def narrowed(self, cards: Sequence[Entry]) -> Fitting:
        """To some of its prompts."""
        if self.vectors is None:
            return replace(self, cards=tuple(cards))
        places = {one.id: place for place, one in enumerate(self.cards)}
        return replace(self, cards=tuple(cards), vectors=self.vectors[[places[one.id] for one in cards]])


def without_overlap(
    entries: Sequence[Entry], catalogue: Catalogue, bank: Bank, target: str, rows: TargetRows, progress: Progress
) -> Fitting:
    """The prompts that have not seen the target's rows; the others are told, with how many rows they saw.

    The names of the tasks that a prompt and its ancestors were trained on decide beside the record: the pairs of
    `tasks/shared_text.yaml` also share parts of texts, which no hash of whole ones finds. They decide alone where there
    is no record that can be compared. A prompt whose record is damaged is left out, as one with any other damaged file
    is. Of a large bank the records are read of those prompts alone of whom the index cannot tell that they saw nothing.

    Args:
        catalogue: all prompts of the bank, among which ancestors are looked up.
    """
    suspects = catalogue.possible_records(entries, rows.hashes)
    kept, left_out, reasons = [], [], []
    for entry in entries:
        overlap = None
        if entry.id in suspects:
            try:
                overlap = _overlap(entry, bank, rows, progress)
            except PandaError as error:
                progress.note(str(error))
                continue
        alike = sorted(name for name in _ancestry(entry, catalogue) if name == target or share_text(name, target))
        if overlap is not None and overlap.rows:
            reasons.append(f"{entry.id} saw {overlap}")
        elif alike:
            reasons.append(f"{entry.id} by the name of {' and '.join(alike)}")
        else:
            kept.append(entry)
            continue
        denied = entry.record is not None and entry.id not in suspects
        left_out.append(LeftOut(entry.id, overlap.rows if overlap is not None else 0 if denied else None))
    if reasons:
        _note_left_out(reasons, target, progress)
    return Fitting(tuple(kept), tuple(left_out))


def warn_of_overlap(source: SourcePrompt, target: str, rows: TargetRows, progress: Progress) -> None:
    """Say what a source that the user named has seen of the target; it is taken all the same."""
    overlap = None if source.seen is None else rows.overlap(source.seen)
    if overlap is not None and overlap.rows:
        progress.note(f"{source.id}, or what it started from, saw {overlap}: scores are too good where it has.")
    if source.task == target:
        progress.note(
            f"The source was trained on {target} itself: validation scores are too good if it has seen those rows."
        )
    elif share_text(source.task, target):
        progress.note(f"{source.task} and {target} share texts: scores are too good if the source has seen them.")


def _overlap(entry: Entry, bank: Bank, rows: TargetRows, progress: Progress) -> Overlap | None:
    """None where nothing is recorded that could be compared."""
    folder = bank.folder_of(entry.id)
    try:
        record = read_seen(folder, Card.read(folder))
    except OtherVersionError as error:
        progress.note(str(error))
        return None
    return None if record is None else rows.overlap(record)


def _note_left_out(reasons: Sequence[str], target: str, progress: Progress) -> None:
    many = len(reasons) > 1
    more = f", and {len(reasons) - _LISTED} more" if len(reasons) > _LISTED else ""
    progress.note(
        f"{len(reasons)} prompt{'s are' if many else ' is'} left out: {'they' if many else 'it'}, or what "
        f"{'they' if many else 'it'} started from, {'were' if many else 'was'} trained on texts of {target} "
        f"({'; '.join(reasons[:_LISTED])}{more}). Named with --source, {'they are' if many else 'it is'} used."
    )


def _ancestry(entry: Entry, catalogue: Catalogue) -> set[str]:
    """The tasks that a prompt and all that it started from were trained on."""
    found, ahead, seen = set(), [entry], set()
    while ahead:
        one = ahead.pop()
        seen.add(one.id)
        found |= {one.task, *(task for _, task in one.sources)}
        for prompt_id, _ in one.sources:
            if prompt_id in catalogue.by_id and prompt_id not in seen:
                ahead.append(catalogue.by_id[prompt_id][0])
    return found

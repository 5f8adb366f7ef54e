"""An assessment as one HTML page, in the look of the reports of sweeps; it needs no network."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from promptpanda.assessment import drawings
from promptpanda.assessment.assess import Assessment
from promptpanda.assessment.bootstrap import Measured
from promptpanda.assessment.forms.form import Confusion
from promptpanda.assessment.words import compared, judged_calibration, one_line
from promptpanda.bank.card import Card
from promptpanda.errors import PandaError
from promptpanda.files import write_whole
from promptpanda.report.answers import Answer
from promptpanda.report.colours import gain_colour
from promptpanda.report.page import Part, Report, Section, part
from promptpanda.report.tables import Cell, Table
from promptpanda.version import __version__

_NAME, _TEXT = 40, 400  # letters of a class and of a text that are shown
_CLASSES = 25  # that a confusion matrix is written out for


def write_page(found: Assessment, card: Card, path: Path, made: datetime.datetime | None = None) -> None:
    """Write the page, whole or not at all. Raises PandaError if it cannot be written there."""
    text = page(found, card, made or datetime.datetime.now().astimezone()).html()
    try:
        write_whole(path, text)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PandaError(f"The page cannot be written at {path} ({reason}); choose another place.") from error


def page(found: Assessment, card: Card, made: datetime.datetime) -> Report:
    """The page as a value.

    Args:
        card: of the prompt that is assessed.
        made: when.
    """
    cards = [(f"{found.score.value:.3f}", f"{found.metric}{_around(found.score)}")]
    cards.append((str(found.examples), "test examples"))
    if found.calibration is not None:
        cards.append((f"{found.calibration.ece.value:.3f}", "calibration error"))
    return Report(
        f"{one_line(found.prompt, 150)} on {one_line(found.task, 100)}",
        f"Made on {made:%Y-%m-%d %H:%M} by promptpanda {__version__}; {found.kind.words}.",
        tuple(cards),
        tuple(found.notes),
        tuple(_sections(found, card)),
        kind="Evaluation of a prompt",
    )


def _sections(found: Assessment, card: Card) -> list[Section]:
    sections = [_score(found)]
    if found.values is not None:
        figure = drawings.values(*found.values)
        sections.append(Section("scatter", "Predicted and right values", figure=figure))
    if found.by_class:
        sections.append(Section("by-class", "By class", parts=(Part("Precision, recall and F1", (_classes(found),)),)))
    if found.confusion is not None:
        sections.append(_confusions(found, found.confusion))
    if found.calibration is not None:
        parts = part("Risk and coverage", [drawings.risk_and_coverage(found.coverage), _coverage(found)])
        sections.append(
            Section(
                "confidence",
                "How far confidence can be believed",
                answers=(Answer("", judged_calibration(found.calibration), ()),),
                parts=(*part("Confidence and accuracy", [drawings.reliability(found.calibration)]), *parts),
            )
        )
    if found.mistakes:
        title = "Farthest off" if found.values is not None else "Wrong and most confident"
        lead = "Values that are wrong in the data show here first."
        if found.values is None:
            overlap = ", and classes that overlap," if found.by_class else ""
            lead = f"{'Labels' if found.by_class else 'Answers'} that are wrong in the data{overlap} show here first."
        sections.append(Section("errors", title, (lead,), (Part(title, (_mistakes(found),)),)))
    sections.append(Section("made", "How the prompt was made", parts=(Part("From its card", (_card(card),)),)))
    return sections


def _score(found: Assessment) -> Section:
    rows = tuple((Cell(name), _cell(one)) for name, one in found.metrics.items())
    table = Table("metrics", "Metrics", "", "With 95 % bootstrap intervals.", ("metric", "value"), rows)
    headline = f"{found.metric} {found.score.value:.3f}{_around(found.score)} on {found.examples} examples."
    rest = () if found.comparison is None else (compared(found),)
    return Section("score", "How good it is", parts=(Part("Metrics", (table,)),), answers=(Answer("", headline, rest),))


def _classes(found: Assessment) -> Table:
    names = shown_names([row.name for row in found.by_class])
    rows = tuple(
        (
            Cell(name, hint=one_line(row.name, 200), value=float(place)),
            *(_cell(one) for one in row.figures.values()),
            Cell(str(row.support), value=row.support),
        )
        for place, (name, row) in enumerate(zip(names, found.by_class, strict=True))
    )
    columns = ("class", "precision", "recall", "F1", "examples")
    caption = (
        "Precision: of those that are said, how many are right. Recall: of those that are there, how many are found."
    )
    return Table("classes", "Precision, recall and F1", "", caption, columns, rows)


def _confusions(found: Assessment, confusion: Confusion) -> Section:
    names = shown_names(confusion.labels)
    by_name = dict(zip(confusion.labels, names, strict=True))
    rows = tuple(
        (Cell(by_name[expected]), Cell(by_name[predicted]), Cell(str(count), value=count))
        for expected, predicted, count in found.confusions
    )
    commonest = Table(
        "confusions", "The commonest", "", "What is taken for what, the most frequent first.",
        ("right", "said", "times"), rows, words=2,
    )  # fmt: skip
    small = len(names) <= _CLASSES
    whole = _matrix(confusion, names) if small else drawings.large_matrix(confusion)
    parts = [*part("All confusions", [whole]), *part("The commonest", [commonest] if rows else [])]
    return Section("confusion", "What is taken for what", parts=tuple(parts))


def _matrix(confusion: Confusion, names: Sequence[str]) -> Table:
    matrix = np.asarray(confusion.matrix)
    totals = matrix.sum(axis=1)

    def cell(row: int, column: int) -> Cell:
        count = int(matrix[row, column])
        share = count / max(int(totals[row]), 1)
        hint = f"{names[row]} \u2192 {names[column]}: {count} of {totals[row]}"
        colour = gain_colour(share if row == column else -share, 1.0) if count else None
        return Cell(str(count) if count else "", value=count, hint=hint, colour=colour)

    size = range(len(names))
    rows = tuple(
        (Cell(names[row]), *(cell(row, column) for column in size), Cell(str(totals[row]), value=int(totals[row])))
        for row in size
    )
    caption = "Rows: what is right. Columns: what is said. Blue is right, red is wrong, by the share of the row."
    notes = (confusion.note,) if confusion.note else ()
    return Table("matrix", "All confusions", "", caption, ("", *names, "all"), rows, notes=notes, heat=True)


def _coverage(found: Assessment) -> Table:
    rows = tuple(
        (
            Cell(f"{one.coverage:.0%}", value=one.coverage),
            Cell(f"{one.confidence:.3f}", value=one.confidence),
            _cell(Measured(one.accuracy, one.interval)),
        )
        for one in found.coverage
    )
    columns = ("answered", "confidence from", "of them right")
    caption = "The confidence is the model's own, before any scaling: the least that is still answered."
    return Table("coverage", "If only the most confident are answered", "", caption, columns, rows)


def _mistakes(found: Assessment) -> Table:
    rows = tuple(
        (
            Cell(str(one.place), value=one.place),
            Cell(one_line(one.expected, 150)),
            Cell(one_line(one.predicted, 150)),
            *(() if one.confidence is None else (Cell(f"{one.confidence:.3f}", value=one.confidence),)),
            Cell(one_line(one.text, _TEXT)),
        )
        for one in found.mistakes
    )
    title = "Farthest off" if found.values is not None else "Wrong and most confident"
    unit = found.mistakes[0].unit
    columns = (unit, "right", "said", *(("confidence",) if found.values is None else ()), "text")
    caption = f"{unit.capitalize()}s count from 1, as in the file. Long texts are cut."
    return Table("mistakes", title, "", caption, columns, rows, words=len(columns))


def _card(card: Card) -> Table:
    facts = {
        "prompt": card.id,
        "method": card.method,
        "sources": ", ".join(source.id for source in card.sources) or "none",
        "model": card.backbone.name,
        "trained on": f"{card.n_train} examples, validated on {card.n_val}",
        f"validation {card.task.metric}": f"{card.score:.3f}",
        "created": card.created,
    }
    rows = tuple((Cell(name), Cell(one_line(value, 150))) for name, value in facts.items())
    return Table(
        "card", "From its card", "", "What the prompt's card says of its training.", ("what", "value"), rows, words=2
    )


def shown_names(names: Sequence[str]) -> list[str]:
    """Names of classes cut to what a table can show, still told apart; with their numbers where these are drawn."""
    cut = [one_line(name, _NAME) for name in names]
    numbered = len(names) > _CLASSES
    return [f"{place}: {name}" if numbered or cut.count(name) > 1 else name for place, name in enumerate(cut)]


def _cell(one: Measured) -> Cell:
    return Cell(f"{one.value:.3f}", _around(one).strip(), one.value)


def _around(one: Measured) -> str:
    low, high = one.interval
    return "" if low is None or high is None else f" ({low:.3f}, {high:.3f})"

"""Texts without labels: from files, from rows, and from what a budget leaves of the training data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from promptpanda.errors import PandaError
from promptpanda.tasks.forms import choice, spans, tokens
from promptpanda.tasks.inputs import Input, Split
from promptpanda.tasks.protocol import Partition
from promptpanda.tasks.reading import Row, column, read_rows
from promptpanda.tasks.spec import Kind, TaskSpec
from promptpanda.tasks.task import Task
from promptpanda.tasks.text import check_file, read_text


def read_input(spec: TaskSpec, row: Row, where: str) -> Input:
    """What a model reads of a row, whatever its label.

    Raises:
        PandaError: a field is missing or cannot be read; the sentence begins with `where`.
    """
    for name in spec.fields:
        if name not in row:
            raise PandaError(f"{where} has no field '{name}'; add it, or leave the row out.")
    if spec.kind == Kind.MULTIPLE_CHOICE:
        return choice.choices_of(spec, row, where)
    if spec.kind == Kind.TOKEN_CLASSIFICATION:
        return tokens.words_of(spec, row, where)
    if spec.kind == Kind.EXTRACTIVE_QA:
        return spans.passage_of(spec, row, where)
    return spec.render(row, where)


def read_inputs(spec: TaskSpec, rows: Sequence[Row], origin: str) -> tuple[Input, ...]:
    """What a model reads of rows that need no label. Raises PandaError that names the row and the field it lacks."""
    for name in spec.fields:
        column(list(rows), name, origin)
    return tuple(read_input(spec, row, f"Row {number} of {origin}") for number, row in enumerate(rows, 1))


def unlabeled_rows(path: Path, spec: TaskSpec) -> list[Row]:
    """The rows of a file: as of any data file; of .txt one text per line, for a task of one field.

    Raises:
        PandaError: the file is missing, empty or broken, or a line cannot be a row of this task.
    """
    if not path.name.lower().endswith((".txt", ".txt.gz")):
        return read_rows(path, spec.columns, spec.fields)
    check_file(path)
    rows = rows_of_lines(read_text(path), spec, str(path))
    if not rows:
        raise PandaError(f"{path} is empty: expected at least one text.")
    return rows


def rows_of_lines(text: str, spec: TaskSpec, origin: str) -> list[Row]:
    """One text a line, words with white space between them; blank lines are skipped.

    Raises:
        PandaError: the task needs more than one field.
    """
    check_one_field(spec, origin)
    return [row_of_line(line, spec) for line in text.split("\n") if line.strip()]


def check_one_field(spec: TaskSpec, origin: Path | str) -> None:
    """Raises PandaError if a line of text cannot be a row of the task."""
    if len(spec.fields) > 1:
        raise PandaError(
            f"{origin} has one text per line, and task '{spec.name}' needs the fields {', '.join(spec.fields)}; give a "
            "FILE with them, or JSON lines."
        )


def row_of_line(line: str, spec: TaskSpec) -> Row:
    """The row that a line is, without its end; of a tagger its words, with white space between them."""
    text = line.removesuffix("\n").removesuffix("\r")
    return {spec.fields[0]: text.split() if spec.kind == Kind.TOKEN_CLASSIFICATION else text}


def without(texts: Sequence[Input], *splits: Split | None) -> tuple[Input, ...]:
    """The texts that occur in none of the splits, each once, in order."""
    known = {one for split in splits if split is not None for one in split.texts}
    return tuple(one for one in dict.fromkeys(texts) if one not in known)


def rest_of_train(task: Task, partition: Partition, count: int, *, seed: int) -> tuple[Input, ...]:
    """At most `count` texts of train that neither a partition nor the test data holds, drawn by the seed.

    Raises:
        PandaError: there is none.
    """
    test = None if partition.protocol == "paper" else task.test()
    rest = without(task.train().texts, partition.train, partition.validation, test)
    if not rest:
        raise PandaError(f"The budget leaves no text of task '{task.name}' to take without its label; lower it.")
    chosen = np.sort(np.random.default_rng([seed, 8]).permutation(len(rest))[:count])
    return tuple(rest[int(index)] for index in chosen)

"""Rows from CoNLL column files: one word per line, blank lines between sentences, tags or roles in columns."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from promptpanda.errors import PandaError
from promptpanda.tasks.files.lines import lines_of
from promptpanda.tasks.files.source import Source

# Whole first words and not "#end": hashtags are words too.
_SKIPPED = ("-DOCSTART-", "#begin document", "#end document")
# Words may hold no-break spaces, which split() without an argument would cut at.
_BLANKS = re.compile(r"[ \t]+")
_COMMENT = re.compile(r"#\s*[\w.:-]+\s*=\s")  # such as "# sent_id = 4"; "# O" is a word and its tag
_BRACKET = re.compile(r"(?:\((?P<type>[^()*]+))?(?P<star>\*)?(?P<end>\))?")


class ColumnData(BaseModel):
    """Where things are in a column file. Columns count from 0, or from the end with -1.

    CoNLL-2003 is the default with `scheme: iob1` in the spec. CoNLL-2005 with words before the props: `predicate: 1,
    arguments: 2`. CoNLL-2012 names: `word: 3, tag: 10, brackets: true`; roles: `word: 3, predicate: 7, arguments: 11`,
    as its frameset column 7 marks the predicates while its lemma column 6 holds some other words too.

    Attributes:
        word: column of the words.
        tag: column of tags in BIO, IOB1 or BIOES; not read if there is a `predicate`.
        brackets: the tag column holds brackets instead, such as "(PERSON*", "*", "*)", "(GPE)".
        predicate: column that is "-" except at predicates; each of them makes one row.
        arguments: the first of the bracket columns, of which there is one a predicate, in order.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    word: int = 0
    tag: int | None = -1
    brackets: bool = False
    predicate: int | None = Field(default=None, ge=0)
    arguments: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> ColumnData:
        if (self.predicate is None) != (self.arguments is None):
            raise ValueError("predicate and arguments go together: give both columns, or neither")
        if self.tag is None and self.predicate is None:
            raise ValueError("a column for tag, or for predicate and arguments, is missing")
        return self


class _Sentence(NamedTuple):
    numbers: list[int]  # of its lines, from 1
    lines: list[list[str]]
    path: Path

    def where(self, at: int) -> str:
        return f"Line {self.numbers[at]} of {self.path}"

    def column(self, index: int) -> list[str]:
        return [cells[index] for cells in self.lines]


def column_rows(source: Source, layout: ColumnData, *, untagged: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    """One row a sentence, or with `layout.predicate` one a predicate, in order, with the line where it begins.

    Args:
        untagged: a sentence whose lines hold a word and nothing else is a row without tags, instead of an error.

    Returns:
        Rows with tokens and tags, as many of each: tags as in the file, or BIO where the file has brackets. With
        `layout.predicate` the types are those of the roles (V, A0, C-A1), and predicate is the index of its word.

    Raises:
        PandaError: names the file and the line that does not fit the layout.
    """
    sentence, found = None, False
    for sentence in _sentences(source):
        for row in _rows(sentence, layout, untagged):
            found = True
            yield sentence.numbers[0], row
    if sentence is None:
        raise PandaError(f"{source.path} is empty: expected at least one sentence, one word per line.")
    if not found:
        raise PandaError(f"{source.path} has no predicate in column {layout.predicate}; check predicate in the layout.")


def _rows(sentence: _Sentence, layout: ColumnData, untagged: bool) -> Iterator[dict[str, Any]]:
    words = sentence.column(_index(sentence, layout.word, "word"))
    if layout.predicate is not None and layout.arguments is not None:
        _index(sentence, layout.predicate, "predicate")
        at_predicates, columns = _roles(sentence, layout.predicate, layout.arguments)
        for at, column in zip(at_predicates, columns, strict=True):
            yield {"tokens": words, "tags": _bio(sentence, column), "predicate": at}
    elif untagged and len(sentence.lines[0]) == 1:
        yield {"tokens": words}
    elif layout.tag is not None:
        column = _index(sentence, layout.tag, "tag")
        if column == layout.word % len(sentence.lines[0]):
            raise PandaError(f"{sentence.where(0)} has one column for both words and tags; check word and tag.")
        yield {"tokens": words, "tags": _bio(sentence, column) if layout.brackets else sentence.column(column)}


def _sentences(source: Source) -> Iterator[_Sentence]:
    universal = is_universal(source.path)
    sentence = _Sentence([], [], source.path)
    for number, line in enumerate(chain(lines_of(source), [""]), 1):
        line = line.strip(" \t\r\n")
        if not line or line.startswith(_SKIPPED):
            if sentence.lines:
                yield sentence
                sentence = _Sentence([], [], source.path)
            continue
        if line.startswith("#") and not sentence.lines and (universal or _COMMENT.match(line)):
            continue
        cells = line.split("\t") if universal else _BLANKS.split(line)
        if universal and not cells[0].isdecimal():
            continue  # "1-2" are the letters of two words in one, "8.1" is a word that is not there
        sentence.numbers.append(number)
        sentence.lines.append(cells)
        width, first = len(cells), len(sentence.lines[0])
        if width != first:
            raise PandaError(
                f"{sentence.where(-1)} has {width} column(s), the first line of its sentence has {first}; fill the "
                "columns, or put a blank line between sentences."
            )


def is_universal(path: Path) -> bool:
    """Whether a file's name is one of CoNLL-U, whose words are in column 1 and may hold spaces."""
    return path.name.lower().endswith((".conllu", ".conllu.gz", ".conllu.zip"))


def _index(sentence: _Sentence, column: int, name: str) -> int:
    width = len(sentence.lines[0])
    if not -width <= column < width:
        raise PandaError(
            f"{sentence.where(0)} has {width} column(s), none for {name}: {column}; check the "
            "layout, in which columns count from 0."
        )
    return column % width


def _roles(sentence: _Sentence, predicate: int, arguments: int) -> tuple[list[int], list[int]]:
    """The words that are predicates, and the bracket column of each."""
    at_predicates = [at for at, cell in enumerate(sentence.column(predicate)) if cell != "-"]
    # Coreference, which may follow, has brackets but never a star.
    columns = [
        at for at in range(arguments, len(sentence.lines[0])) if any("*" in cell for cell in sentence.column(at))
    ]
    if columns != list(range(arguments, arguments + len(at_predicates))):
        raise PandaError(
            f"The sentence from line {sentence.numbers[0]} of {sentence.path} has {len(at_predicates)} predicate(s) in "
            f"column {predicate} and {len(columns)} argument column(s) from column {arguments} on; expected one per "
            "predicate, so check predicate and arguments in the layout, or fix the sentence."
        )
    return at_predicates, columns


def _bio(sentence: _Sentence, column: int) -> list[str]:
    """Brackets such as "(A0*", "*", "*)" as BIO tags."""
    tags = []
    span, began = "", 0  # the type of the open bracket, and its line
    for at, cell in enumerate(sentence.column(column)):
        match = _BRACKET.fullmatch(cell)
        if match is None or not (match["star"] or (match["type"] and match["end"])):
            raise PandaError(
                f"{sentence.where(at)} has {cell!r} in column {column}; expected brackets that are not nested, such as "
                "'(A0*', '*', '*)' or '(A0*)'."
            )
        if match["type"] and span:
            raise PandaError(
                f"{sentence.where(at)} opens {cell!r} in column {column} inside '({span}*' of line "
                f"{sentence.numbers[began]}; close that first, as brackets cannot be nested."
            )
        if match["type"]:
            span, began = match["type"], at
            tags.append(f"B-{span}")
        else:
            tags.append(f"I-{span}" if span else "O")
        if match["end"]:
            if not span:
                raise PandaError(f"{sentence.where(at)} closes a bracket in column {column} that none opens; fix it.")
            span = ""
    if span:
        raise PandaError(f"{sentence.where(began)} opens '({span}*' in column {column}, which nothing closes; fix it.")
    return tags

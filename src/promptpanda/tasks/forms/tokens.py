"""Token classification: words and their tags."""

from __future__ import annotations

from typing import Any

from promptpanda.errors import PandaError
from promptpanda.json_input import read_json
from promptpanda.tasks.inputs import Split, Words, ragged
from promptpanda.tasks.labels import LabelSpace, as_name
from promptpanda.tasks.reading import NumberedRows, Row
from promptpanda.tasks.spec import TaskSpec
from promptpanda.tasks.tags import tag_names, to_bio
from promptpanda.tasks.words import words_in


def examples(spec: TaskSpec, space: LabelSpace, rows: NumberedRows, origin: str) -> Split:
    """The words of rows and the indices of their tags. Raises PandaError that names the row."""
    texts, labels = [], []
    for number, row in rows:
        where = f"Row {number} of {origin}"
        words = words_of(spec, row, where)
        tags = tags_of(spec, row, where)
        if len(tags) != len(words.words):
            raise PandaError(
                f"{where} has {len(words.words)} words and {len(tags)} tags in '{spec.label}'; expected one tag per "
                "word."
            )
        indices = [space.index(tag) for tag in tags]
        if None in indices:
            stranger = tags[indices.index(None)]
            types = ", ".join(repr(name[2:]) for name in space.names if name.startswith("B-"))
            raise PandaError(
                f"{where} has the tag {stranger!r}, but {space.origin} only the types {types}; correct the tag, or add "
                "its type there."
            )
        texts.append(words)
        labels.append(tuple(index for index in indices if index is not None))
    return Split(tuple(texts), ragged(labels))


def words_of(spec: TaskSpec, row: Row, where: str) -> Words:
    """What a model reads of one row. Raises PandaError if there are no words."""
    (field,) = spec.segment_fields(spec.segments[0])
    words = _listed(row[field])
    if words is None and isinstance(row[field], str):
        words = [word.text for word in words_in(row[field])]
    if not words:
        raise PandaError(
            f"{where} has no list of words in '{field}', found {str(row[field])[:40]!r}; expected a list of strings "
            "(in CSV as JSON)."
        )
    strange = [number for number, word in enumerate(words, 1) if not isinstance(word, str)]
    if strange:
        raise PandaError(f"{where} has {words[strange[0] - 1]!r} as word {strange[0]} of '{field}'; expected a string.")
    if not any(word.strip() for word in words):
        raise PandaError(f"{where} has an empty text in '{field}'; fill it or leave the row out.")
    if spec.predicate is None:
        return Words(tuple(words))
    place = row[spec.predicate]
    if not isinstance(place, int) or isinstance(place, bool) or not 0 <= place < len(words):
        raise PandaError(
            f"{where} has {place!r} in '{spec.predicate}'; expected the position of the predicate, 0 to "
            f"{len(words) - 1}."
        )
    return Words(tuple(words), place)


def tags_of(spec: TaskSpec, row: Row, where: str) -> tuple[str, ...]:
    """The tags of one row in BIO. The hub's integers count O, then B and I of every type in the spec's order."""
    tags = _listed(row[spec.label])
    if tags is None:
        raise PandaError(
            f"{where} has no list of tags in '{spec.label}', found {str(row[spec.label])[:40]!r}; expected one tag "
            "per word in a list (in CSV as JSON)."
        )
    names = tag_names(spec.labels)
    if spec.labels and all(isinstance(tag, int) and 0 <= tag < len(names) for tag in tags):
        tags = [names[tag] for tag in tags]
    return tuple(_renamed(spec, tag) for tag in to_bio(tags, where, spec.scheme))


def _listed(value: Any) -> list[Any] | None:
    """A list, also as JSON in a cell of a CSV file; None if it is neither."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = read_json(value, "The cell")
        except PandaError:
            return None
    return value if isinstance(value, list) else None


def _renamed(spec: TaskSpec, tag: str) -> str:
    return tag if tag == "O" else tag[:2] + spec.aliases.get(tag[2:], as_name(tag[2:]))

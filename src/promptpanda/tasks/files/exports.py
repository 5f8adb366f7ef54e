"""What annotation tools and SQuAD nest, as flat rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from promptpanda.errors import PandaError
from promptpanda.tasks.files.records import Row

_UNANNOTATED = {"id", "data", "meta", "predictions"}  # what tasks have before they are labelled


def is_squad(value: Row) -> bool:
    """Whether it is SQuAD's own form: data, paragraphs, questions."""
    data = value.get("data")
    return isinstance(data, list) and bool(data) and isinstance(data[0], dict) and "paragraphs" in data[0]


def squad_rows(value: Row, path: Path) -> tuple[list[Row], list[str]]:
    """One row a question: id, title, question, context, answers ({text: [...], answer_start: [...]}).

    Raises:
        PandaError: a part is missing; the sentence names it.
    """
    rows: list[Row] = []
    for at, article in enumerate(value["data"], 1):
        where = f"Article {at} of {path}"
        for paragraph in _part(article, "paragraphs", list, where):
            context = _part(paragraph, "context", str, f"A paragraph of {where[0].lower()}{where[1:]}")
            for question in _part(paragraph, "qas", list, f"A paragraph of {where[0].lower()}{where[1:]}"):
                here = f"Question {len(rows) + 1} of {path}"
                asked = _part(question, "question", str, here)
                row = {"id": question.get("id"), "title": article.get("title"), "question": asked, "context": context}
                rows.append(row | _answers(question, here))
    version = str(value.get("version", "")).lstrip("v") or "without a version"
    none = sum("answers" in row and not row["answers"]["text"] for row in rows)
    open_ones = sum("answers" not in row for row in rows)
    return rows, [
        f"{path}: SQuAD {version}, {len(rows)} questions"
        + (f", {none} of them without an answer" if none else "")
        + (f", {open_ones} of them not labelled" if open_ones else "")
        + ". Columns: question, context, answers."
    ]


def _answers(question: Row, where: str) -> Row:
    """The column of answers; none where a question has none because nobody has labelled it."""
    if question.get("is_impossible"):
        return {"answers": {"text": [], "answer_start": []}}
    if "answers" not in question:
        return {}
    answers = _part(question, "answers", list, where)
    starts = [_part(one, "answer_start", int, where) for one in answers]
    return {"answers": {"text": [_part(one, "text", str, where) for one in answers], "answer_start": starts}}


def _part(value: Any, name: str, kind: type, where: str) -> Any:
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, kind):
        expected = {list: "a list", str: "a text", int: "a number"}[kind]
        raise PandaError(f"{where} has no '{name}' with {expected}, which SQuAD's form has there; fix it.")
    return found


def is_label_studio(rows: list[Any]) -> bool:
    """Whether it is Label Studio's JSON export (JSON-MIN and CSV are flat already)."""
    first = rows[0] if rows else None
    if not isinstance(first, dict) or not isinstance(first.get("data"), dict):
        return False
    return _annotations(first) is not None or set(first) <= _UNANNOTATED


def label_studio_rows(tasks: list[Any], path: Path) -> tuple[list[Row], list[str]]:
    """The id and the data of every task, and a column for every control of the labelling page.

    The column has the name of the control (`from_name`). A choice is a text (several: a list), spans are lists of
    (start, end, label) in characters, numbers and ratings are numbers. Tasks that nobody annotated have None there. Of
    several annotations the first valid one counts.
    """
    rows: list[Row] = []
    controls: dict[str, None] = {}
    several = 0
    for number, task in enumerate(tasks, 1):
        if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
            raise PandaError(
                f"Task {number} of {path} has no 'data', which Label Studio's export has; export it again."
            )
        valid = [
            one
            for one in _annotations(task) or []
            if isinstance(one, dict) and not one.get("was_cancelled") and isinstance(one.get("result"), list)
        ]
        several += len(valid) > 1
        found = _controls(valid[0]["result"], f"Task {number} of {path}") if valid else {}
        controls |= dict.fromkeys(found)
        number_there = {"id": task["id"]} if "id" in task else {}
        rows.append({**number_there, **task["data"], **found})
    # A page where nothing was marked has no result: nobody's mark is not nobody's work.
    spans = {name for row in rows for name in controls if isinstance(row.get(name), list)}
    for row, task in zip(rows, tasks, strict=True):
        done = any(not one.get("was_cancelled") for one in _annotations(task) or [] if isinstance(one, dict))
        row |= {name: ([] if done and name in spans else None) for name in controls if name not in row}
    labels = f"its labels are in {', '.join(map(repr, controls))}" if controls else "nothing in it is labelled"
    notes = [f"{path}: an export of Label Studio; {labels}."]
    if several:
        notes.append(f"{path}: {several} rows were annotated more than once; the first annotation counts.")
    return rows, notes


def _annotations(task: Row) -> list[Any] | None:
    for name in ("annotations", "completions"):  # completions: before version 1
        if isinstance(task.get(name), list):
            found: list[Any] = task[name]
            return found
    return None


def _controls(results: list[Any], where: str) -> Row:
    found: Row = {}
    for result in results:
        value = result.get("value") if isinstance(result, dict) else None
        name = result.get("from_name") if isinstance(result, dict) else None
        if not isinstance(value, dict) or not isinstance(name, str):
            if isinstance(result, dict) and result.get("type") == "relation":
                continue
            raise PandaError(f"{where} has a result without from_name and value; export it again.")
        if "start" in value or "globalOffsets" in value:
            found.setdefault(name, []).append(_span(value, where))
        elif isinstance(value.get("choices"), list):
            choices = [one for one in value["choices"]]
            found[name] = choices[0] if len(choices) == 1 else choices
        else:
            single = [value[kind] for kind in ("number", "rating", "text") if kind in value]
            if single:
                found[name] = single[0][0] if isinstance(single[0], list) and len(single[0]) == 1 else single[0]
    return found


def _span(value: Row, where: str) -> tuple[Any, Any, Any]:
    # Spans of HTML count from its nodes; globalOffsets count characters.
    place = value["globalOffsets"] if isinstance(value.get("globalOffsets"), dict) else value
    labels = next((one for name, one in value.items() if name.endswith("labels") and isinstance(one, list)), None)
    if not labels:
        raise PandaError(f"{where} has a span without a label; give it one, or delete it.")
    return place.get("start"), place.get("end"), labels[0]

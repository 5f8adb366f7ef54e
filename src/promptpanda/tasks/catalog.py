"""Finding a task: by catalog name, by the path of a YAML spec, or from the user's own files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from promptpanda.errors import PandaError, suggest
from promptpanda.files import check_name
from promptpanda.tasks.annotations import answered
from promptpanda.tasks.columns import ColumnData, is_universal
from promptpanda.tasks.files.reader import check_data, is_column_file, open_rows
from promptpanda.tasks.files.records import Layout
from promptpanda.tasks.own_rows import OwnRows
from promptpanda.tasks.spec import CHOICE, FileData, Kind, TaskSpec
from promptpanda.tasks.task import SPLITS, Task, data_root

_OWN_METRICS = {
    Kind.MULTI_LABEL: ["micro_f1", "macro_f1"],
    Kind.REGRESSION: ["pearson_spearman"],
    Kind.MULTIPLE_CHOICE: ["accuracy"],
    Kind.TOKEN_CLASSIFICATION: ["span_f1", "span_precision", "span_recall"],
    Kind.EXTRACTIVE_QA: ["squad_f1", "squad_em"],
}
# The columns of text, second text and label, where nobody names them.
_USUAL = {Kind.TOKEN_CLASSIFICATION: ("tokens", None, "tags"), Kind.EXTRACTIVE_QA: ("question", "context", "answers")}
_FOLDER = Path(str(files("promptpanda.tasks"))) / "catalog"


def catalog_names() -> list[str]:
    """The names of all tasks in the catalog, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


@cache
def catalog_spec(name: str) -> TaskSpec:
    """The catalog's spec of a task. Raises PandaError for an unknown name."""
    if name not in catalog_names():
        raise PandaError(
            f"No task '{name}' in the catalog.{suggest(name, catalog_names())} `panda tasks list` shows all; a path "
            "to a YAML spec or --train FILE can be given too."
        )
    return TaskSpec.from_yaml(_FOLDER / f"{name}.yaml")


def load_task(name: str | Path, *, data_dir: Path | str | None = None, template: str | None = None) -> Task:
    """Find a task by its catalog name, or by the path of a YAML spec. Its data is read when it is first needed.

    Args:
        name: such as `rte`, or `my/task.yaml`.
        data_dir: folder with one folder per task (`rte/train.jsonl`); None, the default, takes the folder that the
            environment variable `PANDA_DATA` names.
        template: name of one of the spec's other ways to write the text, such as `marked`; None takes the usual one.

    Returns:
        The task.

    Raises:
        PandaError: no such task, file or template, or a spec that cannot be read.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise PandaError(f"No task spec at {path}; check the path, or see `panda tasks list`.")
        spec = TaskSpec.from_yaml(path)
        if spec.files is not None:
            spec = spec.model_copy(update={"files": _beside(spec.files, path.parent)})
    else:
        spec = catalog_spec(str(name))
    return Task(spec if template is None else spec.with_template(template), data_root(data_dir))


def own_task(
    *,
    train: Path | str | Any | None = None,
    validation: Path | str | Any | None = None,
    test: Path | str | Any | None = None,
    text: str | None = None,
    text2: str | None = None,
    choices: Sequence[str] = (),
    label: str | Sequence[str] | None = None,
    label_separator: str | None = None,
    kind: Kind | None = None,
    metric: str | None = None,
    name: str | None = None,
    text_column: int | None = None,
    tag_column: int | None = None,
    delimiter: str | None = None,
    sheet: str | None = None,
    strict: bool = False,
) -> Task:
    """Make a task from your own data: files, or rows in memory. At least one of `train` and `test` is needed.

    Args:
        train: training rows: the path of a file in any format of docs/own-data.md, a pandas frame, a
            `datasets.Dataset`, or a list of dictionaries. Column files (.conll, .conllu) have the fields `tokens` and
            `tags`. None for none.
        validation: a validation set, in the same forms. The protocol `paper` chooses and reports on it. The protocol
            `clean`, the default, takes validation examples from the training rows; it reads this set only as test data,
            and only if there is no `test`. None for none.
        test: test rows, in the same forms; None for none.
        text: the column with the text. For token classification the words, or a text with spans; for extractive QA the
            question; for multiple choice what the choices are about. None, the default, takes the usual name (`text`;
            for tags `tokens`, for questions `question`).
        text2: the column with the second text of a pair, or for extractive QA with the context. None, the default,
            takes `context` for questions, and otherwise means single texts.
        choices: for multiple choice, the columns of the choices, or the one column that lists them.
        label: the column with the label, the labels, the tags or spans, or the answers. For several labels it may also
            be several columns of 0 and 1, one per label. None, the default, takes the usual name (`label`; for tags
            `tags`, for questions `answers`).
        label_separator: the text between several labels in one cell; None, the default, means "|".
        kind: the kind of task. None, the default, means multiple choice if there are `choices`, pair classification if
            `text2` is given, token classification if `text_column` or `tag_column` is given, extractive QA for a file
            in SQuAD's format, and otherwise single-sentence classification.
        metric: the metric that prompts are chosen by. None, the default, takes that of the kind, or macro F1 if a class
            is rare (docs/own-data.md, Imbalanced classes).
        name: the task's name; None, the default, takes the name of the first file, without its ending.
        text_column: for column files, the column with the words, counted from 0 (-1 is the last); None detects it.
        tag_column: for column files, the column with the tags, counted in the same way; None detects it.
        delimiter: the separator of .csv and .tsv files; None, the default, detects it.
        sheet: the sheet of a workbook; None, the default, takes the first that has the columns.
        strict: refuse rows without a label or a text, instead of leaving them out with a note (`Task.notes`).

    Returns:
        The task. `Task.notes` says what was found in the data and what was left out.

    Raises:
        PandaError: a file that does not exist, rows in an unknown form, or columns and kind that do not match.
    """
    files, rows = _inputs({"train": train, "validation": validation, "test": test})
    first = next(iter(files.values()), None)
    layout = Layout(delimiter=delimiter, sheet=sheet)
    if kind is None:
        kind = _kind(text2, choices, text_column, tag_column)
    columns = (label,) if isinstance(label, str) else tuple(label or ())
    there = next(iter(rows.values())).reader().columns if first is None else None
    kind, text, text2, label = _recognised(first, there, layout, kind, text, text2, columns[0] if columns else None)
    _check_columns(kind, text, text2, choices, columns or (label,))
    own = _of_kind(kind, [one for one in (text, text2) if one is not None], choices)
    if kind == Kind.TOKEN_CLASSIFICATION and first is not None and is_column_file(first):
        own["columns"] = _columns(first, text_column, tag_column)
    elif text_column is not None or tag_column is not None:
        raise PandaError("--text-column and --tag-column are for column files (.conll); name --text and --label.")
    if kind == Kind.EXTRACTIVE_QA:
        reader = open_rows(first, layout, needed=[label]) if first is not None else next(iter(rows.values())).reader()
        own["no_answer"] = any(_unanswered(record.values.get(label)) for record in reader)
    if len(columns) > 1:
        own["label_columns"] = columns
    if label_separator is not None:
        own["label_separator"] = label_separator
    paths = {split: str(path) for split, path in files.items()}
    spec = TaskSpec.parse(
        {
            "name": _own_name(name, first),
            "kind": kind,
            "label": label,
            "metrics": _metrics(kind, metric),
            **own,
            "files": FileData(**paths, delimiter=layout.delimiter, sheet=sheet) if files else None,
        },
        "the options",
    )
    return Task(spec, metric_open=metric is None, rows=rows, strict=strict)  # type: ignore[arg-type]


def _inputs(given: Mapping[str, Any]) -> tuple[dict[str, Path], dict[str, OwnRows]]:
    """The files and the rows in memory, by split. Raises PandaError if there are none, or some of both."""
    files = {split: Path(one) for split, one in given.items() if isinstance(one, (str, Path))}
    rows = {split: OwnRows.of(one, split) for split, one in given.items() if one is not None and split not in files}
    if not files and not rows:
        raise PandaError("Own data needs at least one file; give --train FILE (or --test FILE to evaluate).")
    if files and rows:
        raise PandaError("Own data comes from files or from rows in memory; give all splits in one of the two ways.")
    for path in files.values():
        check_data(path)
    return files, rows


def _metrics(kind: Kind, metric: str | None) -> list[str]:
    """The metrics of own data; the requested one comes first."""
    metrics = _OWN_METRICS.get(kind, ["accuracy", "macro_f1"])
    return metrics if metric is None else [metric, *(other for other in metrics if other != metric)]


def _kind(text2: str | None, choices: Sequence[str], text_column: int | None, tag_column: int | None) -> Kind | None:
    if text_column is not None or tag_column is not None:
        return Kind.TOKEN_CLASSIFICATION
    if choices:
        return Kind.MULTIPLE_CHOICE
    return None if text2 is None else Kind.PAIR_CLASSIFICATION


def _recognised(
    first: Path | None,
    there: tuple[str, ...] | None,
    layout: Layout,
    kind: Kind | None,
    text: str | None,
    text2: str | None,
    label: str | None,
) -> tuple[Kind, str, str | None, str]:
    """Kind and columns, filled in from the data where they were not given.

    Args:
        there: the columns of rows in memory.

    Raises:
        PandaError: no column is called as those of the kind are by default.
    """
    if first is not None and kind == Kind.TOKEN_CLASSIFICATION and is_column_file(first):
        return kind, text or "tokens", text2, label or "tags"
    if first is not None and text is None:
        reader = open_rows(first, layout, needed=["text"])
        there = reader.columns
        if kind in (None, Kind.EXTRACTIVE_QA) and reader.form == "squad":
            kind = Kind.EXTRACTIVE_QA
    if "" in (text, text2, label):
        raise PandaError("A column without a name was given; give --text and --label the names of columns.")
    kind = kind or Kind.SINGLE_CLASSIFICATION
    usual = _USUAL.get(kind, ("text", None, "label"))
    if kind == Kind.TOKEN_CLASSIFICATION and there is not None and "tokens" not in there:
        usual = ("text", None, "label")  # a text and its spans
    if text is None and there and usual[0] not in there:
        raise PandaError(
            f"There is no column '{usual[0]}' in {first or 'the rows'}, which has "
            f"{', '.join(map(repr, there))[:200] or 'none'}; say which column has the text (--text COLUMN) and which "
            "the label (--label COLUMN)."
        )
    return kind, text or usual[0], text2 or usual[1], label or usual[2]


def _of_kind(kind: Kind, fields: Sequence[str], choices: Sequence[str]) -> dict[str, Any]:
    """What a spec says of the fields."""
    segments = [f"{{{column}}}" for column in fields]
    if kind != Kind.MULTIPLE_CHOICE:
        return {"segments": segments}
    own: dict[str, Any] = {"choice_list": choices[0]} if len(choices) == 1 else {"choices": tuple(choices)}
    return own | {"segments": [" ".join(segments), f"{{{CHOICE}}}"]}


def _columns(path: Path, text_column: int | None, tag_column: int | None) -> ColumnData:
    """By default as CoNLL-2003 has them, the word first, its tag last; of CoNLL-U the words and the parts of speech."""
    word, tag = (1, 3) if is_universal(path) else (0, -1)
    return ColumnData(word=word if text_column is None else text_column, tag=tag if tag_column is None else tag_column)


def _unanswered(value: Any) -> bool:
    answers = answered(value)
    return isinstance(answers, dict) and answers.get("text") == []


def _own_name(name: str | None, first: Path | None) -> str:
    if name is None:
        name = "own" if first is None else first.name.split(".")[0]
    try:
        return check_name(name, "Task name")
    except PandaError as error:
        raise PandaError(f"{str(error)[:-1]}; give one with --name.") from error


def _check_columns(kind: Kind, text: str, text2: str | None, choices: Sequence[str], labels: Sequence[str]) -> None:
    if len(labels) > 1 and kind != Kind.MULTI_LABEL:
        raise PandaError(
            f"{len(labels)} label columns were given; several, of 0 and 1, are for --kind multi_label; otherwise give "
            "one."
        )
    if kind == Kind.EXTRACTIVE_QA and text2 is None:
        raise PandaError("Extractive QA needs the column of the context as well as that of the question (--text2).")
    for column in (text, text2, *labels, *choices):
        if column == "":
            raise PandaError("A column was given without a name; name the columns as the file's first row does.")
        if column is not None and column not in labels and ("{" in column or "}" in column):
            raise PandaError(f"Column {column!r} has braces in its name, which mark fields in templates; rename it.")
    both = next((label for label in labels if label in (text, text2, *choices)), None)
    if both is not None:
        raise PandaError(f"The column '{both}' is given as text and as label; a model would read the answer.")
    if kind == Kind.MULTIPLE_CHOICE and not choices:
        raise PandaError("Multiple choice needs --choices: the columns of the choices, or one that lists them.")


def _beside(given: FileData, folder: Path) -> FileData:
    paths: dict[str, str | None] = {split: getattr(given, split) for split in SPLITS}
    beside = {split: None if path is None else str(folder / path) for split, path in paths.items()}
    return given.model_copy(update=beside)

"""Finding a task: by catalog name, by the path of a YAML spec, or from the user's own files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from promptpanda.errors import PandaError, suggest
from promptpanda.files import check_name
from promptpanda.tasks.columns import ColumnData
from promptpanda.tasks.reading import COLUMN_SUFFIXES
from promptpanda.tasks.spec import CHOICE, FileData, Kind, TaskSpec
from promptpanda.tasks.task import Task, data_root
from promptpanda.tasks.text import check_file

_OWN_METRICS = {
    Kind.MULTI_LABEL: ["micro_f1", "macro_f1"],
    Kind.REGRESSION: ["pearson_spearman"],
    Kind.MULTIPLE_CHOICE: ["accuracy"],
    Kind.TOKEN_CLASSIFICATION: ["span_f1", "span_precision", "span_recall"],
    Kind.EXTRACTIVE_QA: ["squad_f1", "squad_em"],
}
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
            "to a YAML spec or --train FILE serves too."
        )
    return TaskSpec.from_yaml(_FOLDER / f"{name}.yaml")


def load_task(name: str | Path, *, data_dir: Path | str | None = None, template: str | None = None) -> Task:
    """A task by catalog name or by the path of a YAML spec.

    Args:
        name: such as `rte`, or `my/task.yaml`.
        data_dir: data root with a folder of the task's name; by default what PANDA_DATA names.
        template: one of the spec's other ways to write the text.

    Raises:
        PandaError: no such task or file, or a spec that cannot be read.
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
    train: Path | str | None = None,
    validation: Path | str | None = None,
    test: Path | str | None = None,
    text: str,
    text2: str | None = None,
    choices: Sequence[str] = (),
    label: str | Sequence[str] = "label",
    label_separator: str | None = None,
    kind: Kind | None = None,
    metric: str | None = None,
    name: str | None = None,
) -> Task:
    """A task from the user's own files (.jsonl, .jsonl.gz, .csv or .parquet).

    Args:
        train, validation, test: .jsonl, .jsonl.gz, .csv or .parquet; for token classification also column files
            (.conll), whose rows have the fields `tokens` and `tags`.
        text, text2: the columns with the text, and with the second text of a pair. Token classification: the words.
            Extractive QA: question and context. Multiple choice: what the choices are about.
        choices: multiple choice: the columns of the choices, or the one column that lists them.
        label: the column with the label, the labels, the tags or the answers; of several labels also columns of 0 and
            1, one a label.
        label_separator: between several labels in one cell; by default "|".
        kind: by default multiple choice if there are `choices`, pair classification if `text2` is given, else
            single-sentence classification.
        metric: what prompts are chosen by; by default that of the kind, and macro F1 where a class is rare
            (tasks/imbalance.py).
        name: by default the name of the first file, without its ending.

    Raises:
        PandaError: a file that is not there, or columns and kind that do not go together.
    """
    given = {"train": train, "validation": validation, "test": test}
    files = {split: Path(path) for split, path in given.items() if path is not None}
    if not files:
        raise PandaError("Own data needs at least one file; give --train FILE (or --test FILE to evaluate).")
    for path in files.values():
        check_file(path)
    first = next(iter(files.values()))
    if kind is None:
        kind = Kind.SINGLE_CLASSIFICATION if text2 is None else Kind.PAIR_CLASSIFICATION
        kind = Kind.MULTIPLE_CHOICE if choices else kind
    columns = (label,) if isinstance(label, str) else tuple(label)
    _check_columns(kind, text, text2, choices, columns)
    segments = [f"{{{column}}}" for column in (text, text2) if column is not None]
    own: dict[str, Any] = {}
    if kind == Kind.TOKEN_CLASSIFICATION and first.name.lower().endswith(COLUMN_SUFFIXES):
        own = {"columns": ColumnData()}  # as CoNLL-2003 has them: the word first, its tag last
    if kind == Kind.MULTIPLE_CHOICE:
        segments = [" ".join(segments), f"{{{CHOICE}}}"]
        own = {"choice_list": choices[0]} if len(choices) == 1 else {"choices": tuple(choices)}
    if len(columns) > 1:
        own |= {"label_columns": columns}
    if label_separator is not None:
        own |= {"label_separator": label_separator}
    metrics = _OWN_METRICS.get(kind, ["accuracy", "macro_f1"])
    if metric is not None:
        metrics = [metric, *(other for other in metrics if other != metric)]
    spec = TaskSpec.parse(
        {
            "name": _own_name(name, first),
            "kind": kind,
            "segments": segments,
            "label": columns[0],
            "metrics": metrics,
            **own,
            "files": FileData(**{split: str(path) for split, path in files.items()}),
        },
        "the options",
    )
    return Task(spec, metric_open=metric is None)


def _own_name(name: str | None, first: Path) -> str:
    name = name if name is not None else first.name.split(".")[0]
    try:
        return check_name(name, "Task name")
    except PandaError as error:
        raise PandaError(f"{str(error)[:-1]}; give one with --name.") from error


def _check_columns(kind: Kind, text: str, text2: str | None, choices: Sequence[str], labels: tuple[str, ...]) -> None:
    if not labels or (len(labels) > 1 and kind != Kind.MULTI_LABEL):
        raise PandaError(
            f"{len(labels)} label columns were given; several, of 0 and 1, are for --kind multi_label, and else one is "
            "needed."
        )
    if kind == Kind.EXTRACTIVE_QA and text2 is None:
        raise PandaError("Extractive QA needs the column of the context beside that of the question (--text2).")
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
    paths = {split: None if value is None else str(folder / value) for split, value in given.model_dump().items()}
    return FileData(**paths)

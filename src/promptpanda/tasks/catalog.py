"""Finding a task: by catalog name, by the path of a YAML spec, or from the user's own files."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from promptpanda.errors import PandaError, suggest
from promptpanda.files import check_name
from promptpanda.tasks.spec import FileData, Kind, TaskSpec
from promptpanda.tasks.task import Task, data_root

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


def load_task(name: str | Path, *, data_dir: Path | str | None = None) -> Task:
    """A task by catalog name or by the path of a YAML spec.

    Args:
        name: such as `rte`, or `my/task.yaml`.
        data_dir: data root with a folder of the task's name; by default what PANDA_DATA names.
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
    return Task(spec, data_root(data_dir))


def own_task(
    *,
    train: Path | None = None,
    validation: Path | None = None,
    test: Path | None = None,
    text: str,
    text2: str | None = None,
    label: str = "label",
    kind: Kind | None = None,
    name: str | None = None,
) -> Task:
    """A task from the user's own files (.jsonl, .jsonl.gz, .csv or .parquet).

    Args:
        text, text2: the columns with the text, and with the second text of a pair.
        label: the column with the label.
        kind: by default pair classification if `text2` is given, else single-sentence classification.
        name: by default the name of the first file, without its ending.
    """
    first = next((path for path in (train, validation, test) if path is not None), None)
    if first is None:
        raise PandaError("Own data needs at least one file; give --train FILE (or --test FILE to evaluate).")
    for path in (train, validation, test):
        if path is not None and not path.is_file():
            raise PandaError(f"No file {path}; check the path.")
    if kind is None:
        kind = Kind.SINGLE_CLASSIFICATION if text2 is None else Kind.PAIR_CLASSIFICATION
    name = name if name is not None else first.name.split(".")[0]
    try:
        check_name(name, "Task name")
    except PandaError as error:
        raise PandaError(f"{str(error)[:-1]}; give one with --name.") from error
    for column in (text, text2):
        if column is not None and ("{" in column or "}" in column):
            raise PandaError(f"Column {column!r} has braces in its name, which mark fields in templates; rename it.")
    if label in (text, text2):
        raise PandaError(f"The column '{label}' is given as text and as label; a model would read the answer.")
    segments = [f"{{{column}}}" for column in (text, text2) if column is not None]
    spec = TaskSpec.parse(
        {
            "name": name,
            "kind": kind,
            "segments": segments,
            "label": label,
            "metrics": ["pearson_spearman"] if kind == Kind.REGRESSION else ["accuracy", "macro_f1"],
            "files": FileData(
                train=None if train is None else str(train),
                validation=None if validation is None else str(validation),
                test=None if test is None else str(test),
            ),
        },
        "the options",
    )
    return Task(spec)


def _beside(given: FileData, folder: Path) -> FileData:
    paths = {split: None if value is None else str(folder / value) for split, value in given.model_dump().items()}
    return FileData(**paths)

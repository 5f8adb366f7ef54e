"""panda tasks list | show"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from promptpanda.cli import output
from promptpanda.cli.command import command
from promptpanda.cli.options import DataDir, Json
from promptpanda.errors import PandaError

if TYPE_CHECKING:
    from promptpanda.tasks.spec import SplitName
    from promptpanda.tasks.task import Task

app = typer.Typer(help="The tasks that promptpanda knows.", no_args_is_help=True)


@command(app, "list")
def list_tasks(data_dir: DataDir = None, json: Json = False) -> None:
    """List the tasks of the catalog, and whether their data is on this machine."""
    from promptpanda.tasks.catalog import catalog_names, load_task
    from promptpanda.tasks.task import SPLITS

    tasks = [load_task(name, data_dir=data_dir) for name in catalog_names()]
    sizes: dict[str, dict[SplitName, int]] = {}
    problems: dict[str, str] = {}
    for task in tasks:
        try:
            sizes[task.name] = task.sizes()
        except PandaError as error:
            sizes[task.name], problems[task.name] = {}, str(error)
    if json:
        rows = [
            {
                "name": task.name,
                "kind": task.kind.value,
                "metric": task.spec.metric,
                "labels": len(task.spec.labels),
                "local": task.available(),
                "sizes": sizes[task.name],
                "hub": None if task.spec.hub is None else task.spec.hub.path,
            }
            | ({"problem": problems[task.name]} if task.name in problems else {})
            for task in tasks
        ]
        output.print_json({"tasks": rows})
        return
    lines = [
        [
            task.name,
            task.kind.words,
            task.spec.metric,
            str(len(task.spec.labels) or "-"),
            "/".join(str(sizes[task.name].get(split, "-")) for split in SPLITS),
            "broken" if task.name in problems else _place(task),
            task.spec.title,
        ]
        for task in tasks
    ]
    columns = ["task", "kind", "metric", "classes", "/".join(SPLITS), "data", "what"]
    output.print_table(None, columns, lines, (3, 4), optional=(3, 2, 6))
    for name, problem in problems.items():
        typer.echo(f"{name}: {problem}", err=True)


def _place(task: Task) -> str:
    return "here" if task.available() else ("hub" if task.spec.hub is not None else "--data-dir")


@command(app, "show")
def show_task(
    name: Annotated[str, typer.Argument(help="Catalog name or YAML spec.")],
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Show a task's spec as YAML, to copy and change."""
    import yaml

    from promptpanda.tasks.catalog import load_task

    task = load_task(name, data_dir=data_dir)
    content = task.spec.model_dump(mode="json", exclude_defaults=True)
    if json:
        output.print_json(content)
        return
    typer.echo(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110).rstrip())

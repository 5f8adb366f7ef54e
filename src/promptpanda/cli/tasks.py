"""panda tasks list | show"""

from __future__ import annotations

from typing import Annotated

import typer

from promptpanda.cli import output
from promptpanda.cli.command import command
from promptpanda.cli.options import DataDir, Json

app = typer.Typer(help="The tasks that promptpanda knows.", no_args_is_help=True)


@command(app, "list")
def list_tasks(data_dir: DataDir = None, json: Json = False) -> None:
    """All tasks of the catalog, and whether their data is on this machine."""
    from promptpanda.tasks.catalog import catalog_names, load_task
    from promptpanda.tasks.task import SPLITS

    tasks = [load_task(name, data_dir=data_dir) for name in catalog_names()]
    if json:
        rows = [
            {
                "name": task.name,
                "kind": task.kind.value,
                "metric": task.spec.metric,
                "labels": len(task.spec.labels),
                "local": task.available(),
                "sizes": task.sizes(),
                "hub": None if task.spec.hub is None else task.spec.hub.path,
            }
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
            "/".join(str(sizes.get(split, "-")) for split in SPLITS),
            "here" if task.available() else ("hub" if task.spec.hub is not None else "--data-dir"),
            task.spec.title,
        ]
        for task in tasks
        for sizes in [task.sizes()]
    ]
    columns = ["task", "kind", "metric", "classes", "/".join(SPLITS), "data", "what"]
    output.print_table(None, columns, lines, (3, 4), optional=(3, 2, 6))


@command(app, "show")
def show_task(
    name: Annotated[str, typer.Argument(help="Catalog name or YAML spec.")],
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """One task's spec, as the YAML that you can copy and change."""
    import yaml

    from promptpanda.tasks.catalog import load_task

    task = load_task(name, data_dir=data_dir)
    content = task.spec.model_dump(mode="json", exclude_defaults=True)
    if json:
        output.print_json(content)
        return
    typer.echo(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110).rstrip())

"""panda recipes list | show"""

from __future__ import annotations

from typing import Annotated

import typer

from promptpanda.cli import output
from promptpanda.cli.command import command
from promptpanda.cli.options import Json

app = typer.Typer(help="Named settings for a training, including published ones.", no_args_is_help=True)


@command(app, "list")
def list_recipes(json: Json = False) -> None:
    """List the recipes; use one with `--recipe NAME`."""
    from promptpanda.training.recipes import recipe, recipe_names

    found = [recipe(name) for name in recipe_names()]
    if json:
        output.print_json({"recipes": [one.model_dump(mode="json", exclude={"options"}) for one in found]})
        return
    lines = [[one.name, one.title, one.task or "any", one.model or "any", one.reference] for one in found]
    output.print_table(None, ["recipe", "what", "task", "model", "reference"], lines)


@command(app, "show")
def show_recipe(name: Annotated[str, typer.Argument(help="Name of a recipe.")], json: Json = False) -> None:
    """Show the settings of one recipe."""
    import yaml

    from promptpanda.training.recipes import recipe

    content = recipe(name).model_dump(mode="json", exclude_unset=True)
    if json:
        output.print_json(content)
        return
    typer.echo(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110).rstrip())

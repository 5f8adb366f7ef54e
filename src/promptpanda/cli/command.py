"""What all commands share: option groups, and errors as one sentence with an exit code."""

from __future__ import annotations

import dataclasses
import errno
import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import typer
from typer.models import OptionInfo

from promptpanda.errors import PandaError
from promptpanda.files import FULL


def command(app: typer.Typer, name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as a command.

    A parameter whose type is a dataclass is an option group: its fields become options of the command, in its place,
    and its `panel` heads them in --help.
    Exit codes: 0 done, 2 the user can fix it, 130 interrupted, 1 without a word where nobody reads the output any more
    (`| head`); anything else is our fault and shows a traceback.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(function, eval_str=True)
        groups: dict[str, type] = {}
        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            if dataclasses.is_dataclass(parameter.annotation) and isinstance(parameter.annotation, type):
                groups[parameter.name] = parameter.annotation
                parameters.extend(_options_of(parameter.annotation))
            else:
                parameters.append(parameter)
        parameters = [item.replace(kind=inspect.Parameter.KEYWORD_ONLY) for item in parameters]

        @functools.wraps(function)
        def run(**values: Any) -> None:
            for group, kind in groups.items():
                names = [field.name for field in dataclasses.fields(kind)]
                values[group] = kind(**{name: values.pop(name) for name in names})
            try:
                function(**values)
            except PandaError as error:
                stop(str(error), 2)
            except KeyboardInterrupt:
                stop("Interrupted; what was finished is kept.", 130)
            except BrokenPipeError:
                sys.stderr.close()
                raise typer.Exit(1) from None
            except OSError as error:
                stop(_of_the_system(error), 2)

        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {item.name: item.annotation for item in parameters}
        app.command(name, help=inspect.cleandoc(function.__doc__ or ""))(run)
        return run

    return register


def _options_of(group: type) -> list[inspect.Parameter]:
    """The parameters of a group, each in its panel of --help: its own, else the group's."""
    found = list(inspect.signature(group, eval_str=True).parameters.values())
    for parameter in found:
        for info in getattr(parameter.annotation, "__metadata__", ()):
            if isinstance(info, OptionInfo) and info.rich_help_panel is None:
                info.rich_help_panel = getattr(group, "panel", None)
    return found


def stop(message: str, code: int) -> NoReturn:
    """Print one sentence to stderr and leave."""
    typer.echo(message if code == 130 else f"panda: {message}", err=True)
    raise typer.Exit(code)


def _of_the_system(error: OSError) -> str:
    where = f" at {error.filename}" if error.filename else ""
    if error.errno in FULL:
        return f"The disk is full{where}; free some space and run the command again, what was finished is kept."
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"No permission to write{where}; choose another place (--bank), what was finished is kept."
    if error.errno == errno.ENOENT:
        return f"There is nothing{where}, and nothing can be created there; choose another place (--bank)."
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"There is a file{where} where a folder is needed; choose another place (--bank)."
    if error.errno is None:
        raise error
    return f"{error.strerror or error}{where}."

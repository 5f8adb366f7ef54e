"""The documentation as a site: `make docs`. Sphinx reads Markdown (MyST) and docstrings; no network is needed."""

from __future__ import annotations

import os
import re
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from promptpanda.version import __version__

project = "promptpanda"
author = "the promptpanda authors"
copyright = author
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
default_role = "code"
html_theme = "furo"
html_title = f"promptpanda {__version__}"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
napoleon_use_ivar = True
napoleon_custom_sections = ["Shape"]

_COMMANDS = Path(__file__).parent / "commands.md"


def _write_commands() -> None:
    """The command reference, from the commands' own help."""
    from typer import Context
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    from promptpanda.cli.main import app

    command = get_command(app)
    text = get_docs_for_click(obj=command, ctx=Context(command), name="panda", title="Command reference")
    # Rich markup is for terminals, and a default that names this machine's folder is nobody else's.
    text = re.sub(r"\[/?(?:bold|italic|dim|cyan|green|red)\]", "", text)
    if not _COMMANDS.exists() or _COMMANDS.read_text(encoding="utf-8") != text:
        _COMMANDS.write_text(text, encoding="utf-8")


_write_commands()

"""From a study to its sections, and from these to one HTML page and tables in Markdown and LaTeX beside it."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from promptpanda.errors import PandaError
from promptpanda.report.answers import Answer
from promptpanda.report.figures import Figure
from promptpanda.report.tables import Table, latex, markdown, md_text
from promptpanda.templating import environment

HTML, MARKDOWN, LATEX = "report.html", "tables.md", "tables.tex"


@dataclass(frozen=True)
class Part:
    """Tables and figures under one heading; folded ones are opened by a click."""

    title: str
    items: tuple[Table | Figure, ...]
    folded: bool = False


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        lead: sentences under its heading, and under answers and figure where there are such.
        quoted: lines shown as they are (a command, a recipe), by what they are.
        prints: whether its tables go into the LaTeX file, which is for papers.
        answers: what was found, in sentences; they stand first.
        figure: what is seen at once, under the answers.
    """

    id: str
    title: str
    lead: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    quoted: dict[str, str] = field(default_factory=dict)
    prints: bool = True
    answers: tuple[Answer, ...] = ()
    figure: Figure | None = None

    @property
    def tables(self) -> list[Table]:
        return [item for part in self.parts for item in part.items if isinstance(item, Table)]


@dataclass(frozen=True)
class Report:
    """What is written.

    Attributes:
        name: of the study.
        made: one line under the title: when, by which version.
        cards: the numbers at the top, as (number, what it is).
        left_out: sentences on the runs that the page does not show or count.
        kind: what the page is, in words above its name.
    """

    name: str
    made: str
    cards: tuple[tuple[str, str], ...]
    left_out: tuple[str, ...]
    sections: tuple[Section, ...]
    kind: str = "Prompt transfer report"

    def html(self) -> str:
        """The page. All text is escaped; only the SVG of our own figures is taken as it is."""
        from markupsafe import Markup

        script = (files("promptpanda.report") / "templates" / "sort.js").read_text(encoding="utf-8")
        values: dict[str, Any] = {
            "report": self,
            "script": Markup(script),
            # A browser runs the script with this hash and no other.
            "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            "svg": Markup,
            "is_table": lambda item: isinstance(item, Table),
        }
        return environment("promptpanda.report").get_template("report.html.j2").render(values)

    def markdown(self) -> str:
        """What was found in sentences, and all tables."""
        parts = [f"# {md_text(self.name)}\n", f"{self.made}\n", *(f"{md_text(one)}\n" for one in self.left_out)]
        for section in self.sections:
            if section.tables or section.answers:
                parts.append(f"## {md_text(section.title)}\n")
            for answer in section.answers:
                of = f"**{md_text(answer.of)}**: " if answer.of else ""
                parts.append(f"{of}{md_text(' '.join((answer.headline, *answer.rest)))}\n")
            parts += map(markdown, section.tables)
        return "\n".join(parts)

    def latex(self) -> str:
        """The tables of results, to be \\input; they need the packages booktabs and graphicx."""
        head = "% Needs \\usepackage{booktabs,graphicx}.\n"
        return "\n".join([head, *(latex(table) for part in self.sections if part.prints for table in part.tables)])

    def write(self, folder: Path) -> Path:
        """Write report.html, tables.md and tables.tex; return the page's path.

        All three are made before the first replaces what was there; each appears whole or not at all.
        """
        contents = {HTML: self.html(), MARKDOWN: self.markdown(), LATEX: self.latex()}
        if folder.exists() and not folder.is_dir():
            raise PandaError(f"{folder} is a file, and a report needs a folder; choose another place with --out.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._place(contents, folder)
        except OSError as error:
            raise PandaError(
                f"The report cannot be written in {folder} ({error.strerror or error}); choose another place (--out)."
            ) from error
        return folder / HTML

    @staticmethod
    def _place(contents: dict[str, str], folder: Path) -> None:
        staged = {name: folder / f".{name}.{os.getpid()}" for name in contents}
        try:
            for name, text in contents.items():
                with staged[name].open("w", encoding="utf-8", newline="\n") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
            for name, path in staged.items():
                path.replace(folder / name)
        finally:
            for path in staged.values():
                path.unlink(missing_ok=True)


def part(title: str, items: Iterable[Table | Figure | None], *, folded: bool = False) -> list[Part]:
    """A part of those items that are there, or none."""
    there = tuple(item for item in items if item is not None)
    return [Part(title, there, folded)] if there else []

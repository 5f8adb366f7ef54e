"""A table as a value, and its Markdown and LaTeX forms; the page's template writes the HTML form."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

MINUS = "\u2212"
Mark = Literal["", "best", "better", "worse", "shared", "none"]


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: what is read first.
        extra: what is read beside it (a deviation, an interval).
        value: what the page sorts by; None sorts by the text.
        hint: more on it, shown by the page when pointed at.
        mark: how the page sets it off; `best` is bold everywhere, `shared` has a dagger.
        colour: of its background on the page, as #rrggbb.
    """

    text: str
    extra: str = ""
    value: float | None = None
    hint: str = ""
    mark: Mark = ""
    colour: str | None = None


NOTHING = Cell("\u2013", mark="none")


@dataclass(frozen=True)
class Table:
    """Rows of equal length under a header; the first column names the rows.

    Attributes:
        of: the runs that are shown, where a table with the same title shows others; else empty.
        caption: what it shows, in plain words.
        foot: rows that stay at the end when the page sorts (means).
        notes: what a reader must know to read it.
        heat: whether it is a heat map: its cells have colours.
        words: how many of its first columns hold words, and not numbers.
        total: whether its last column is a mean of those before it, which the page keeps in sight.
    """

    id: str
    title: str
    of: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    foot: tuple[tuple[Cell, ...], ...] = ()
    notes: tuple[str, ...] = field(default=())
    heat: bool = False
    words: int = 1
    total: bool = False

    @property
    def full_title(self) -> str:
        return f"{self.title}: {self.of}" if self.of else self.title

    @property
    def style(self) -> str:
        """Classes of the page's style sheet; in a wide table intervals stand below their values."""
        classes = {"heat": self.heat, "wide": not self.heat and len(self.columns) > 6, "total": self.total}
        return " ".join(name for name, holds in classes.items() if holds)

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in (*self.rows, *self.foot))


def points(value: float) -> str:
    """One digit after the point, with a real minus sign."""
    return f"{value:.1f}".replace("-", MINUS) if round(value, 1) else "0.0"


def signed(value: float) -> str:
    """As `points`, with a sign unless it is zero."""
    return f"{value:+.1f}".replace("-", MINUS) if round(value, 1) else "0.0"


def markdown(table: Table) -> str:
    """GitHub's Markdown, with a heading."""
    lines = [f"### {md_text(table.full_title)}", "", md_text(table.caption), ""]
    lines.append(f"| {' | '.join(map(md_text, table.columns))} |")
    lines.append(f"|{'|'.join(['---'] * table.words + ['---:'] * (len(table.columns) - table.words))}|")
    for row in (*table.rows, *table.foot):
        lines.append(f"| {' | '.join(_md_cell(cell) for cell in row)} |")
    lines += ["", *(f"{md_text(note)}  " for note in table.notes)]
    return "\n".join(lines).rstrip() + "\n"


def latex(table: Table) -> str:
    """A `table` for the package booktabs; its width is kept within the line by graphicx's \\resizebox."""
    rows = [f"{' & '.join(_tex_cell(cell) for cell in row)} \\\\" for row in table.rows]
    foot = [f"{' & '.join(_tex_cell(cell) for cell in row)} \\\\" for row in table.foot]
    notes = " ".join(map(_tex, (table.caption, *table.notes)))
    return "\n".join(
        [
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{\textbf{{{_tex(table.full_title)}.}} {notes}}}",
            rf"\label{{tab:{re.sub(r'[^a-z0-9]+', '-', table.id.lower())}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{'l' * table.words}{'r' * (len(table.columns) - table.words)}}}",
            r"\toprule",
            f"{' & '.join(map(_tex, table.columns))} \\\\",
            r"\midrule",
            *rows,
            *([r"\midrule", *foot] if foot else []),
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
            "",
        ]
    )


def _md_cell(cell: Cell) -> str:
    text = md_text(_dagger(cell))
    text = f"**{text}**" if cell.mark == "best" else text
    return f"{text} {md_text(cell.extra)}".rstrip()


def md_text(text: str) -> str:
    """Text that Markdown shows as it is."""
    # Angle brackets and ampersands would be read as HTML, the others as emphasis, links and columns.
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", text)


def _tex_cell(cell: Cell) -> str:
    text = _tex(_dagger(cell))
    text = rf"\textbf{{{text}}}" if cell.mark == "best" else text
    return rf"{text} {{\footnotesize {_tex(cell.extra)}}}" if cell.extra else text


_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # at the beginning of a row it would be an argument of the \\ before it
    "]": "{]}",
    **{sign: f"\\{sign}" for sign in "$&#_%"},
    MINUS: "$-$",
    "\u00b1": r"$\pm$",
    "\u2020": r"$\dagger$",
    "\u03c1": r"$\rho$",
    "\u00d7": r"$\times$",
    "\u2013": "--",
    "\u2192": r"$\rightarrow$",
}


def _tex(text: str) -> str:
    return "".join(_TEX.get(sign, sign) for sign in " ".join(text.split()))


def _dagger(cell: Cell) -> str:
    return f"{cell.text}\u2020" if cell.mark == "shared" else cell.text

"""The rows of a folder as tables: one a target, and all rows as CSV."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pandas as pd
from alternatives_work import megabytes

from promptpanda.errors import PandaError

TITLES = {
    "logistic_regression": "logistic regression, frozen embeddings",
    "setfit": "SetFit, defaults",
    "setfit_20": "SetFit, 20 iterations",
    "lora": "LoRA",
    "full": "full fine-tuning",
}
COLUMNS = ("", "test mean", "sd", "seeds", "seconds of one training", "of its search", "MB a task")


def write_tables(out: Path, ours: list[Path]) -> None:
    """Write OUT/rows.csv and OUT/tables.md, and print the tables."""
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((out / "rows").glob("*.json"))]
    if not rows:
        raise PandaError(f"There are no rows in {out / 'rows'} yet.")
    flat = [
        {name: json.dumps(value) if isinstance(value, dict) else value for name, value in row.items()} for row in rows
    ]
    frame = pd.DataFrame(flat).sort_values(["target", "alternative", "seed"])
    frame.to_csv(out / "rows.csv", index=False)
    transfers = [json.loads(path.read_text(encoding="utf-8")) for path in ours]
    text = "\n".join(_table(target, group, transfers) for target, group in frame.groupby("target", sort=False))
    (out / "tables.md").write_text(text, encoding="utf-8")
    print(text)


def _table(target: str, rows: pd.DataFrame, transfers: list[dict[str, Any]]) -> str:
    first = rows.iloc[0]
    lines = []
    for name, title in TITLES.items():
        group = rows[rows.alternative == name]
        if len(group):
            search = group.search_cpu_seconds.mean()
            lines.append(
                _line(title, list(group.score), group.cpu_seconds.mean(), search, float(group.megabytes.mean()))
            )
    for found in transfers:
        if found["target"] == target:
            lines += _ours(found, first)
    title = f"## {target} ({first.metric}, {first.n_labelled} labelled rows, {first.n_test} test rows)"
    head = [title, "", "| " + " | ".join(COLUMNS) + " |", "|---" + "|---:" * (len(COLUMNS) - 1) + "|"]
    return "\n".join([*head, *lines, ""])


def _line(title: str, scores: list[float], seconds: float | None, search: float | None, size: float | None) -> str:
    spread = f"{100 * statistics.stdev(scores):.1f}" if len(scores) > 1 else "-"
    cells = [
        title,
        f"{100 * statistics.fmean(scores):.1f}",
        spread,
        str(len(scores)),
        _seconds(seconds),
        _seconds(search),
        "-" if size is None else f"{size:.2f}" if size < 10 else f"{size:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def _seconds(value: float | None) -> str:
    if not value:
        return "-"
    return f"{value:.2f}" if value < 1 else f"{value:.0f}"


def _ours(found: dict[str, Any], row: Any) -> list[str]:
    """The methods of a transfer, if it is of the same numbers of rows; seconds are of one seed."""
    numbers = found["n_train"] + found["n_val"], found["n_test"], found["metric"]
    if numbers != (row.n_labelled, row.n_test, row.metric):
        raise PandaError(
            f"The transfer to {found['target']} has {numbers[0]} labelled and {numbers[1]} test rows and {numbers[2]}, "
            f"and the alternatives {row.n_labelled}, {row.n_test} and {row.metric}; give it the same --train-examples "
            "and --test-examples."
        )
    folder = Path(found["prompt"]) if found["prompt"] else None
    size = megabytes(folder) if folder is not None and folder.is_dir() else None
    lines = []
    for name, method in found["methods"].items():
        seconds = method["seconds"] / len(found["seeds"])
        lines.append(_line(f"promptpanda: {name}", method["scores"], seconds, None, size))
    if "auto" in found:
        title = f"promptpanda: auto ({found['cost']:.1f} trainings)"
        lines.append(_line(title, found["auto"]["scores"], None, None, size))
    return lines

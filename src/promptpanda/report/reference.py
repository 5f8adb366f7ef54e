"""Published tables beside ours: a JSON file with the scores of every model, method, source and target.

    {"targets": [T names], "sources": [S names],
     "full": {model: {"ref": {name: row}, "PoT": {source: row}, "PANDA": {source: row}}}}

A row begins with the T scores in points, in the order of `targets`, null where none was published; what follows (a
mean) is computed again. In `ref`, "Full-tune" is model tuning and "Baseline" prompt tuning. Other keys of the file are
not read.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from promptpanda.errors import PandaError
from promptpanda.report.maps import Grid
from promptpanda.report.study import Contender, Group, Study
from promptpanda.report.tables import NOTHING, Cell, Table, points
from promptpanda.sweep.recipe import DEFAULT
from promptpanda.transfers.methods import MODEL_TUNING, PANDA, POT, PROMPT_TUNING

_Row = list[Annotated[float, Field(allow_inf_nan=False)] | None]
_OWN = {"Full-tune": MODEL_TUNING.name, "Baseline": PROMPT_TUNING.name}


class _Model(BaseModel):
    """One model's tables."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    ref: dict[str, _Row] = {}
    PoT: dict[str, _Row] = {}
    PANDA: dict[str, _Row] = {}


class Reference(BaseModel):
    """Published scores; see the module."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    targets: list[str] = Field(min_length=1)
    sources: list[str]
    full: dict[str, _Model] = Field(min_length=1)

    @classmethod
    def read(cls, path: Path) -> Reference:
        """Read a file. Raises PandaError that says what is wrong in it."""
        try:
            reference = cls.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise PandaError(f"No reference at {path}; check the path of --reference.") from error
        except IsADirectoryError as error:
            raise PandaError(f"{path} is a folder; --reference needs a JSON file.") from error
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise PandaError(
                f"{path} is not valid JSON ({str(error)[:100]}); --reference needs a JSON file."
            ) from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole file"
            raise PandaError(
                f"{path} is not a valid reference at {where}: {first['msg'][0].lower()}{first['msg'][1:]}; "
                "docs/studies.md "
                "shows the form."
            ) from error
        reference._check(path)
        return reference

    def scores(self, model: str, method: str, target: str) -> dict[str, float]:
        """Points by source; of methods without a source, one entry with the name ""."""
        place, tables = self.targets.index(target), self.full[model]
        by_source = {POT.name: tables.PoT, PANDA.name: tables.PANDA}.get(method)
        if by_source is not None:
            found = {source: row[place] for source, row in by_source.items()}
        else:
            rows = [row for name, row in tables.ref.items() if _OWN.get(name) == method]
            found = {"": rows[0][place]} if rows else {}
        return {source: value for source, value in found.items() if value is not None}

    def result(self, model: str, contender: Contender, target: str, *, own: bool = False) -> float | None:
        """What was published, as our tables have it: without the target itself as a source.

        Args:
            own: count the target's own prompt among the sources, as the published means do.
        """
        found = self.scores(model, contender.method, target)
        values = [value for source, value in found.items() if own or not same_name(source, target)]
        if not values:
            return None
        return max(values) if contender.choice == "best" else statistics.fmean(values)

    def _check(self, path: Path) -> None:
        values = [value for model in self.full.values() for rows in (model.ref, model.PoT, model.PANDA)
                  for row in rows.values() for value in row if value is not None]  # fmt: skip
        if values and max(values) <= 1:
            raise PandaError(f"{path} has no score above 1; expected points, that is fractions times 100.")
        if len({plain(name) for name in self.targets}) < len(self.targets):
            raise PandaError(f"{path} names a target twice in {', '.join(self.targets)}; each must be there once.")
        for model, tables in self.full.items():
            for name, rows in (("ref", tables.ref), ("PoT", tables.PoT), ("PANDA", tables.PANDA)):
                for source, row in rows.items():
                    if len(row) < len(self.targets):
                        raise PandaError(
                            f"{path} has {len(row)} scores in full.{model}.{name}.{source}; expected one for each of "
                            f"the {len(self.targets)} targets."
                        )
                    if name == "ref" and source not in _OWN:
                        raise PandaError(f"{path} has '{source}' in full.{model}.ref; expected {' or '.join(_OWN)}.")
                    if name != "ref" and source not in self.sources:
                        raise PandaError(f"{path} has the source '{source}' in full.{model}.{name}, not in sources.")


def plain(name: str) -> str:
    """A name without case and signs: CoNLL04 and conll-04, BERT-base and bert_base are the same."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def same_name(one: str, other: str) -> bool:
    """Whether two names mean the same task or model."""
    return plain(one) == plain(other)


def beside(reference: Reference, study: Study) -> Table:
    """Our groups and the published models, a row for each contender, with the targets that both have in columns."""
    ours = {plain(target): target for group in study.groups for target in group.targets}
    shared = [target for target in reference.targets if plain(target) in ours]
    rows = []
    for group in study.groups:
        for one in group.contenders:
            results = [group.result(one, ours[plain(target)]) for target in shared]
            means = [None if result is None else result.mean for result in results]
            if any(mean is not None for mean in means):
                rows.append(_line(f"ours: {study.label(group)}", one.title, means, None))
    for model in reference.full:
        for one in _published_contenders():
            values = [reference.result(model, one, target) for target in shared]
            all_own = [reference.result(model, one, target, own=True) for target in reference.targets]
            if all(value is None for value in all_own):
                continue
            known = [value for value in all_own if value is not None]
            whole = statistics.fmean(known) if len(known) == len(reference.targets) else None
            rows.append(_line(f"published: {model}", one.title, values, whole))
    notes = [
        "Published figures are shown as they were published: single runs; the best epoch and the best source were "
        "chosen by the same scores that are shown, which makes them higher than scores on untouched data. The target "
        f"itself does not count as a source here; in the last column, over all {len(reference.targets)} published "
        "targets, it does, as in the publication.",
    ]
    if not shared:
        notes.append("Our targets and the published ones have no name in common.")
    return Table(
        "reference",
        "Our means and the published ones",
        "",
        "Points. Rows of other models, budgets or protocols say where the numbers lie, not which is better.",
        ("runs", "method", *shared, "mean of these", "published mean"),
        tuple(rows),
        (),
        tuple(notes),
    )


def published_gains(reference: Reference, model: str, group: Group) -> Grid:
    """Published gains of PoT over prompt tuning, for the pairs that a group has too, under our names."""
    values = {}
    for target in group.targets:
        name = next((one for one in reference.targets if same_name(one, target)), None)
        before = {} if name is None else reference.scores(model, PROMPT_TUNING.name, name)
        if name is None or not before:
            continue
        for source, after in reference.scores(model, POT.name, name).items():
            known = next((one for one in group.sources if same_name(one, source)), None)
            if known is not None and not same_name(source, target):
                values[known, target] = after - before[""]
    return Grid(group.sources, [t for t in group.targets if any(t == pair[1] for pair in values)], values, {})


def _published_contenders() -> list[Contender]:
    return [
        Contender(PROMPT_TUNING.name, DEFAULT, "only"),
        Contender(POT.name, DEFAULT, "mean"),
        Contender(POT.name, DEFAULT, "best"),
        Contender(PANDA.name, DEFAULT, "mean"),
        Contender(PANDA.name, DEFAULT, "best"),
        Contender(MODEL_TUNING.name, DEFAULT, "only"),
    ]


def _line(where: str, method: str, values: Sequence[float | None], whole: float | None) -> tuple[Cell, ...]:
    known = [value for value in values if value is not None]
    mean = statistics.fmean(known) if known and len(known) == len(values) else None
    return (
        Cell(where),
        Cell(method),
        *(NOTHING if value is None else Cell(points(value), value=value) for value in (*values, mean, whole)),
    )

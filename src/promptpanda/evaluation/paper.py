"""The published metrics against the published scores (arXiv 2208.10160).

A folder with two files. `tables.json`: `targets` and `sources` (names), `full[model]["ref"|"PoT"][source]` and
`first_epoch[model][source]` (one score a target, in points; a mean may follow). `heatmaps.json`: `names` and
`m[model][metric]`, square matrices over these names with the metrics `E_avg`, `ON` and `ours`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from promptpanda.errors import PandaError
from promptpanda.evaluation.agreement import Measured, kendall, spearman, tops
from promptpanda.evaluation.result import Choice, Evaluation, ModelEvaluation

ESTIMATORS = {"e_avg": "E_avg", "on": "ON", "cosine": "ours"}
"""Our names of the published metrics."""

_BASELINE = "Baseline"
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Rows = dict[str, list[_Number]]


class _Scores(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    ref: _Rows
    PoT: _Rows


class _Tables(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    targets: list[str] = Field(min_length=1)
    sources: list[str] = Field(min_length=1)
    full: dict[str, _Scores] = Field(min_length=1)
    first_epoch: dict[str, _Rows]


class _Heatmaps(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    names: list[str]
    m: dict[str, dict[str, list[list[_Number]]]]


_File = TypeVar("_File", _Tables, _Heatmaps)


def evaluate_paper(folder: Path) -> Evaluation:
    """Every published metric and selection rule on every published model.

    A metric is compared with PoT's score after the first epoch, target by target over the sources other than itself; a
    selection rule is worth the final PoT score of the source that it takes. Of sources with equal values the first in
    the order of `sources` is taken; the range over all ways to break ties stands beside it.

    Raises:
        PandaError: a file is missing or is not of this form.
    """
    tables, maps = _read(folder / "tables.json", _Tables), _read(folder / "heatmaps.json", _Heatmaps)
    try:
        return Evaluation({model: _evaluate(tables, maps, model) for model in tables.full})
    except (KeyError, IndexError) as error:
        raise PandaError(
            f"The tables in {folder} do not fit together: {error.args[0]!r} is missing; tables.json and heatmaps.json "
            "must have the same models, sources and targets."
        ) from error


def _evaluate(tables: _Tables, maps: _Heatmaps, model: str) -> ModelEvaluation:
    names = [_plain(name) for name in maps.names]
    full, early = tables.full[model], tables.first_epoch[model]
    correlations: dict[str, dict[str, list[float]]] = {"spearman": {}, "kendall": {}}
    chosen: dict[str, list[list[float]]] = {}
    details: dict[str, dict[str, Any]] = {}
    for place, target in enumerate(tables.targets):
        sources = [source for source in tables.sources if _plain(source) != _plain(target)]
        first = np.asarray([early[source][place] for source in sources])
        final = np.asarray([full.PoT[source][place] for source in sources])
        row = {name: maps.m[model][metric][_index(names, target)] for name, metric in ESTIMATORS.items()}
        predicted = {
            name: np.asarray([values[_index(names, source)] for source in sources]) for name, values in row.items()
        }
        baseline = full.ref[_BASELINE][place]
        rules = {
            "no_transfer": [baseline],
            "random": [float(final.mean())],
            "oracle": [float(final.max())],
            "race": _best_of(first, final, 1),
            "race_top3": _best_of(first, final, 3),
            **{f"top1_{name}": _best_of(values, final, 1) for name, values in predicted.items()},
        }
        for rule, values in rules.items():
            chosen.setdefault(rule, []).append(values)
        details[target] = {
            "sources": sources,
            "gain": float(final.max()) - baseline,
            "selection": {rule: values[0] for rule, values in rules.items()},
        }
        for kind, function in (("spearman", spearman), ("kendall", kendall)):
            found = {name: function(values, first) for name, values in predicted.items()}
            details[target][kind] = found
            for name, value in found.items():
                correlations[kind].setdefault(name, []).extend([] if value is None else [value])
    return ModelEvaluation(
        "PoT's score after the first epoch",
        {name: Measured.over(values) for name, values in correlations["spearman"].items()},
        {name: Measured.over(values) for name, values in correlations["kendall"].items()},
        {rule: _choice(values, chosen["no_transfer"]) for rule, values in chosen.items()},
        targets=details,
    )


def _best_of(order: np.ndarray, final: np.ndarray, k: int) -> list[float]:
    """The best final score among the k first of an order, in all ways to break ties; first by the stated rule."""
    return [float(final[list(places)].max()) for places in tops(order, k)]


def _choice(by_target: list[list[float]], none: list[list[float]]) -> Choice:
    def mean(pick: Callable[[list[float]], float]) -> float:
        return float(np.mean([pick(values) for values in by_target]))

    points = Measured.over([values[0] for values in by_target])
    gain = Measured.over([values[0] - base[0] for values, base in zip(by_target, none, strict=True)])
    if all(len(values) == 1 for values in by_target):
        return Choice(points, gain)
    return Choice(points, gain, mean(min), mean(max))


def _read(path: Path, kind: type[_File]) -> _File:
    try:
        return kind.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise PandaError(
            f"No {path.name} in {path.parent}; --paper needs a folder with tables.json and heatmaps.json."
        ) from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise PandaError(f"{path} is not valid JSON ({error}); --paper needs the published tables as JSON.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the top level"
        raise PandaError(
            f"{path} has not the form of the published tables ({where}: {first['msg'].lower()}); see "
            "docs/choosing-a-source.md for what it must hold."
        ) from error


def _index(names: list[str], name: str) -> int:
    if _plain(name) not in names:
        raise KeyError(name)
    return names.index(_plain(name))


def _plain(name: str) -> str:
    """The two files spell names differently: STSB and STS-B."""
    return name.lower().replace("-", "").replace("_", "")

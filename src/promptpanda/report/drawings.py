"""The figures of a report that draw results: gains with intervals, learning curves, models of several sizes."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from promptpanda.report.colours import SERIES
from promptpanda.report.figures import Figure, Forest, Line, forests, lines
from promptpanda.report.gains import Bootstrap
from promptpanda.report.results import base_of
from promptpanda.report.study import Contender, Group
from promptpanda.sweep.row import Row
from promptpanda.transfers.methods import PROMPT_TUNING


def gain_forest(group: Group, bootstrap: Bootstrap, prefix: str) -> Figure | None:
    """Every contender's gains over prompt tuning, one panel each, on one scale."""
    compared = [(one, base) for one in group.contenders if (base := base_of(group, one, PROMPT_TUNING.name))]
    complete = group.complete_targets([part for pair in compared for part in pair])
    drawn = []
    for one, base in compared:
        gains = [
            (target, gain) for target in group.targets if (gain := bootstrap.gain(group, one, base, target)) is not None
        ]
        mean = bootstrap.mean_gain(group, one, base, complete) if len(complete) > 1 else None
        if gains:
            drawn.append(Forest(one.title, gains, mean))
    if not drawn:
        return None
    return Figure(
        f"{prefix}-forest",
        "Gains over prompt tuning, with intervals",
        group.conditions.title,
        "Right of the line a method is better than prompt tuning, left of it worse. The bar is the 95 % bootstrap "
        "interval: blue where it lies wholly above zero, red where wholly below, grey where it includes zero, so that "
        "the gain may be noise.",
        forests(drawn, prefix),
    )


def curves(group: Group, prefix: str) -> list[Figure]:
    """Training loss, and the validation score where it was taken after every epoch, one panel a target."""
    contenders = [one for one in group.contenders if one.choice != "best"]
    colours = series(contenders)
    figures = []
    for what, words in (("loss", "training loss"), ("validation", "validation score")):
        panels, used = [], set()
        for target in group.targets:
            drawn = []
            for one in contenders:
                runs = [row for rows in group.chosen(one, target).values() for row in rows]
                line = _mean_curve([_curve(row, what) for row in runs], one.method_title, *colours[one])
                if line is not None:
                    drawn.append(line)
                    used.add(one)
            if drawn:
                panels.append(lines(target, drawn, "epoch", words, prefix))
        if panels:
            more = {
                "loss": "PANDA's holds what it distils from its teacher too.",
                "validation": "In points, on the official validation set, which is what is reported on."
                if group.conditions.protocol == "paper"
                else "In points, on the validation part, which the test data have no part in.",
            }[what]
            figures.append(
                Figure(
                    f"{prefix}-curves-{what}",
                    f"Learning curves, {words}",
                    group.conditions.title,
                    f"Mean {words} after every epoch, over seeds and sources; the band is one standard deviation. "
                    f"{more}",
                    tuple(panels),
                    tuple((one.method_title, *colours[one]) for one in contenders if one in used),
                )
            )
    return figures


def scale(groups: Sequence[Group], prefix: str, conditions: str, targets: Sequence[str]) -> Figure | None:
    """Means over the targets that all models have, by model; groups from small to large."""
    contenders = list(dict.fromkeys(one for group in groups for one in group.contenders))
    colours = series(contenders)
    drawn = []
    for one in contenders:
        means = [(place, group.mean_result(one, targets)) for place, group in enumerate(groups)]
        known = [(place, mean) for place, mean in means if mean is not None]
        if known:
            colour, dashed = colours[one]
            drawn.append(Line(one.title, colour, [x for x, _ in known], [y for _, y in known], dashed=dashed))
    if not drawn:
        return None
    names = [group.conditions.model_name for group in groups]
    return Figure(
        f"{prefix}-scale",
        "Mean score by model",
        conditions,
        f"Mean score over {len(targets)} targets for every model; the models are in the order of their size, as far as "
        "it is known.",
        (lines("", drawn, "model", "points", prefix, names=names, size=(4.4, 2.6)),),
        tuple((line.name, line.colour, line.dashed) for line in drawn),
    )


def series(contenders: Sequence[Contender]) -> dict[Contender, tuple[str, bool]]:
    """A colour for every method, and whether the line is dashed (the best source, and methods beyond the palette)."""
    methods = list(dict.fromkeys((one.method, one.variant) for one in contenders))
    found = {}
    for one in contenders:
        place = methods.index((one.method, one.variant))
        found[one] = (SERIES[place % len(SERIES)], (one.choice == "best") != (place >= len(SERIES)))
    return found


_LARGEST = 1e12  # loss that is drawn


def _curve(row: Row, what: str) -> list[float]:
    if what == "loss":
        return [epoch.train_loss for epoch in row.curve]
    return [
        100 * epoch.validation[row.metric]
        for epoch in row.curve
        if epoch.validation is not None and row.metric is not None and row.metric in epoch.validation
    ]


def _mean_curve(found: Iterable[list[float]], name: str, colour: str, dashed: bool) -> Line | None:
    """The mean over those epochs that all runs have."""
    # A training that diverged has no line that could be drawn beside the others.
    known = [values for values in found if values and all(abs(value) < _LARGEST for value in values)]
    epochs = min(map(len, known), default=0)
    if epochs == 0:
        return None
    by_epoch = list(zip(*(values[:epochs] for values in known), strict=True))
    means = [statistics.fmean(values) for values in by_epoch]
    band = None
    if len(known) > 1:
        spreads = map(statistics.stdev, by_epoch)
        band = [(mean - spread, mean + spread) for mean, spread in zip(means, spreads, strict=True)]
    return Line(name, colour, range(1, epochs + 1), means, band, dashed)

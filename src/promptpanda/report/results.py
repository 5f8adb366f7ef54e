"""The tables of one group: scores, gains, costs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from promptpanda.report.constants import COLUMN, constant_cells, constant_note, mean_constant
from promptpanda.report.gains import Bootstrap, Gain
from promptpanda.report.study import Contender, Group
from promptpanda.report.tables import NOTHING, Cell, Table, points, signed
from promptpanda.sweep.recipe import DEFAULT
from promptpanda.sweep.row import Row
from promptpanda.transfers.methods import METHODS, POT


def scores(group: Group, prefix: str) -> Table:
    """The main table: targets by contenders."""
    contenders = group.contenders
    floors = constant_cells(group, group.targets)
    rows = []
    for place, target in enumerate(group.targets):
        results = [group.result(one, target) for one in contenders]
        best = max((result.mean for result in results if result is not None), default=None)
        cells = [Cell(target, hint=f"metric: {metric_of(group, target)}"), *floors[place : place + 1]]
        for one, result in zip(contenders, results, strict=True):
            if result is None:
                cells.append(NOTHING)
                continue
            runs = sum(map(len, group.chosen(one, target).values()))
            cells.append(
                Cell(
                    points(result.mean),
                    "" if result.sd is None else f"\u00b1 {points(result.sd)}",
                    result.mean,
                    f"{result.seeds} seed{'s' * (result.seeds != 1)}, {runs} run{'s' * (runs != 1)}",
                    "best" if result.mean == best else "",
                )
            )
        rows.append(tuple(cells))
    complete = group.complete_targets(contenders)
    foot = []
    if len(complete) > 1:
        means = [group.mean_result(one, complete) for one in contenders]
        top = max(mean for mean in means if mean is not None)
        foot.append(
            (
                Cell(f"mean of {len(complete)}"),
                *([mean_constant(group, complete)] if floors else []),
                *(Cell(points(mean), mark="best" if mean == top else "") for mean in means if mean is not None),
            )
        )
    basis = measured_note(group) or "Scores are on test data that nothing was chosen by."
    notes = [basis, constant_note(group), *_choice_notes(group, contenders)]
    gaps = _gaps(group)
    if gaps:
        notes.append(f"Runs are missing (failed, or not done yet), so that means are over fewer: {', '.join(gaps)}.")
    left_out = [target for target in group.targets if target not in complete]
    if left_out and complete:
        notes.append(f"Left out of the mean, since not all methods have a result there: {', '.join(left_out)}.")
    return Table(
        f"{prefix}-scores",
        "Scores",
        group.conditions.title,
        "Each target's own metric in points (times 100), mean and standard deviation over seeds. Bold: the highest.",
        ("target", *([COLUMN] if floors else []), *(one.title for one in contenders)),
        tuple(rows),
        tuple(foot),
        tuple(note for note in notes if note),
    )


def gains(group: Group, bootstrap: Bootstrap, base_method: str, prefix: str) -> Table | None:
    """Gains over a method with one run a seed, or over its like: mean over mean, otherwise over its best source."""
    compared = [(one, base) for one in group.contenders if (base := base_of(group, one, base_method)) is not None]
    if not compared:
        return None
    name = METHODS[base_method].title
    rows = []
    shown = []
    for target in group.targets:
        found = [bootstrap.gain(group, one, base, target) for one, base in compared]
        rows.append((Cell(target), *map(gain_cell, found)))
        shown += [(target, gain) for gain in found]
    complete = group.complete_targets([part for pair in compared for part in pair])
    foot = []
    if len(complete) > 1:
        means = [bootstrap.mean_gain(group, one, base, complete) for one, base in compared]
        foot.append((Cell(f"mean of {len(complete)}"), *map(gain_cell, means)))
    return Table(
        f"{prefix}-over-{base_method.replace('_', '-')}",
        f"Gains over {name}",
        group.conditions.title,
        f"Points won or lost against {name} with the same seeds and examples; in brackets the 95 % bootstrap interval.",
        ("target", *(one.title for one, _ in compared)),
        tuple(rows),
        tuple(foot),
        (*_base_notes(compared), *interval_notes(shown)),
    )


def base_of(group: Group, contender: Contender, method: str) -> Contender | None:
    """What a contender is compared with: the mean over sources with such a mean, all others with the best source."""
    base = group.find(method, "mean" if contender.choice == "mean" else "best")
    if base is None or (contender.method, contender.variant) == (base.method, base.variant):
        return None
    # Prompt tuning against PoT says again what PoT against prompt tuning says.
    if method == POT.name and contender == group.baseline:
        return None
    return base


def gain_cell(gain: Gain | None) -> Cell:
    """A gain with its interval, set off where the interval leaves out zero."""
    if gain is None:
        return NOTHING
    interval = ""
    if gain.low is not None and gain.high is not None:
        interval = f"[{signed(gain.low)}, {signed(gain.high)}]"
    verdict = gain.verdict
    hint = f"resampled: {gain.basis}" if gain.basis else "nothing to resample"
    return Cell(signed(gain.mean), interval, gain.mean, hint, "" if verdict == "open" else verdict)


def costs(group: Group, prefix: str) -> Table:
    """Work of every contender and variant on one target with one seed, all that it needs counted."""
    rows = []
    for one in group.everything:
        if one.choice == "best" and one not in group.contenders:
            continue
        trainings, seconds, runs = [], [], 0
        for target in group.targets:
            for seed, found in group.chosen(one, target).items():
                needed = group.chosen(one._replace(choice="mean"), target)[seed] if one.choice == "best" else found
                parts = [row for run in needed for row in (run, *_teachers(group, run))]
                # A mean tells what one source costs; the choice of the best needs all of them.
                share = len(needed) if one.choice == "mean" else 1
                seconds.append(sum(row.seconds for row in parts) / share)
                runs += len(found)
                unit = _one_training(group, target, seed)
                if unit:
                    trainings.append(sum(row.example_steps + row.forward_examples / 3 for row in parts) / unit / share)
        trained = statistics.fmean(trainings) if trainings else None
        rows.append(
            (
                Cell(one.title),
                Cell(str(runs), value=runs),
                Cell(f"{trained:.2f}", value=trained) if trained is not None else NOTHING,
                Cell(f"{statistics.fmean(seconds):.1f}" if seconds else "\u2013",
                     value=statistics.fmean(seconds) if seconds else None),
            )
        )  # fmt: skip
    return Table(
        f"{prefix}-cost",
        "Cost",
        group.conditions.title,
        "What one target with one seed takes, mean over targets and seeds; the teacher of a student counts, and so do "
        "all sources that are tried to find the best.",
        ("method", "runs", "trainings", "seconds"),
        tuple(rows),
        (),
        (
            "One training is prompt tuning's: its epochs times its training examples, forward and backward. Work that "
            "is forward only counts a third. Training the sources, and scoring test data, are not counted.",
        ),
    )


def metric_of(group: Group, target: str) -> str:
    """The name of a target's metric."""
    return next((row.metric for row in group.runs if row.task == target and row.metric is not None), "score")


def _gaps(group: Group) -> list[str]:
    """Where a contender has fewer runs on some seeds of a target than on others, or fewer seeds than others have."""
    gaps = []
    for target in group.targets:
        seeds = {row.seed for row in group.runs if row.task == target}
        wanted = {source for source in group.sources if source != target and not group.overlaps(target, source)}
        for one in group.contenders:
            chosen = group.chosen(one, target)
            full = len(wanted) if one.choice == "mean" else 1
            if one.choice != "best" and chosen and any(len(chosen.get(seed, [])) < full for seed in seeds):
                gaps.append(f"{one.method_title} on {target}")
    return gaps


def _teachers(group: Group, run: Row) -> list[Row]:
    method = METHODS.get(run.method or "")
    if method is None or method.teacher is None or run.spec.get("distillation", {}).get("teacher") == "random":
        return []
    # A fusion has a teacher a source.
    found = []
    for source in run.sources:
        # A variant's teacher is trained with the variant's options, if they concern it.
        for variant in (run.variant, DEFAULT):
            rows = group.pair_runs(method.teacher.name, variant, run.task, source)
            if run.seed in rows:
                found.append(rows[run.seed])
                break
    return found


def _one_training(group: Group, target: str, seed: int) -> int | None:
    """Example-steps of prompt tuning on a target; None where it was not run."""
    base = group.baseline
    rows = [] if base is None else group.chosen(base, target).get(seed, [])
    return rows[0].example_steps if rows else None


def measured_note(group: Group) -> str:
    """What scores are measured on, where it is not test data that nothing was chosen by; else empty."""
    if group.conditions.protocol == "paper":
        return (
            "Paper protocol: scores are those of the best epoch on the official validation set, which also chose it; "
            "they are higher than on data that nothing was chosen by."
        )
    validation = [target for target in group.targets if group.measured(target) == "validation"]
    if not validation:
        return ""
    where = "all targets" if len(validation) == len(group.targets) else ", ".join(validation)
    return f"Without test data, scores are on the validation part: {where}."


def _choice_notes(group: Group, contenders: Sequence[Contender]) -> list[str]:
    if all(one.choice == "only" for one in contenders):
        return []
    chosen = "chosen without a look at test scores"
    if group.conditions.protocol == "paper":
        chosen = "which under this protocol is the score that is reported, so that it flatters"
    return [
        "Mean of sources: first over the sources of a seed, then over seeds. Best source: the one with the highest "
        f"validation score of each seed, {chosen}. Pairs that share texts count in neither."
    ]


def _base_notes(compared: Sequence[tuple[Contender, Contender]]) -> list[str]:
    """Which column is compared with what, where there is a choice."""
    choices = {base.choice for _, base in compared}
    if choices <= {"only"}:
        return []
    name = compared[0][1].method_title
    return [
        f"A mean of sources is compared with {name} from the same sources, all else with {name} from its best source."
    ]


def interval_notes(shown: Iterable[tuple[str, Gain | None]]) -> list[str]:
    """How the intervals of a table were taken.

    Args:
        shown: targets, and gains on them.
    """
    bases: dict[str, list[str]] = {}  # targets by what was resampled there
    for target, gain in shown:
        if gain is not None and target not in (found := bases.setdefault(gain.basis or "nothing", [])):
            found.append(target)
    notes = []
    if "test rows and seeds" in bases:
        notes.append(
            "Intervals: test rows and seeds are drawn again 2,000 times, both sides of a comparison on the same draws; "
            "sources are not drawn."
        )
    if "seeds" in bases:
        notes.append(
            f"Over seeds only, since predictions are not stored or their metric compares texts: "
            f"{', '.join(bases['seeds'])}. So few values make such intervals rough."
        )
    if "test rows" in bases:
        notes.append(f"With one seed only the test rows are drawn: {', '.join(bases['test rows'])}.")
    if "nothing" in bases:
        notes.append(f"One seed and no stored predictions, hence no interval: {', '.join(bases['nothing'])}.")
    return notes

"""A report of rows: which sections it has, and what is in them."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from promptpanda.report import drawings, maps, overview, predicted, results
from promptpanda.report.answers import Answer, Comparison, answer, compare, left_out
from promptpanda.report.choices import choices
from promptpanda.report.controls import controls
from promptpanda.report.figures import Figure, Forest, forests
from promptpanda.report.gains import Bootstrap
from promptpanda.report.page import Part, Report, Section, part
from promptpanda.report.reference import Reference, beside, published_gains
from promptpanda.report.study import Contender, Group, Study
from promptpanda.report.tables import Table
from promptpanda.sweep.recipe import DEFAULT
from promptpanda.sweep.row import Answers, Row
from promptpanda.tasks.shared_text import Pairs
from promptpanda.transfers.methods import METHODS, PANDA, POT, PROMPT_TUNING
from promptpanda.version import __version__

FIRST_SCREEN = 3
"""How many groups have their answers at the top of the page; those of others stand in their sections."""


@dataclass(frozen=True)
class Facts:
    """What the rows do not say.

    Attributes:
        name: of the study.
        command: that made the rows, or None if it is not known.
        recipe: as YAML, or None.
        sizes: parameters by model name, as far as known.
        plan: the runs that the sweep was last asked for, by key.
        made: when the report was made.
    """

    name: str
    command: str | None = None
    recipe: str | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    plan: dict[str, str] = field(default_factory=dict)
    made: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))


def make_report(
    rows: Iterable[Row],
    answers: Iterable[Answers],
    facts: Facts,
    *,
    reference: Reference | None = None,
    shared: Pairs = frozenset(),
) -> Report:
    """A report of rows; nothing but these values decides about it.

    Args:
        answers: of the test sets, for intervals over test rows.
        reference: published tables to set beside ours.
        shared: pairs of sets that share texts, beside those that are known to.

    Raises:
        PandaError: no run is finished.
    """
    study = Study.of(rows, answers, shared=shared, sizes=facts.sizes, plan=facts.plan)
    bootstraps = [Bootstrap(study.answers, group.runs) for group in study.groups]
    compared = [compare(group, bootstrap) for group, bootstrap in zip(study.groups, bootstraps, strict=True)]
    several = len(study.groups) > 1
    answered = [
        (answer(group, found, study.label(group) if several else ""),) if group.runs else ()
        for group, found in zip(study.groups, compared, strict=True)
    ]
    sections = [_glance(study, compared, answered), *_scale(study, facts.sizes)]
    for number, (group, bootstrap) in enumerate(zip(study.groups, bootstraps, strict=True), 1):
        sentences = () if number <= FIRST_SCREEN else answered[number - 1]
        sections.append(replace(_group(group, bootstrap, f"g{number}"), answers=sentences))
    if reference is not None:
        sections.append(_reference(study, reference))
    sections += [_runs(study), _origin(study, facts)]
    made = f"{facts.made.astimezone(datetime.UTC):%Y-%m-%d %H:%M} UTC, promptpanda {__version__}"
    return Report(facts.name, made, _cards(study), left_out(study), tuple(sections))


def _cards(study: Study) -> tuple[tuple[str, str], ...]:
    runs = [row for group in study.groups for row in group.runs]
    counts = {
        "finished run": len(study.finished),
        "failed run": len(study.failed),
        "model": len({group.conditions.model for group in study.groups}),
        "target": len({row.task for row in runs}),
        "source": len({row.source for row in runs if row.source is not None}),
        "seed": len({row.seed for row in runs}),
    }
    seconds = overview.total_seconds(study)
    time = f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min" if seconds >= 60 else (
        f"{seconds:.0f} s"
    )  # fmt: skip
    return (*((str(count), name + "s" * (count != 1)) for name, count in counts.items()), (time, "of computing"))


def _glance(study: Study, compared: Sequence[Sequence[Comparison]], answered: Sequence[tuple[Answer, ...]]) -> Section:
    """The first screen: the answers, their figure; then tables over all groups.

    Args:
        compared, answered: of every group.
    """
    drawn = [
        Forest(study.label(group), [(one.contender.title, one.gain) for one in found])
        for group, found in zip(study.groups, compared, strict=True)
        if found
    ]
    figure = Figure(
        "glance-forest",
        "Mean gain over prompt tuning",
        "",
        "Points won over prompt tuning, mean over targets. The bar is the 95 % bootstrap interval: blue where it "
        "lies wholly above zero, red where wholly below, grey where it holds zero. All panels have one scale.",
        forests(drawn, "glance"),
    )
    parts = [
        *part("Gains", [overview.overview(study, compared)]),
        *part("Estimators", [overview.estimator_overview(study)]),
    ]
    more = len(answered) - FIRST_SCREEN
    elsewhere = (
        f"What was found under {more} other conditions stands at the head of their sections." if more > 0 else ""
    )
    lead = (
        *([elsewhere] if elsewhere else []),
        "All scores and gains are in points: fractions times 100. Clearly better or worse: the 95 % interval is wholly "
        "on one side of zero. Prompt tuning trains a fresh prompt on the target; PoT starts from a source's prompt; "
        "PANDA distils a PoT model into a fresh prompt; auto chooses method and source on validation data. The best "
        "source is the one with the highest validation score. A constant prediction is the most frequent class, or the "
        "mean.",
    )
    return Section(
        "glance-section",
        "What was found",
        lead,
        tuple(parts),
        answers=tuple(one for found in answered[:FIRST_SCREEN] for one in found),
        figure=figure if drawn else None,
    )


def _scale(study: Study, sizes: dict[str, int]) -> list[Section]:
    """Groups that differ by model alone, small models first."""
    by_rest: dict[tuple[int | None, str], list[Group]] = {}
    for group in reversed(study.groups):
        by_rest.setdefault((group.conditions.budget, group.conditions.protocol), []).append(group)
    parts: list[Part] = []
    for number, groups in enumerate((groups for groups in by_rest.values() if len(groups) > 1), 1):
        first = groups[0].conditions
        conditions = f"{first.budget_words}, {first.protocol} protocol"
        complete = [set(group.complete_targets(group.contenders)) for group in groups]
        targets = sorted(set.intersection(*complete))
        table = overview.by_scale(groups, f"m{number}", conditions, targets)
        parts += part(conditions, [table, drawings.scale(groups, f"m{number}", conditions, targets)])
    if not parts:
        return []
    known = [f"{model} {size / 1e6:.1f} million" for model, size in sorted(sizes.items(), key=lambda item: item[1])]
    lead = (f"Parameters: {', '.join(known)}.",) if known else ()
    return [Section("scale", "Models of several sizes", lead, tuple(parts))]


def _group(group: Group, bootstrap: Bootstrap, prefix: str) -> Section:
    helped = _gain_maps(group, prefix)
    scatters = predicted.scatters(group, prefix)
    parts = [
        *part("Scores", [results.scores(group, prefix), choices(group, prefix)]),
        *part(
            "Gains",
            [
                drawings.gain_forest(group, bootstrap, prefix),
                results.gains(group, bootstrap, PROMPT_TUNING.name, prefix),
                results.gains(group, bootstrap, POT.name, prefix),
            ],
        ),
        *part("Controls", [controls(group, bootstrap, prefix)]),
        *part("Which source helps which target", helped[DEFAULT]),
        *part("The same for other settings", helped["other"], folded=True),
        *part("Predicted transferability", [predicted.spearman_table(group, prefix), *scatters[:1]]),
        *part("Predicted and measured, other estimators", scatters[1:], folded=True),
        *part("What estimators predict", _estimator_maps(group, prefix), folded=True),
        *part("Learning curves", drawings.curves(group, prefix), folded=True),
        *part("Cost", [results.costs(group, prefix)]),
    ]
    return Section(prefix, group.conditions.title, (), tuple(parts))


def _gain_maps(group: Group, prefix: str) -> dict[str, list[Table]]:
    """Heat maps of every method that was run from several sources; all have one scale."""
    methods = [(one.method, one.variant) for one in group.everything if one.choice == "mean"]
    grids = {key: maps.gain_grid(group, *key) for key in methods}
    limit = max((abs(value) for grid in grids.values() for value in grid.values.values()), default=0.0)
    found: dict[str, list[Table]] = {DEFAULT: [], "other": []}
    for (method, variant), grid in grids.items():
        if not grid.values:
            continue
        title = Contender(method, variant, "mean").method_title
        found[DEFAULT if variant == DEFAULT else "other"].append(
            maps.heat_map(
                group,
                grid,
                f"{prefix}-map-{method}-{variant}",
                f"Gain of {title} over prompt tuning",
                f"Points that {title} from the source of a row gains on the target of a column, mean over seeds. Blue: "
                f"the source helps; red: it hurts. The full colours stand for {limit:.1f} points.",
                limit,
            )
        )
    return found


def _estimator_maps(group: Group, prefix: str) -> list[Table]:
    return [
        maps.heat_map(
            group,
            grid,
            f"{prefix}-estimate-{number}",
            f"Predicted by {name}",
            f"What the estimator {name} says of the source of a row for the target of a column, before any transfer is "
            "trained; mean over seeds. Brighter is higher, and means a better source.",
            None,
            digits=2,
        )
        for number, (name, grid) in enumerate(predicted.estimator_grids(group))
    ]


def _reference(study: Study, reference: Reference) -> Section:
    published = []
    for group in study.groups[:1]:
        grids = {model: published_gains(reference, model, group) for model in reference.full}
        limit = max((abs(value) for grid in grids.values() for value in grid.values.values()), default=0.0)
        published = [
            maps.heat_map(
                group,
                grid,
                f"reference-map-{number}",
                f"Published gain of {METHODS[POT.name].title} over prompt tuning: {model}",
                "Points, for the sources and targets that we have too; single runs on the full target data.",
                limit,
            )
            for number, (model, grid) in enumerate(grids.items())
            if grid.values
        ]
    parts = [
        *part("Means", [beside(reference, study)]),
        *part("Published gains by source and target", published, folded=True),
    ]
    lead = (f"Published: {', '.join(reference.full)}, {PANDA.title} and PoT from {len(reference.sources)} sources.",)
    return Section("published", "Beside the published figures", lead, tuple(parts))


def _runs(study: Study) -> Section:
    failed = overview.failed(study)
    lead = () if failed is not None else ("No run failed.",)
    parts = [
        *part("Failed runs", [failed]),
        *part("Source prompts", [overview.sources(study)], folded=True),
    ]
    return Section("runs", "Runs", lead, tuple(parts), prints=False)


def _origin(study: Study, facts: Facts) -> Section:
    quoted = {"Command": facts.command or "not recorded"}
    if facts.recipe is not None:
        quoted["Recipe"] = facts.recipe.rstrip()
    parts = [
        *part("Versions and machines", [overview.versions(study)]),
        *part("Fingerprints of models and data", [overview.fingerprints(study)], folded=True),
    ]
    return Section("origin", "How this was made", (), tuple(parts), quoted, prints=False)

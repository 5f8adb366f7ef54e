"""From a recipe to the graph of its runs, in which nothing is computed twice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from promptpanda.errors import PandaError
from promptpanda.names import Precision
from promptpanda.sweep.recipe import DEFAULT, SweepRecipe
from promptpanda.sweep.spec import RunSpec, Settings
from promptpanda.tasks.catalog import load_task
from promptpanda.tasks.shared_text import share_text
from promptpanda.tasks.spec import Kind
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.estimators import estimators
from promptpanda.transfers.method import Method, options_used
from promptpanda.transfers.methods import METHODS, PANDA, PROMPT_TUNING
from promptpanda.transfers.names import AUTO
from promptpanda.transfers.selection import decisive_settings

_BY_DATA = ("epochs", "max_length")  # settled by the data where they are left out
_SEEN = ("max_length", "readout", "prompt_kind", "prompt_length")  # what estimators have of the options


@dataclass(frozen=True)
class ModelAt:
    """Where a model is found, and the number format that it is loaded in."""

    location: str
    dtype: Precision = "float32"


@dataclass(frozen=True)
class Plan:
    """The runs of a recipe.

    Attributes:
        runs: each once, after all that it starts from.
        models, tasks: where what the recipe names is found: by a run's model, by a run's task.
    """

    runs: tuple[RunSpec, ...]
    models: dict[str, ModelAt]
    tasks: dict[str, str]


def expand(recipe: SweepRecipe, base: Path | None = None) -> Plan:
    """All runs of a recipe, sources first, then target by target. No data and no model is looked at.

    Args:
        base: the folder that the recipe's paths start from (those that begin with a dot, and specs in YAML).

    Raises:
        PandaError: an unknown task, options that its kind has not, or two settings that are the same.
    """
    locations: dict[str, str] = {}
    names: dict[str, str] = {}
    kinds: dict[str, Kind] = {}
    for given in [task for group in (recipe.sources, recipe.targets) if group for task in group.tasks]:
        location = _beside(given, base)
        loaded = load_task(location)
        name = loaded.name
        if locations.setdefault(name, location) != location:
            raise PandaError(f"Two specs of the recipe call their task '{name}'; rename one.")
        names[given] = name
        kinds[name] = loaded.kind
    _check_options(recipe, names, kinds)
    requested: list[RunSpec] = []
    for model in recipe.models:
        requested += _sources(recipe, model, names)
        requested += [
            spec
            for task in (recipe.targets.tasks if recipe.targets else ())
            for budget in (recipe.targets.budgets if recipe.targets else ())
            for seed in recipe.seeds
            for spec in _target(recipe, model, names, kinds, task, budget, seed)
        ]
    models = {model: ModelAt(_beside(model, base), recipe.dtype) for model in recipe.models}
    return Plan(_joined(requested), models, locations)


def _check_options(recipe: SweepRecipe, names: dict[str, str], kinds: dict[str, Kind]) -> None:
    """Raises PandaError if a task gets options that its kind has not."""
    given = [(task, recipe.source_options(task)) for task in (recipe.sources.tasks if recipe.sources else ())]
    for variant in (DEFAULT, *recipe.variants):
        given += [
            (task, recipe.target_options(task, variant)) for task in (recipe.targets.tasks if recipe.targets else ())
        ]
    for task, options in given:
        try:
            options.check(kinds[names[task]])
        except PandaError as error:
            raise PandaError(f"The recipe's options of {names[task]} do not go with it: {error}") from error


def _joined(requested: list[RunSpec]) -> tuple[RunSpec, ...]:
    """The runs that are asked for and those that they start from, each once, under the name that it is asked for by."""
    names: dict[RunSpec, str] = {}
    for spec in requested:
        known = names.setdefault(spec, spec.variant)
        if known != spec.variant:
            raise PandaError(
                f"The variants '{known}' and '{spec.variant}' of {spec.method} are the same settings on {spec.task}; "
                "leave one out."
            )
    runs: dict[RunSpec, RunSpec] = {}
    for spec in requested:
        for one in spec.closure():
            if one not in runs:
                runs[one] = replace(
                    one,
                    variant=names.get(one, one.variant),
                    source=None if one.source is None else runs[one.source],
                    teacher=None if one.teacher is None else runs[one.teacher],
                    own=None if one.own is None else runs[one.own],
                    sources=tuple(runs[other] for other in one.sources),
                    teachers=tuple(runs[other] for other in one.teachers),
                )
    return tuple(runs.values())


def _sources(recipe: SweepRecipe, model: str, names: dict[str, str]) -> list[RunSpec]:
    if recipe.sources is None:
        return []
    return [_source(recipe, model, names, task, seed) for task in recipe.sources.tasks for seed in recipe.sources.seeds]


def _source(recipe: SweepRecipe, model: str, names: dict[str, str], task: str, seed: int) -> RunSpec:
    assert recipe.sources is not None
    return RunSpec(
        kind="source",
        model=model,
        task=names[task],
        method=PROMPT_TUNING.name,
        seed=seed,
        budget=recipe.sources.examples,
        protocol=recipe.protocol,
        options=_settings(recipe.source_options(task), PROMPT_TUNING),
        tested=recipe.sources.tested,
        threads=recipe.threads,
    )


def _target(
    recipe: SweepRecipe,
    model: str,
    names: dict[str, str],
    kinds: dict[str, Kind],
    task: str,
    budget: int | None,
    seed: int,
) -> list[RunSpec]:
    """The runs on one target, budget and seed: without a source and with several once, with one once a source."""
    sources, targets = recipe.sources, recipe.targets
    assert targets is not None
    source_seed = seed if sources is None or seed in sources.seeds else min(sources.seeds)
    prompts = [
        _source(recipe, model, names, other, source_seed)
        for other in (sources.tasks if sources else ())
        if names[other] != names[task]
    ]

    def run(method: Method, variant: str, *given: RunSpec) -> RunSpec:
        distilled: Settings = ()
        teachers: tuple[RunSpec, ...] = ()
        several = method.sources == "several"
        if method.teacher is not None:
            options = recipe.distillation_options(variant)
            distilled = tuple(sorted(options.used(unlabeled=method.unlabeled).items()))
            if options.teacher == "trained":
                teachers = tuple(run(method.teacher, variant, source) for source in given)
        return RunSpec(
            kind="target",
            model=model,
            task=names[task],
            method=method.name,
            seed=seed,
            budget=budget,
            protocol=recipe.protocol,
            options=_settings(recipe.target_options(task, variant), method),
            distillation=distilled,
            tested=True,
            test_examples=targets.test_examples,
            threads=recipe.threads,
            source=given[0] if given and not several else None,
            teacher=teachers[0] if teachers and not several else None,
            sources=given if several else (),
            teachers=teachers if several else (),
            unlabeled=targets.unlabeled if method.unlabeled else None,
            variant=variant,
        )

    requested = [(METHODS[name], DEFAULT) for name in METHODS if name in recipe.methods]
    requested += [
        (METHODS[variant.method], name)
        for name, variant in recipe.variants.items()
        if recipe.distillation_options(name).supports(kinds[names[task]])
    ]
    plain = [run(method, variant) for method, variant in requested if not method.needs_source]
    transferred = [
        run(method, variant, prompt) for prompt in prompts for method, variant in requested if method.sources == "one"
    ]
    # A fusion holds all sources, so that one which shares text with the target would spoil it.
    unrelated = [prompt for prompt in prompts if not share_text(prompt.task, names[task])]
    fused = [
        run(method, variant, *unrelated) for method, variant in requested if method.sources == "several" and unrelated
    ]
    selected = []
    if AUTO in recipe.methods and unrelated:
        # Students are among the contestants, so what concerns them concerns the selection.
        free = replace(run(PANDA, DEFAULT, unrelated[0]), method=AUTO, source=None, teacher=None)
        selected = [replace(free, sources=tuple(unrelated), selection=decisive_settings())]
    tuned = run(PROMPT_TUNING, DEFAULT)
    chosen_estimators = recipe.estimator_names(own=tuned in plain)
    estimates = [_estimates(recipe, chosen_estimators, tuned, prompt, task) for prompt in prompts if chosen_estimators]
    return [*plain, *transferred, *fused, *selected, *estimates]


def _estimates(
    recipe: SweepRecipe, chosen_estimators: tuple[str, ...], tuned: RunSpec, source: RunSpec, task: str
) -> RunSpec:
    known = estimators()
    settings = _settings(recipe.target_options(task), PROMPT_TUNING)
    return RunSpec(
        kind="estimates",
        model=tuned.model,
        task=tuned.task,
        method=None,
        seed=tuned.seed,
        budget=tuned.budget,
        protocol=tuned.protocol,
        options=tuple((name, value) for name, value in settings if name in _SEEN),
        estimators=chosen_estimators,
        threads=tuned.threads,
        source=source,
        own=tuned if any(known[name].needs_target_prompt for name in chosen_estimators) else None,
    )


def _settings(options: TrainingOptions, method: Method) -> Settings:
    """The options that have an effect, with their defaults, so that a changed default makes another run."""
    values: dict[str, Any] = options_used(options, method)
    for name in _BY_DATA:
        if name not in options.model_fields_set:
            values.pop(name)
    return tuple(sorted(values.items()))


def _beside(name: str, base: Path | None) -> str:
    """A path of the recipe, seen from its folder; a name as it is."""
    path = Path(name).expanduser()
    if base is None or not (name.startswith((".", "~")) or path.suffix in (".yaml", ".yml")):
        return name
    return str((base / path).resolve())  # workers may run elsewhere

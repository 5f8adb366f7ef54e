"""The recipe of a sweep: one YAML file that says which sources, targets, models, methods, seeds and settings."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from promptpanda.errors import PandaError, suggest
from promptpanda.files import check_name
from promptpanda.names import Precision
from promptpanda.sweep.recipe_file import read_recipe
from promptpanda.tasks.protocol import Protocol
from promptpanda.training.distillation import DistanceName, DistillationOptions, Start, Teacher
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.ablation import CONTROLS
from promptpanda.transfers.estimators import estimators
from promptpanda.transfers.methods import METHODS
from promptpanda.transfers.names import AUTO

Options = dict[str, Any]  # fields of TrainingOptions; those left out keep their defaults
DEFAULT = "default"  # the variant that every method has
ABLATION = "ablation"  # in the place of variants: all controls
_MOST = 1_000  # entries of a list: more are a slip, and their product would never be run
_MOST_EXAMPLES = 10**9
_SHAPE = ("prompt_kind", "prompt_length")


def _listed(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else [value]


def _once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("at least one is needed")
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{value} comes twice")
    return values


def _coefficient(value: Any) -> Any:
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Tasks(_Strict):
    """Tasks and how prompts are trained on them.

    Attributes:
        tasks: catalog names, or YAML specs (from the recipe's folder).
        options: fields of `TrainingOptions`, for all of these tasks.
        per_task: options that differ for a task.
    """

    tasks: Annotated[tuple[str, ...], Field(max_length=_MOST)]
    options: Options = {}
    per_task: dict[str, Options] = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        _once(self.tasks)
        for task, own in self.per_task.items():
            if task not in self.tasks:
                raise ValueError(f"per_task names '{task}', which is not among the tasks.{suggest(task, self.tasks)}")
            for name in _SHAPE:
                if name in own:
                    raise ValueError(
                        f"per_task: {task}: {name} cannot be a task's own, since transfers need prompts of one shape; "
                        "set it in the sources' options"
                    )
        return self


class Sources(_Tasks):
    """What prompts start from.

    Attributes:
        examples: budget of each, train and validation together; None takes all.
        seeds: of the source prompts. A target's seed starts from the same seed if it is among them, else from the
            lowest.
        tested: whether each prompt is scored on its own test data too, as in a bank that is handed on.
    """

    examples: Annotated[int | None, Field(ge=1, le=_MOST_EXAMPLES)] = None
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=_MOST)] = (0,)
    tested: bool = False

    @model_validator(mode="after")
    def _check_seeds(self) -> Self:
        _once(self.seeds)
        return self


class Targets(_Tasks):
    """What prompts are transferred to.

    Attributes:
        budgets: examples, train and validation together; null takes all.
        test_examples: at most so many test examples, drawn with a fixed seed.
        unlabeled: at most so many rows of train beyond the budget, drawn by the seed, which methods that learn from
            unlabelled text see without their labels.
    """

    budgets: Annotated[
        tuple[Annotated[int | None, Field(ge=1, le=_MOST_EXAMPLES)], ...],
        Field(max_length=_MOST),
        BeforeValidator(_listed),
    ] = (None,)
    test_examples: Annotated[int | None, Field(ge=1, le=_MOST_EXAMPLES)] = None
    unlabeled: Annotated[int | None, Field(ge=1, le=_MOST_EXAMPLES)] = None

    @model_validator(mode="after")
    def _check_budgets(self) -> Self:
        _once(self.budgets)
        if self.unlabeled is not None and None in self.budgets:
            raise ValueError("unlabeled takes rows of train beyond the budget, and a budget of null leaves none")
        return self


class DistillationSettings(_Strict):
    """How a student listens to its teacher; see `DistillationOptions`."""

    coefficient: Annotated[str, BeforeValidator(_coefficient)] = "adaptive"
    scale: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    beta: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    distance: DistanceName = "mse"
    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    student: Start = "fresh"
    teacher: Teacher = "trained"
    unlabeled_weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    confidence: bool = False

    def options(self) -> DistillationOptions:
        return DistillationOptions(**self.model_dump())

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            self.options().check_values()
        except PandaError as error:
            raise ValueError(str(error).removeprefix("--").removesuffix(".")) from error
        return self


class Variant(_Strict):
    """A method under other settings (a control), beside the method's default.

    Attributes:
        method: name in the registry.
        options: fields of `TrainingOptions` that differ; a teacher is trained with them too.
        distillation: fields of `DistillationSettings` that differ.
    """

    method: str
    options: Options = {}
    distillation: dict[str, Any] = {}


class SweepRecipe(_Strict):
    """A sweep.

    Attributes:
        name: names the folder of results.
        protocol: `clean` or `paper`.
        models: short names of the catalogue, hub ids or folders.
        dtype: the number format that models are loaded in, as of `Backbone.load`; float32 by default.
        sources: may be left out where no method starts from a source.
        targets: may be left out with the methods: then the source prompts alone are trained, for a bank.
        methods: names of the registry, and `auto`: the full selection among all sources (transfers/selection.py).
        seeds: of the targets' runs.
        variants: controls, by name; or the word `ablation`, for all that `panda transfer --ablate` has.
        estimators: whether estimators score every source for every target; or which.
        threads: CPU threads of a run. They decide about the last bits, so they are part of its spec.
        data_dir: data root; --data-dir and PANDA_DATA go before it.
    """

    name: str
    protocol: Protocol = "clean"
    models: Annotated[tuple[str, ...], Field(max_length=_MOST), BeforeValidator(_listed)]
    dtype: Precision = "float32"
    sources: Sources | None = None
    targets: Targets | None = None
    methods: Annotated[tuple[str, ...], Field(max_length=_MOST)] = ()
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=_MOST)] = (0,)
    distillation: DistillationSettings = DistillationSettings()
    variants: dict[str, Variant] = {}
    estimators: bool | tuple[str, ...] = True
    threads: int = Field(default=1, ge=1, le=1024)
    data_dir: str | None = None

    @classmethod
    def from_yaml(cls, path: Path | str) -> SweepRecipe:
        """Read a recipe. Raises PandaError with one sentence that names the file and the field."""
        content = read_recipe(Path(path))
        return cls.parse(content, str(path))

    @classmethod
    def parse(cls, content: Any, where: str) -> SweepRecipe:
        """A recipe from plain data. Raises PandaError that begins with `where`."""
        if not isinstance(content, dict):
            raise PandaError(
                f"{where} is not a sweep recipe; expected a mapping with name, models, and targets with methods, or "
                "sources."
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise PandaError(f"{where}: {_sentence(error)}") from error
        except PandaError as error:
            raise PandaError(f"{where}: {error}") from error

    def to_yaml(self) -> str:
        """The recipe as YAML; read again it is equal."""
        content = self.model_dump(mode="json", exclude_unset=True)
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)

    @model_validator(mode="before")
    @classmethod
    def _write_out(cls, content: Any) -> Any:
        """The ablation's controls in the place of their name, so that the recipe tells all it holds."""
        if not isinstance(content, dict) or content.get("variants") != ABLATION:
            return content
        try:
            written = DistillationSettings.model_validate(content.get("distillation", {})).options()
        except ValidationError:
            return content | {"variants": {}}  # what is wrong with it is said where it stands
        variants = {
            control.name: {"method": control.method, "distillation": control.distillation}
            for control in CONTROLS
            if control.distillation and control.changes(written)
        }
        methods = content.get("methods")
        if isinstance(methods, (list, tuple)):
            plain = (control.method for control in CONTROLS if not control.distillation)
            methods = [*methods, *(name for name in plain if name not in methods)]
        return content | {"methods": methods, "variants": variants}

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_name(self.name, "name")
        self._check_extent()
        if any(not isinstance(model, str) or not model.strip() for model in self.models):
            raise ValueError("models: a name is empty")
        for where, method in [("methods", name) for name in self.methods] + [
            (f"variants: {name}", variant.method) for name, variant in self.variants.items()
        ]:
            known = (*METHODS, AUTO) if where == "methods" else tuple(METHODS)
            if method not in known:
                raise ValueError(
                    f"{where}: no method '{method}'; known are {', '.join(known)}.{suggest(method, known)}"
                )
        needy = [name for name in self.used_methods if name == AUTO or METHODS[name].needs_source]
        if needy and self.sources is None:
            raise ValueError(f"method {needy[0]} starts from a source, and the recipe has no sources")
        needy = [name for name in self.used_methods if name != AUTO and METHODS[name].unlabeled]
        if needy and (self.targets is None or self.targets.unlabeled is None):
            raise ValueError(f"method {needy[0]} learns from unlabelled text; say how much in targets: unlabeled")
        if not isinstance(self.estimators, bool):
            for name in _once(self.estimators):
                if name not in estimators():
                    raise ValueError(
                        f"estimators: no '{name}'; known are {', '.join(estimators())}.{suggest(name, estimators())}"
                    )
        self._check_options()
        return self

    def _check_extent(self) -> None:
        """Targets come with methods; without targets the sources alone are trained."""
        if self.targets is None and self.sources is None:
            raise ValueError("targets is missing; give targets and methods, or sources alone to build a bank")
        asked = [name for name, value in (("methods", self.methods), ("variants", self.variants)) if value]
        if self.targets is None and asked:
            raise ValueError(
                f"{asked[0]} is for targets, and the recipe has none; add targets, or leave {asked[0]} out"
            )
        for values in (self.models, self.seeds) if self.targets is None else (self.models, self.methods, self.seeds):
            _once(values)

    @property
    def used_methods(self) -> list[str]:
        """All methods that a target is trained with, variants' included."""
        return list(dict.fromkeys([*self.methods, *(variant.method for variant in self.variants.values())]))

    def source_options(self, task: str) -> TrainingOptions:
        """How the source prompt of a task is trained."""
        assert self.sources is not None
        return TrainingOptions(**self.sources.options | self.sources.per_task.get(task, {}))

    def target_options(self, task: str, variant: str = DEFAULT) -> TrainingOptions:
        """How a target is trained; kind and length of the prompt are the sources'."""
        shape = {} if self.sources is None else {k: v for k, v in self.sources.options.items() if k in _SHAPE}
        own = {} if variant == DEFAULT else self.variants[variant].options
        assert self.targets is not None
        return TrainingOptions(**shape | self.targets.options | self.targets.per_task.get(task, {}) | own)

    def distillation_options(self, variant: str = DEFAULT) -> DistillationOptions:
        """How a student listens to its teacher."""
        if variant == DEFAULT:
            return self.distillation.options()
        changed = self.distillation.model_dump() | self.variants[variant].distillation
        return DistillationSettings(**changed).options()

    def estimator_names(self, *, own: bool) -> tuple[str, ...]:
        """The estimators that are asked for.

        Args:
            own: whether prompts are tuned on the targets; without, those that need one are left out, unless they are
                named.
        """
        if self.sources is None or self.estimators is False:
            return ()
        if not isinstance(self.estimators, bool):
            return self.estimators
        return tuple(name for name, one in estimators().items() if own or not one.needs_target_prompt)

    def _check_options(self) -> None:
        """Every set of options is made once, so that a wrong one is found out here."""
        for place, group in (("sources", self.sources), ("targets", self.targets)):
            if group is None:
                continue
            for where, own in [(f"{place}: options", {}), *((f"{place}: {t}", o) for t, o in group.per_task.items())]:
                _check_training(group.options | own, where)
        for name, variant in self.variants.items():
            if name == DEFAULT:
                raise ValueError(f"variants: the name '{DEFAULT}' is taken by the unchanged method; choose another")
            check_name(name, "The variant")
            _check_training(variant.options, f"variants: {name}: options")
            if set(_SHAPE) & set(variant.options):
                raise ValueError(f"variants: {name}: prompts of one recipe have one shape; leave {_SHAPE[1]} out")
            _check_fields(variant.distillation, DistillationSettings, f"variants: {name}: distillation")
            try:
                self.distillation_options(name)
            except ValidationError as error:
                raise ValueError(f"variants: {name}: distillation: {_sentence(error)}") from error
        if self.sources is not None and self.targets is not None:
            shared, asked = TrainingOptions(**self.sources.options), TrainingOptions(**self.targets.options)
            for field in _SHAPE:
                if field in self.targets.options and getattr(shared, field) != getattr(asked, field):
                    raise ValueError(
                        f"targets: options: {field} {getattr(asked, field)} differs from the sources' "
                        f"{getattr(shared, field)}; leave it out, a transfer keeps the source's"
                    )


def _check_training(options: Options, where: str) -> None:
    _check_fields(options, TrainingOptions, where)
    try:
        made = TrainingOptions(**options)
    except ValidationError as error:
        raise ValueError(f"{where}: {_sentence(error)}") from error
    if made.lr == "auto":
        raise ValueError(f"{where}: lr auto would train three times a run; name a rate")
    if made.beside > 1:
        raise ValueError(
            f"{where}: beside is for the trainings of one transfer; a sweep runs --workers at once instead"
        )


def _check_fields(given: dict[str, Any], model: type[BaseModel], where: str) -> None:
    for name in given:
        if name not in model.model_fields:
            known = ", ".join(model.model_fields)
            raise ValueError(f"{where}: no field '{name}'; known are {known}.{suggest(str(name), model.model_fields)}")


def _sentence(error: ValidationError) -> str:
    """The first thing that is wrong, as a sentence."""
    first = error.errors()[0]
    where = ": ".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _fields_at(first["loc"][:-1])
        name = str(first["loc"][-1])
        return f"{where} is no field; known are {', '.join(known)}.{suggest(name, known)}"
    if first["type"] == "missing":
        return f"{where} is missing."
    if first["type"] == "value_error":
        message = str(first["ctx"]["error"])
    else:
        message = f"{first['msg'][0].lower()}{first['msg'][1:]}, found {str(first['input'])[:60]!r}"
    text = f"{where}: {message}" if where else message
    return text if text.endswith((".", "?")) else f"{text}."


def _fields_at(place: Iterable[int | str]) -> list[str]:
    models: dict[str, type[BaseModel]] = {
        "sources": Sources,
        "targets": Targets,
        "distillation": DistillationSettings,
        "variants": Variant,
    }
    steps = list(place)
    return list((models[str(steps[0])] if steps else SweepRecipe).model_fields)

"""The methods, one registry entry each: how a prompt for the target is obtained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from promptpanda.errors import PandaError
from promptpanda.plugins import Registry, one_line
from promptpanda.tasks.spec import Kind
from promptpanda.training.loop import Fitted, Training, TrainingDivergedError
from promptpanda.transfers.linear_probe import probed
from promptpanda.transfers.method import Method, MethodContext
from promptpanda.transfers.names import METHODS_GROUP, check_known
from promptpanda.transfers.teaching import student
from promptpanda.transfers.warm_up import warmed_up

_WARM_UP = 150  # steps, about as many as most trainings of few labels have
_PERMUTATION = 9  # the random stream that permutes a source, beside the seed


def _run(begin: Callable[[MethodContext], Training]) -> Callable[[MethodContext], Fitted]:
    """Of a method that is one training: carry it out."""
    return lambda context: begin(context).run()


def _prompt_tuning(context: MethodContext) -> Training:
    return context.training(PROMPT_TUNING)


def _pot(context: MethodContext) -> Training:
    return context.training(POT, start=context.fused_source(POT))


def _panda(context: MethodContext) -> Training:
    return student(context, PANDA)


PROMPT_TUNING = Method(
    "prompt_tuning",
    "prompt tuning",
    "P-tuning v2, arXiv 2110.07602; Lester et al., arXiv 2104.08691",
    sources="none",
    teacher=None,
    run=_run(_prompt_tuning),
    begin=_prompt_tuning,
)
POT = Method("pot", "PoT", "SPoT, arXiv 2110.07904", sources="one", teacher=None, run=_run(_pot), begin=_pot)
PANDA = Method("panda", "PANDA", "arXiv 2208.10160", sources="one", teacher=POT, run=_run(_panda), begin=_panda)


def _head_only(context: MethodContext) -> Fitted:
    return context.training(HEAD_ONLY).run()


def _model_tuning(context: MethodContext) -> Fitted:
    return context.training(MODEL_TUNING).run()


HEAD_ONLY = Method(
    "head_only",
    "head only",
    "a linear probe on the frozen backbone, without a prompt",
    sources="none",
    teacher=None,
    run=_head_only,
    trained="head",
)
MODEL_TUNING = Method(
    "model_tuning",
    "model tuning",
    "fine-tuning of all weights, the paper's upper line; Devlin et al., arXiv 1810.04805",
    sources="none",
    teacher=None,
    run=_model_tuning,
    trained="model",
)


def _early_fusion(context: MethodContext) -> Training:
    return context.training(EARLY_FUSION, start=context.fused_source(EARLY_FUSION))


def _late_fusion(context: MethodContext) -> Training:
    return student(context, LATE_FUSION)


EARLY_FUSION = Method(
    "early_fusion",
    "early fusion",
    "named in PANDA, arXiv 2208.10160; a mean of prompts: SPoT, arXiv 2110.07904; ATTEMPT, arXiv 2205.11961",
    sources="several",
    teacher=None,
    run=_run(_early_fusion),
    begin=_early_fusion,
)
LATE_FUSION = Method(
    "late_fusion",
    "late fusion",
    "named in PANDA, arXiv 2208.10160; a teacher a source, and a student of their mean output",
    sources="several",
    teacher=POT,
    run=_run(_late_fusion),
    begin=_late_fusion,
)


def _panda_unlabeled(context: MethodContext) -> Training:
    return student(context, PANDA_UNLABELED)


def _late_fusion_unlabeled(context: MethodContext) -> Training:
    return student(context, LATE_FUSION_UNLABELED)


PANDA_UNLABELED = Method(
    "panda_unlabeled",
    "PANDA with unlabelled text",
    "PANDA, arXiv 2208.10160, and soft labels on unlabelled text: Hinton et al., arXiv 1503.02531",
    sources="one",
    teacher=POT,
    run=_run(_panda_unlabeled),
    begin=_panda_unlabeled,
    unlabeled=True,
)
LATE_FUSION_UNLABELED = Method(
    "late_fusion_unlabeled",
    "late fusion with unlabelled text",
    "as late_fusion, and soft labels on unlabelled text: Hinton et al., arXiv 1503.02531",
    sources="several",
    teacher=POT,
    run=_run(_late_fusion_unlabeled),
    begin=_late_fusion_unlabeled,
    unlabeled=True,
)


def _prompt_tuning_twice(context: MethodContext) -> Training:
    return context.training(PROMPT_TUNING_TWICE, epochs=2 * context.options.epochs)


def _best_of_two(context: MethodContext) -> Fitted:
    tried = []
    for restart in (0, 1):
        try:
            tried.append(context.training(BEST_OF_TWO, restart=restart).run())
        except TrainingDivergedError:
            if restart == 1 and not tried:
                raise
    metric = context.task.spec.metric
    best = max(tried, key=lambda one: (one.diverged is None, one.validation[metric], -one.validation["loss"]))
    return replace(
        best,
        example_steps=sum(one.example_steps for one in tried),
        forward_examples=sum(one.forward_examples for one in tried),
        seconds=sum(one.seconds for one in tried),
    )


PROMPT_TUNING_TWICE = Method(
    "prompt_tuning_twice",
    "prompt tuning, twice the epochs",
    "control: as many steps as PANDA and its teacher together",
    sources="none",
    teacher=None,
    run=_run(_prompt_tuning_twice),
    begin=_prompt_tuning_twice,
    trainings=2,
)
BEST_OF_TWO = Method(
    "best_of_two",
    "better of two restarts",
    "control: prompt tuning twice with other draws, the better on validation data",
    sources="none",
    teacher=None,
    run=_best_of_two,
    trainings=2,
)


def _permuted_source(context: MethodContext) -> Training:
    source = context.fused_source(PERMUTED_SOURCE)
    start = source.permuted(np.random.default_rng([context.seed, _PERMUTATION]))
    return context.training(PERMUTED_SOURCE, start=start)


PERMUTED_SOURCE = Method(
    "permuted_source",
    "PoT from a permuted source",
    "control: the source's scale without its knowledge",
    sources="one",
    teacher=None,
    run=_run(_permuted_source),
    begin=_permuted_source,
)


def _contrastive(context: MethodContext) -> Fitted:
    return warmed_up(context, CONTRASTIVE)


def _contrastive_pot(context: MethodContext) -> Fitted:
    return warmed_up(context, CONTRASTIVE_POT)


_CLASSES = (Kind.SINGLE_CLASSIFICATION, Kind.PAIR_CLASSIFICATION)
CONTRASTIVE = Method(
    "contrastive",
    "contrastive",
    "supervised contrastive learning, arXiv 2004.11362; pairs of few labels as in SetFit, arXiv 2209.11055",
    sources="none",
    teacher=None,
    run=_contrastive,
    trainings=0,
    warm_up=_WARM_UP,
    kinds=_CLASSES,
)
CONTRASTIVE_POT = Method(
    "contrastive_pot",
    "contrastive from the source",
    "SPoT, arXiv 2110.07904, and supervised contrastive learning, arXiv 2004.11362",
    sources="one",
    teacher=None,
    run=_contrastive_pot,
    trainings=0,
    warm_up=_WARM_UP,
    kinds=_CLASSES,
)


def _linear_probe(context: MethodContext) -> Fitted:
    return probed(context, LINEAR_PROBE, None)


def _source_probe(context: MethodContext) -> Fitted:
    return probed(context, SOURCE_PROBE, context.fused_source(SOURCE_PROBE))


_WHOLE_TEXTS = (*_CLASSES, Kind.REGRESSION)
LINEAR_PROBE = Method(
    "linear_probe",
    "linear probe",
    "logistic or ridge regression on frozen embeddings; pairs compared as in InferSent, arXiv 1705.02364",
    sources="none",
    teacher=None,
    run=_linear_probe,
    trained="head",
    trainings=0,
    kinds=_WHOLE_TEXTS,
)
SOURCE_PROBE = Method(
    "source_probe",
    "linear probe of the source",
    "SPoT's prompt, arXiv 2110.07904, without further tuning; a linear probe reads the model under it",
    sources="one",
    teacher=None,
    run=_source_probe,
    trainings=0,
    kinds=_WHOLE_TEXTS,
)


_OWN = {
    method.name: method
    for method in (
        PROMPT_TUNING,
        POT,
        PANDA,
        HEAD_ONLY,
        MODEL_TUNING,
        EARLY_FUSION,
        LATE_FUSION,
        PANDA_UNLABELED,
        LATE_FUSION_UNLABELED,
        CONTRASTIVE,
        CONTRASTIVE_POT,
        LINEAR_PROBE,
        SOURCE_PROBE,
        PROMPT_TUNING_TWICE,
        BEST_OF_TWO,
        PERMUTED_SOURCE,
    )
}


def _plugin(entry: object, name: str, source: str) -> Method:
    """A method from elsewhere, whose failures become sentences. Raises PandaError if it is none."""
    if not isinstance(entry, Method):
        raise PandaError(f"{name!r} of {source} is a {type(entry).__name__}; a method is a promptpanda.Method.")
    if entry.name != name:
        raise PandaError(f"The method {entry.name!r} of {source} is registered as {name!r}; give both the same name.")

    def run(context: MethodContext) -> Fitted:
        try:
            return entry.run(context)
        except (PandaError, KeyboardInterrupt):
            raise
        except Exception as error:  # a stranger's code may raise anything
            raise PandaError(f"The method {name} of {source} failed: {one_line(error)}; leave it out.") from error

    return replace(entry, run=run, version=entry.version or source)


METHODS: Registry[Method] = Registry(METHODS_GROUP, _OWN, _plugin)


def check_methods(names: Sequence[str]) -> tuple[Method, ...]:
    """The methods of these names, each once, in the registry's order. Raises PandaError for an unknown name."""
    unknown = [name for name in names if name not in METHODS][:1]
    why = "".join(f" {problem}" for problem in METHODS.problems() if unknown and f"'{unknown[0]}'" in problem)
    check_known(names, METHODS, why)
    return tuple(method for name, method in METHODS.items() if name in names)

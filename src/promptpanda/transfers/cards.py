"""The card of what a trial has trained: where it comes from, how it was trained, how good it is."""

from __future__ import annotations

import datetime

from promptpanda.bank.card import BackboneCard, Card, DistillationCard, EpochCard, SourceCard, environment
from promptpanda.bank.peft_format import peft_form
from promptpanda.bank.seen_texts import SeenTexts
from promptpanda.bank.signature import Signature
from promptpanda.files import digest
from promptpanda.training.loop import Fitted
from promptpanda.transfers.method import Method, MethodContext


def card_of(
    context: MethodContext,
    method: Method,
    fitted: Fitted,
    signature: Signature | None,
    first: Card | None,
    *,
    id: str,
    run: str,
    series: str,
) -> Card:
    """The card of a method's outcome. Raises PandaError if a card cannot hold it.

    Args:
        signature: of its prompt; making it counts as forward passes.
        first: of a refit, the card of the training that it repeats with more examples.
        id, run, series: see `Card`.
    """
    return Card.made(
        f"The outcome of {method.name} on {context.task.name}",
        id=id,
        run=run,
        series=series,
        task=context.task.spec,
        labels=context.task.labels,
        method=method.name,
        sources=_sources(context, method),
        distillation=_distillation(context, method, fitted),
        transferability=context.transferability if len(context.sources_of(method)) == 1 else {},
        backbone=BackboneCard.of(context.backbone),
        prompt_kind=None if fitted.prompt is None else fitted.prompt.kind,
        prompt_length=0 if fitted.prompt is None else fitted.prompt.length,
        readout=fitted.head.readout,
        weights_kept=fitted.backbone is None,
        threshold=fitted.objective.threshold,
        temperature=fitted.temperature if context.partition.protocol == "clean" else None,
        options=context.options,
        protocol=context.partition.protocol,
        seed=context.seed,
        n_train=len(context.partition.train),
        n_val=len(context.partition.validation),
        data_fingerprint=digest([context.partition.train.fingerprint, context.partition.validation.fingerprint]),
        validation=fitted.validation,
        before=fitted.before,
        validation_seen=set(context.partition.validation.texts) <= set(context.partition.train.texts),
        refit_of=None if first is None else first.id,
        curve=tuple(EpochCard(train_loss=e.train_loss, validation=e.validation) for e in fitted.curve),
        example_steps=fitted.example_steps,
        forward_examples=fitted.forward_examples + (0 if signature is None else signature.examples),
        seconds=fitted.seconds,
        diverged=fitted.diverged,
        warnings=fitted.warnings,
        peft=peft_form(context.backbone, fitted.prompt, fitted.head, context.task.kind),
        environment=environment(context.backbone),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def seen_by(context: MethodContext, method: Method) -> SeenTexts:
    """All texts that a method's outcome, and what it started from, was trained and validated on."""
    texts = context.partition.train.texts + context.partition.validation.texts
    if method.unlabeled:
        texts += context.unlabeled or ()
    sources = context.sources_of(method)
    return SeenTexts.of(texts).joined(*(source.seen for source in sources if source.seen is not None))


def _sources(context: MethodContext, method: Method) -> tuple[SourceCard, ...]:
    sources = context.sources_of(method)
    weights = context.weights(method).tolist() if method.sources == "several" else [None] * len(sources)
    return tuple(
        SourceCard(id=source.id, task=source.task, checksum=source.checksum, weight=weight)
        for source, weight in zip(sources, weights, strict=True)
    )


def _distillation(context: MethodContext, method: Method, fitted: Fitted) -> DistillationCard | None:
    if fitted.distillation is None or method.teacher is None:
        return None
    options = context.distillation
    teachers = [one.card.id for one in context.teachers(method)] or [options.teacher]
    return DistillationCard(
        rule=options.coefficient,
        coefficient=fitted.distillation.coefficient,
        distance=fitted.distillation.distance,
        temperature=fitted.distillation.temperature,
        teacher=teachers[0],
        fused_with=tuple(teachers[1:]),
        student=options.student,
        n_unlabeled=len(context.unlabeled or ()) if method.unlabeled else 0,
        unlabeled_weight=options.unlabeled_weight if method.unlabeled else None,
        confidence=options.confidence and method.unlabeled,
    )

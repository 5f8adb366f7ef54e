"""Go on training a prompt with new data: prompt and head are taken, the head's rows by the names of the labels.

It is a method of its own beside PoT, which takes the prompt alone and draws a fresh head. It is in no registry: a
transfer compares methods under equal conditions, and a head that knows the labels is none of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from promptpanda.bank.folder import SourcePrompt, TrainedPrompt
from promptpanda.bank.seen_texts import KnownRows
from promptpanda.errors import PandaError
from promptpanda.files import digest
from promptpanda.progress import Progress
from promptpanda.tasks.inputs import Split
from promptpanda.tasks.spec import Kind
from promptpanda.tasks.task import Task
from promptpanda.training.heads import HeadStart
from promptpanda.training.loop import Fitted
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.method import Method, MethodContext
from promptpanda.transfers.sources import with_prompt_of

NAME = "continued"
_TOLD = 8  # labels that a note names


@dataclass(frozen=True)
class Start:
    """What a training goes on from.

    Attributes:
        trained: prompt, head and card.
        source: the same as a method's source; its checksum is of prompt and head, and part of the run's identity.
    """

    trained: TrainedPrompt
    source: SourcePrompt

    @classmethod
    def of(cls, trained: TrainedPrompt) -> Start:
        """Raises PandaError if there is no prompt to go on from."""
        card = trained.card
        if trained.prompt is None:
            raise PandaError(
                f"{card.id} was made by {card.method}, which trains no prompt, so no training can continue from it; "
                "name one that `panda train` or `panda transfer` made."
            )
        source = SourcePrompt.of(trained)
        return cls(trained, replace(source, checksum=digest([source.checksum, sorted(card.files.items())])))

    def task(self, task: Task, progress: Progress) -> Task:
        """The task with the start's labels and its own: what is in both, and what is in one alone, which is told.

        Raises:
            PandaError: the task is of another kind.
        """
        card = self.trained.card
        if task.kind != card.task.kind:
            raise PandaError(
                f"{card.id} was trained for {card.task.kind.words}, and task '{task.name}' is {task.kind.words}; "
                "continue with data of that kind, or start from the prompt alone (panda transfer --source)."
            )
        if not card.labels:
            return task
        new = [name for name in task.labels if name not in card.labels]
        missing = [name for name in card.labels if name not in task.labels]
        if new:
            progress.note(
                f"{card.id} does not know {_listed(task.kind, new)}: that part of the head is fresh, and has to be "
                "learnt."
            )
        if missing:
            progress.note(
                f"The new data lacks {_listed(task.kind, missing)}, which {card.id} knows: it stays in the head, but "
                "is not trained further."
            )
        if not missing and (task.spec.labels or task.labels == card.labels):
            return task
        if not task.spec.labels:
            return replace(task, classes=(*card.labels, *new), _splits={}, _labels=None)
        names = (*task.spec.labels, *dict.fromkeys(_spec_label(task.kind, name) for name in missing))
        return replace(task, spec=task.spec.model_copy(update={"labels": names}), _splits={}, _labels=None)

    def options(self, options: TrainingOptions) -> TrainingOptions:
        """The options with the start's shape, readout and, where none is given, at least its max length.

        Raises:
            PandaError: another shape or readout was asked for, or a reparameterisation.
        """
        card, given = self.trained.card, options.model_fields_set
        if options.reparameterize is not None:
            raise PandaError(
                f"--reparameterize trains fresh prompts through an MLP, and {card.id} is trained already; leave it out."
            )
        if "readout" in given and options.readout not in ("auto", card.readout) and not card.task.kind.reads_tokens:
            raise PandaError(
                f"--readout {options.readout} differs from that of {card.id}, whose head reads {card.readout}; leave "
                "it out."
            )
        if card.readout == "token" or card.task.kind == Kind.MULTIPLE_CHOICE:
            return with_prompt_of(options, self.source)
        return with_prompt_of(options, self.source).model_copy(update={"readout": card.readout})

    def settled(self, options: TrainingOptions, given: TrainingOptions) -> TrainingOptions:
        """Settled options whose max length is not below the start's, unless the caller gave one."""
        if "max_length" in given.model_fields_set:
            return options
        return options.model_copy(update={"max_length": max(options.max_length, self.trained.card.options.max_length)})

    def method(self, labels: tuple[str, ...]) -> Method:
        """The method that goes on from it, for a task with these labels."""
        known = {name: place for place, name in enumerate(self.trained.card.labels)}
        outputs = range(len(self.trained.head.weight))
        rows = tuple(known.get(name) for name in labels) if known else tuple(outputs)

        def run(context: MethodContext) -> Fitted:
            training = context.training(method, start=self.source.prompt, head=HeadStart(self.trained.head, rows))
            seen = training.validate()
            fitted = training.run()
            work = fitted.forward_examples + len(context.validation_data)
            return replace(fitted, before=None if seen is None else seen[1], forward_examples=work)

        method = Method(
            NAME,
            "training continued",
            "further steps of AdamW from a trained prompt and head",
            sources="one",
            teacher=None,
            run=run,
        )
        return method

    def warn(self, validation: Split, progress: Progress) -> None:
        """Say how many of the examples that scores are taken on it has seen."""
        seen = self.trained.seen
        rows = 0 if seen is None else KnownRows.of(validation.texts).seen_by(seen)
        if rows:
            progress.note(
                f"{self.source.id}, or what it started from, saw {rows} of the {len(validation)} validation examples: "
                "their scores are too good; test data that it has not seen says more."
            )


def _spec_label(kind: Kind, label: str) -> str:
    """What a spec calls a label of a head: of tags the entity type."""
    return label[2:] if kind == Kind.TOKEN_CLASSIFICATION else label


def _listed(kind: Kind, labels: list[str]) -> str:
    """For a sentence."""
    names = list(dict.fromkeys(_spec_label(kind, label) for label in labels))
    more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return f"{len(names)} label{'s' * (len(names) > 1)} ({', '.join(map(repr, names[:_TOLD]))}{more})"

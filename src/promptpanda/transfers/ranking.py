"""Which prompt of a bank will help a target: every prompt scored by every estimator that can run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank
from promptpanda.bank.card import Card
from promptpanda.bank.folder import SourcePrompt, read_source
from promptpanda.errors import PandaError
from promptpanda.progress import Progress, Silent
from promptpanda.tasks.task import Task
from promptpanda.transfers.estimators import DEFAULT_ESTIMATOR, Cosine, TargetView, estimates, estimators


@dataclass(frozen=True)
class Ranked:
    """One prompt of the bank and what the estimators that can compare it say of it for a target."""

    prompt: str
    task: str
    scores: dict[str, float]


def rank(
    task: Task,
    backbone: Backbone,
    bank: Bank,
    target: TargetView,
    *,
    cosine: Cosine | None = None,
    progress: Progress | None = None,
) -> list[Ranked]:
    """Score all prompts of the bank for a target, best first by the default estimator.

    Where that can compare none of them (all labels of the target are equal, say), the next of the registry decides.
    Prompts trained on the target itself, of another backbone, or left by a training that diverged are left out.

    Args:
        target: the target as estimators may see it, with the signature of a prompt trained on it where there is one.
        cosine: options of PANDA's metric.

    Raises:
        PandaError: the bank holds no prompt that could serve.
    """
    progress = progress or Silent()
    sources = candidate_sources(task, backbone, bank, progress)
    progress.begin(f"rank for {task.name}", len(sources))
    target.look(sources, progress=progress)
    ranking = [Ranked(source.id, source.task, estimates(source, target, cosine)) for source in sources]
    by = next(name for name in (DEFAULT_ESTIMATOR, *estimators()) if all(name in entry.scores for entry in ranking))
    return sorted(ranking, key=lambda entry: (-entry.scores[by], entry.prompt))


def candidate_sources(task: Task, backbone: Backbone, bank: Bank, progress: Progress) -> Sequence[SourcePrompt]:
    """The prompts of a bank that a target can start from.

    Raises:
        PandaError: there is none.
    """
    fitting = fitting_cards(task, backbone, bank, progress)
    if not fitting:
        raise PandaError(
            f"The bank {bank.folder} holds no prompt of {backbone.name} from another task than '{task.name}'; train "
            "one with `panda train TASK`."
        )
    sources = sound_sources(fitting, backbone, bank, progress)
    if not sources:
        raise PandaError(f"No prompt in the bank {bank.folder} is sound; `panda bank verify` tells more.")
    return sources


def fitting_cards(task: Task, backbone: Backbone, bank: Bank, progress: Progress) -> list[Card]:
    """The cards of the prompts that a target can start from; damaged ones are told, and left out."""
    cards, problems = bank.readable_cards()
    for problem in problems:
        progress.note(problem)
    return [
        card
        for card in cards
        if card.prompt_kind is not None
        and card.task.name != task.name
        and card.backbone.fingerprint == backbone.fingerprint
        and card.diverged is None
    ]


def sound_sources(cards: Sequence[Card], backbone: Backbone, bank: Bank, progress: Progress) -> list[SourcePrompt]:
    """The prompts of these cards; damaged ones are told, and left out."""
    sources = []
    for card in cards:
        try:
            sources.append(read_source(bank.folder / card.id, backbone))
        except PandaError as error:
            progress.note(str(error))
    return sources

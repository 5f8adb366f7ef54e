"""Which prompt of a bank will help a target: every prompt scored by every estimator that can run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank, as_bank
from promptpanda.bank.card import Card
from promptpanda.bank.folder import SourcePrompt, read_source
from promptpanda.bank.ownership import weights_alone_match
from promptpanda.bank.signature import EXAMPLES
from promptpanda.errors import PandaError
from promptpanda.progress import Progress, Silent
from promptpanda.tasks.protocol import partition
from promptpanda.tasks.shared_text import share_text
from promptpanda.tasks.task import Task
from promptpanda.training.defaults import settled
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.estimators import Cosine, TargetView, estimates, preferred


@dataclass(frozen=True)
class Ranked:
    """One prompt of the bank and what the estimators that can compare it say of it for a target."""

    prompt: str
    task: str
    scores: dict[str, float]


def rank(
    task: Task,
    backbone: Backbone,
    bank: Bank | Path | str,
    target: TargetView | None = None,
    *,
    train_examples: int | None = None,
    seed: int = 0,
    options: TrainingOptions | None = None,
    cosine: Cosine | None = None,
    progress: Progress | None = None,
) -> list[Ranked]:
    """Score all prompts of the bank for a target, best first by the default estimator.

    Where that cannot compare all of them (the target's labels are all equal, say), PANDA's metric decides, then the
    registry's first that can.
    Prompts trained on the target itself, of another backbone, or left by a training that diverged are left out.

    Args:
        task: the target.
        backbone: the frozen model.
        bank: the bank, or its folder.
        target: the target as estimators may see it, with the signature of a prompt trained on it where there is one.
            None makes it of the labelled examples that the next three say; given, they are not used.
        train_examples: the whole budget of labelled examples; None takes all.
        seed: fixes which examples these are.
        options: of training, for max length and readout; what is left open is settled by the data.
        cosine: options of PANDA's metric.
        progress: told what is under way, and what is left out.

    Raises:
        PandaError: the bank holds no prompt that could serve.
    """
    progress, cosine, bank = progress or Silent(), cosine or Cosine(), as_bank(bank)
    if target is None:
        part = partition(task, train_examples=train_examples, seed=seed)
        settings = settled(options or TrainingOptions(), task.kind, part.train, backbone)
        target = TargetView.of(backbone, task, part, settings, examples=max(EXAMPLES, cosine.examples))
    sources = candidate_sources(task, backbone, bank, progress)
    progress.begin(f"rank for {task.name}", len(sources))
    sources = seen_sources(sources, target, progress)
    if not sources:
        raise PandaError(f"No prompt in the bank {bank.folder} is sound; `panda bank verify` tells more.")
    ranking = [Ranked(source.id, source.task, estimates(source, target, cosine)) for source in sources]
    by = next(name for name in preferred() if all(name in entry.scores for entry in ranking))
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
    """The cards of the prompts that a target can start from; damaged ones are told, and left out.

    So are those whose training may have seen the target's rows: of a task that is known to share texts with it, or of
    one that itself was started from the target. What they promise on the target's validation part is memory.
    """
    cards, problems = bank.readable_cards()
    for problem in problems:
        progress.note(problem)
    _tell_old(cards, backbone, progress)
    by_id = {card.id: card for card in cards}
    fitting = [
        card
        for card in cards
        if card.prompt_kind is not None
        and card.task.name != task.name
        and card.backbone.fingerprint == backbone.fingerprint
        and card.diverged is None
    ]
    kept = [card for card in fitting if not any(_alike(name, task.name) for name in _ancestry(card, by_id))]
    if len(kept) < len(fitting):
        seen = sorted({card.task.name for card in fitting} - {card.task.name for card in kept})
        which = f" (of {', '.join(seen)})" if seen else ""
        progress.note(
            f"{len(fitting) - len(kept)} prompts{which} are left out: they, or what they started from, were trained on "
            f"texts of {task.name}. Named as --source they are taken."
        )
    return kept


def _tell_old(cards: Sequence[Card], backbone: Backbone, progress: Progress) -> None:
    """Name the prompts that would be the backbone's if their cards told of more than weights."""
    old = [card.id for card in cards if weights_alone_match(card, backbone)]
    if old:
        progress.note(
            f"Left out, since their cards do not tell config and tokenizer: {', '.join(old[:3])}"
            f"{f' and {len(old) - 3} more' if len(old) > 3 else ''}; if they were trained on {backbone.name}, accept "
            f"each with `panda bank adopt ID --model {backbone.name}`."
        )


def _alike(name: str, target: str) -> bool:
    return name == target or share_text(name, target)


def _ancestry(card: Card, by_id: dict[str, Card]) -> set[str]:
    """The tasks that a prompt and all that it started from were trained on."""
    found, ahead, seen = set(), [card], set()
    while ahead:
        one = ahead.pop()
        seen.add(one.id)
        found |= {one.task.name} | {source.task for source in one.sources}
        ahead += [by_id[source.id] for source in one.sources if source.id in by_id and source.id not in seen]
    return found


def seen_sources(sources: Sequence[SourcePrompt], target: TargetView, progress: Progress) -> list[SourcePrompt]:
    """Run the target under every prompt; those under which the model overflows are told, and left out."""
    target.look(sources, progress=progress)
    kept = []
    for source in sources:
        if target.shows_finite(source):
            kept.append(source)
        else:
            progress.note(f"{source.id} is left out: under it the model's hidden states are not finite.")
    return kept


def sound_sources(cards: Sequence[Card], backbone: Backbone, bank: Bank, progress: Progress) -> list[SourcePrompt]:
    """The prompts of these cards; damaged ones are told, and left out."""
    sources = []
    for card in cards:
        try:
            sources.append(read_source(bank.folder / card.id, backbone))
        except PandaError as error:
            progress.note(str(error))
    return sources

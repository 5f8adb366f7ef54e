"""From what the user calls a source to the prompt that each seed starts from."""

from __future__ import annotations

from pathlib import Path

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank
from promptpanda.bank.card import Card
from promptpanda.bank.folder import SourcePrompt, TrainedPrompt, is_prompt_folder, read_source
from promptpanda.errors import PandaError
from promptpanda.progress import Progress
from promptpanda.tasks.shared_text import share_text
from promptpanda.tasks.task import Task
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.estimators import Cosine, TargetView
from promptpanda.transfers.ranking import rank

BEST = "best"


def find_sources(
    source: str | Path | SourcePrompt | TrainedPrompt,
    seeds: tuple[int, ...],
    task: Task,
    backbone: Backbone,
    bank: Bank | None,
    target: TargetView,
    cosine: Cosine,
    progress: Progress,
) -> list[SourcePrompt]:
    """The source prompt of every seed.

    Args:
        source: a prompt, an id or a path serve all seeds; a task's name and `best` mean a series of prompts, of which
            seed s takes that of seed s, else that of the lowest seed.
        bank: where names are looked up; a path needs none.
        target, cosine: what the estimators see when `best` ranks the bank.

    Raises:
        PandaError: no such prompt, or it does not fit the backbone.
    """
    if isinstance(source, TrainedPrompt):
        source = SourcePrompt.of(source)
    if isinstance(source, SourcePrompt):
        return [source] * len(seeds)
    if isinstance(source, Path) or (bank is None and is_prompt_folder(Path(source))):
        return [read_source(Path(source), backbone)] * len(seeds)
    if bank is None:
        raise PandaError(
            f"Source '{source}' is no prompt folder, and without a bank there is nowhere to look up a name."
        )
    if source == BEST:
        path = bank.folder_of(rank(task, backbone, bank, target, cosine=cosine, progress=progress)[0].prompt)
    else:
        path = bank.resolve(source)
        if source == path.name or path == Path(source):
            return [read_source(path, backbone)] * len(seeds)
    card = Card.read(path)
    if card.task.name == task.name:
        progress.note(
            f"The source was trained on {task.name} itself: validation scores are too good if it has seen those rows."
        )
    elif share_text(card.task.name, task.name):
        progress.note(f"{card.task.name} and {task.name} share texts: scores are too good if the source has seen them.")
    prompts = {
        name: read_source(bank.folder_of(name), backbone) for name in {bank.sibling(card, seed) for seed in seeds}
    }
    return [prompts[bank.sibling(card, seed)] for seed in seeds]


def named(source: str | Path | SourcePrompt | TrainedPrompt) -> list[str | Path | SourcePrompt | TrainedPrompt]:
    """The sources that are meant: names with commas are several."""
    if isinstance(source, str) and "," in source and not Path(source).exists():
        names = [name.strip() for name in source.split(",") if name.strip()]
        if not names:
            raise PandaError(f"--source {source!r} names no prompt; give names with commas between them.")
        return list(names)
    return [source]


def with_prompt_of(options: TrainingOptions, source: SourcePrompt) -> TrainingOptions:
    """The options with kind and length of the source's prompt: a transfer's prompts are all of one shape.

    Raises:
        PandaError: another length or kind was asked for explicitly.
    """
    prompt = source.prompt
    for name, value in (("prompt_length", prompt.length), ("prompt_kind", prompt.kind)):
        if name in options.model_fields_set and getattr(options, name) != value:
            raise PandaError(
                f"--{name.replace('_', '-')} {getattr(options, name)} differs from the source {source.id}, whose is "
                f"{value}; leave it out, or train a source with {getattr(options, name)}."
            )
    return options.model_copy(update={"prompt_length": prompt.length, "prompt_kind": prompt.kind})

"""From what the user calls a source to the prompt that each seed starts from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank
from promptpanda.bank.card import Card
from promptpanda.bank.entry import Entry, of_seed
from promptpanda.bank.folder import SourcePrompt, TrainedPrompt, read_source
from promptpanda.bank.layout import is_prompt_folder
from promptpanda.errors import PandaError
from promptpanda.progress import Progress
from promptpanda.tasks.task import Task
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.estimators import Cosine, TargetFeatures
from promptpanda.transfers.names import BEST, source_names
from promptpanda.transfers.overlap import LeftOut, TargetRows, warn_of_overlap
from promptpanda.transfers.ranking import rank


def best_source(
    seeds: tuple[int, ...],
    task: Task,
    backbone: Backbone,
    bank: Bank | None,
    target: TargetFeatures,
    rows: TargetRows,
    cosine: Cosine,
    progress: Progress,
) -> tuple[list[SourcePrompt], tuple[LeftOut, ...]]:
    """The top of the bank's ranking, of every seed that of its series, and what saw the target's rows.

    Raises:
        PandaError: there is no bank, or no prompt in it that could serve.
    """
    if bank is None:
        raise PandaError(f"Source '{BEST}' is the top of a bank's ranking, and there is no bank.")
    ranking = rank(task, backbone, bank, target, cosine=cosine, rows=rows, progress=progress)
    cards = [Entry.of(Card.read(bank.folder_of(one.prompt))) for one in ranking]
    series = [card for card in cards if card.series == cards[0].series]
    return _read([of_seed(series, seed).id for seed in seeds], backbone, bank), ranking.left_out


def find_sources(
    source: str | Path | SourcePrompt | TrainedPrompt,
    seeds: tuple[int, ...],
    task: Task,
    backbone: Backbone,
    bank: Bank | None,
    rows: TargetRows,
    progress: Progress,
) -> list[SourcePrompt]:
    """The source prompt of every seed, as it is named; that it has seen the target's rows is told.

    Args:
        source: a prompt, an id or a path serve all seeds; a task's name means a series of prompts, of which seed s
            takes that of seed s, else that of the lowest seed.
        bank: where names are looked up; a path needs none.

    Raises:
        PandaError: no such prompt, or it does not fit the backbone.
    """
    found = _named(source, seeds, backbone, bank)
    for one in {prompt.checksum: prompt for prompt in found}.values():
        warn_of_overlap(one, task.name, rows, progress)
    return found


def _named(
    source: str | Path | SourcePrompt | TrainedPrompt, seeds: tuple[int, ...], backbone: Backbone, bank: Bank | None
) -> list[SourcePrompt]:
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
    path = bank.resolve(source)
    if source == path.name or path == Path(source):
        return [read_source(path, backbone)] * len(seeds)
    return _read(bank.siblings(Card.read(path), seeds), backbone, bank)


def _read(names: Sequence[str], backbone: Backbone, bank: Bank) -> list[SourcePrompt]:
    """The prompts of these ids, each read once."""
    prompts = {name: read_source(bank.folder_of(name), backbone) for name in set(names)}
    return [prompts[name] for name in names]


def named(source: str | Path | SourcePrompt | TrainedPrompt) -> list[str | Path | SourcePrompt | TrainedPrompt]:
    """The sources that are meant: names with commas are several."""
    return list(source_names(source)) if isinstance(source, str) else [source]


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

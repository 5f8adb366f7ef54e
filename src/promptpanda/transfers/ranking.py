"""Which prompt of a bank will help a target: every prompt scored by every estimator that can run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank, as_bank
from promptpanda.bank.catalogue import opened
from promptpanda.bank.entry import Entry
from promptpanda.bank.folder import SourcePrompt, read_source
from promptpanda.bank.ownership import in_another_format, is_owner, weights_alone_match
from promptpanda.errors import PandaError
from promptpanda.names import SIGNATURE_EXAMPLES
from promptpanda.progress import Progress, Silent
from promptpanda.tasks.protocol import partition
from promptpanda.tasks.task import Task
from promptpanda.training.defaults import settled
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.estimators import Cosine, TargetFeatures, estimates, preferred
from promptpanda.transfers.overlap import Fitting, LeftOut, TargetRows, without_overlap
from promptpanda.transfers.shortlist import shortlisted, with_vectors

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Ranked:
    """One prompt of a bank, with its estimates for a target.

    Attributes:
        prompt: its id.
        task: the name of its task.
        scores: by estimator; those that cannot compare it are missing. Higher is better.
    """

    prompt: str
    task: str
    scores: dict[str, float]


class Ranking(list[Ranked]):
    """The prompts of a bank, best first: a list of `Ranked`.

    Attributes:
        left_out: the prompts that were left out because they saw the target's rows.
    """

    def __init__(self, ranked: Iterable[Ranked], left_out: tuple[LeftOut, ...] = ()) -> None:
        super().__init__(ranked)
        self.left_out = left_out

    def to_frame(self) -> pandas.DataFrame:
        """A pandas frame with one row per prompt, best first: prompt, task, and a column for every estimator."""
        import pandas

        return pandas.DataFrame([{"prompt": one.prompt, "task": one.task, **one.scores} for one in self])


def rank(
    task: Task,
    backbone: Backbone,
    bank: Bank | Path | str,
    target: TargetFeatures | None = None,
    *,
    train_examples: int | None = None,
    seed: int = 0,
    options: TrainingOptions | None = None,
    cosine: Cosine | None = None,
    rows: TargetRows | None = None,
    passes: int | None = None,
    progress: Progress | None = None,
) -> Ranking:
    """Rank the prompts of a bank by how well they are expected to serve a target, without training.

    The order is that of the default estimator. If it cannot compare all prompts (because all labels of the target are
    equal, for example), PANDA's metric decides, then the first estimator that can. Left out are prompts that were
    trained on the target itself or on its texts, that belong to another backbone, or whose training diverged. Test data
    is read only for its texts.

    Args:
        task: the target.
        backbone: the frozen model.
        bank: the bank, or the path of its folder.
        target: the target as estimators see it, with the signature of a prompt trained on it if there is one. None, the
            default, makes it from the labelled examples that `train_examples`, `seed` and `options` determine.
        train_examples: the budget of labelled examples, training and validation part together; None, the default, takes
            the whole training split.
        seed: a number from 0 that determines which examples these are.
        options: training options, of which max length and readout matter here; what they leave open follows from the
            data. None leaves all open.
        cosine: options of PANDA's metric; None takes its defaults.
        rows: the target's rows, which no prompt may have seen. None, the default, takes the labelled examples and the
            test data.
        passes: under how many prompts the model is run, at least 1; of more, those are left out whose texts are
            furthest from the target's. None, the default, means 48.
        progress: an object with the methods of `promptpanda.progress.Progress`, which is told what is being done and
            left out; None, the default, is silent.

    Returns:
        The prompts with their scores, best first.

    Raises:
        PandaError: the bank holds no prompt that fits.
    """
    progress, cosine, bank = progress or Silent(), cosine or Cosine(), as_bank(bank)
    if target is None or rows is None:
        part = partition(task, train_examples=train_examples, seed=seed)
        rows = rows or TargetRows.of([part], task.test())
    if target is None:
        settings = settled(options or TrainingOptions(), task.kind, part.train, backbone)
        target = TargetFeatures.of(backbone, task, part, settings, examples=max(SIGNATURE_EXAMPLES, cosine.examples))
    fitting = ranked_cards(task, backbone, bank, target, rows, progress, passes=passes)
    return scored(fitting, task, backbone, bank, target, cosine, progress)


def ranked_cards(
    task: Task,
    backbone: Backbone,
    bank: Bank,
    target: TargetFeatures,
    rows: TargetRows,
    progress: Progress,
    *,
    passes: int | None = None,
) -> Fitting:
    """The prompts that a ranking compares: those that fit, of a large bank the ones near the target.

    Args:
        passes: at most so many; None: 48.

    Raises:
        PandaError: there is none.
    """
    if passes is not None and passes < 1:
        raise PandaError(f"--passes must be at least 1, found {passes}.")
    fitting = fitting_cards(task, backbone, bank, rows, progress, passes=passes)
    if not fitting.cards:
        which = " that did not see its texts" if fitting.left_out else ""
        raise PandaError(
            f"The bank {bank.folder} holds no prompt of {backbone.name} from another task than '{task.name}'{which}; "
            "train one with `panda train TASK`."
        )
    return shortlisted(fitting, target, progress, passes)


def scored(
    fitting: Fitting,
    task: Task,
    backbone: Backbone,
    bank: Bank,
    target: TargetFeatures,
    cosine: Cosine,
    progress: Progress,
) -> Ranking:
    """These prompts scored by every estimator that can run, best first. Raises PandaError if none is intact."""
    sources = readable_sources(fitting.cards, backbone, bank, progress)
    progress.begin(f"rank for {task.name}", len(sources))
    ranked = score_prompts(sources, target, cosine, progress)
    if backbone.neurons is None:
        progress.note(f"{backbone.name} does not expose the neurons of every layer, so `on` is left out.")
    return Ranking(in_order(ranked, bank), fitting.left_out)


def score_prompts(
    sources: Sequence[SourcePrompt], target: TargetFeatures, cosine: Cosine, progress: Progress
) -> list[Ranked]:
    """What estimators say of prompts; those under which the model overflows are told, and left out."""
    seen = seen_sources(sources, target, progress)
    return [Ranked(source.id, source.task, estimates(source, target, cosine)) for source in seen]


def in_order(ranked: Sequence[Ranked], bank: Bank) -> list[Ranked]:
    """By the first estimator that could compare all, best first. Raises PandaError if there is none."""
    if not ranked:
        raise PandaError(f"No prompt in the bank {bank.folder} is intact; `panda bank verify` has details.")
    by = next(name for name in preferred() if all(name in entry.scores for entry in ranked))
    return sorted(ranked, key=lambda entry: (-entry.scores[by], entry.prompt))


def fitting_cards(
    task: Task, backbone: Backbone, bank: Bank, rows: TargetRows, progress: Progress, *, passes: int | None = None
) -> Fitting:
    """The prompts that a target can start from, by their cards; damaged ones are reported and left out.

    So are those whose training may have seen the target's rows: their validation scores would only show memory. The
    bank is opened here alone: all that later steps compare is read.
    """
    with opened(bank, progress) as catalogue:
        for problem in catalogue.problems:
            progress.note(problem)
        entries = catalogue.entries
        _warn_old(entries, backbone, progress)
        _warn_moved(entries, backbone, progress)
        fitting = [
            entry
            for entry in entries
            if entry.prompt_kind is not None
            and entry.task != task.name
            and is_owner(entry, backbone)
            and not entry.diverged
        ]
        unseen = without_overlap(fitting, catalogue, bank, task.name, rows, progress)
        return with_vectors(unseen, catalogue, passes)


def _warn_old(entries: Sequence[Entry], backbone: Backbone, progress: Progress) -> None:
    """Name the prompts whose cards identify the backbone by its weights alone."""
    old = [one.id for one in entries if weights_alone_match(one, backbone)]
    if old:
        progress.note(
            f"Left out, since their cards do not identify config and tokenizer: {', '.join(old[:3])}"
            f"{f' and {len(old) - 3} more' if len(old) > 3 else ''}; if they were trained on {backbone.name}, accept "
            f"each with `panda bank adopt ID --model {backbone.name}`."
        )


def _warn_moved(entries: Sequence[Entry], backbone: Backbone, progress: Progress) -> None:
    """Say how many prompts were trained in another number format of the backbone."""
    count = sum(in_another_format(entry, backbone) for entry in entries)
    if count:
        progress.note(
            f"{count} prompts were trained on the same model in another number format than {backbone.precision}; "
            "they are used as they are."
        )


def seen_sources(sources: Sequence[SourcePrompt], target: TargetFeatures, progress: Progress) -> list[SourcePrompt]:
    """Run the target under every prompt; those under which the model overflows are reported and left out."""
    target.observe(sources, progress=progress)
    return finite_sources(sources, target, progress)


def finite_sources(sources: Sequence[SourcePrompt], target: TargetFeatures, progress: Progress) -> list[SourcePrompt]:
    """Those under which the model does not overflow; the others are reported."""
    kept = []
    for source in sources:
        if target.shows_finite(source):
            kept.append(source)
        else:
            progress.note(f"{source.id} is left out: under it the model's hidden states are not finite.")
    return kept


def readable_sources(cards: Sequence[Entry], backbone: Backbone, bank: Bank, progress: Progress) -> list[SourcePrompt]:
    """The prompts of these cards; damaged ones are reported and left out."""
    sources = []
    for card in cards:
        try:
            sources.append(read_source(bank.folder_of(card.id), backbone))
        except PandaError as error:
            progress.note(str(error))
    return sources

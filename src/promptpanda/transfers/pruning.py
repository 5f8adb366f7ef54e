"""What forward passes leave of a bank for one target: every fitting prompt sees its examples once, the best go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank
from promptpanda.bank.entry import Entry, of_seed
from promptpanda.bank.folder import SourcePrompt
from promptpanda.progress import Progress
from promptpanda.tasks.task import Task
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.estimators import (
    Cosine,
    IncomparableError,
    TargetFeatures,
    estimators,
    preferred,
)
from promptpanda.transfers.overlap import Fitting, LeftOut, TargetRows
from promptpanda.transfers.ranking import finite_sources, fitting_cards, readable_sources
from promptpanda.transfers.shortlist import shortlisted

HALVED = 16
"""Of at least so many prompts the worse half is left out after half of the examples (docs/log.md)."""


@dataclass(frozen=True)
class Pruned:
    """What forward passes say of the bank, for one seed.

    Attributes:
        survivors: the best prompt of each of the best tasks, best first.
        estimator: whose scores these are; None where there was no prompt to score.
        scores: of all prompts that were scored, by id.
        no_transfer: what it says of the bare backbone; None where it cannot.
        work: in examples trained.
    """

    survivors: tuple[SourcePrompt, ...] = ()
    estimator: str | None = None
    scores: dict[str, float] | None = None
    no_transfer: float | None = None
    work: float = 0.0

    def lead(self, sources: Sequence[SourcePrompt]) -> float:
        """By how much sources are put above no transfer, on average; 0 where that cannot be said."""
        if not sources or self.no_transfer is None or self.scores is None:
            return 0.0
        return float(np.mean([self.scores[source.id] for source in sources])) - self.no_transfer


@dataclass(frozen=True)
class SourceCandidates:
    """The prompts of a bank that a target can start from, by their cards.

    Attributes:
        fitting: of the kind and length that were asked for, if they were.
    """

    fitting: Fitting
    backbone: Backbone
    bank: Bank | None
    progress: Progress
    _of_seed: dict[int, tuple[Entry, ...]] = field(default_factory=dict)

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Those that saw the target's rows."""
        return self.fitting.left_out

    @classmethod
    def of(
        cls,
        task: Task,
        backbone: Backbone,
        bank: Bank | None,
        options: TrainingOptions,
        rows: TargetRows,
        progress: Progress,
    ) -> SourceCandidates:
        """Find them; that there is none is told, and no error."""
        explicit = options.model_fields_set
        found = Fitting() if bank is None else fitting_cards(task, backbone, bank, rows, progress)
        fitting = [
            card
            for card in found.cards
            if ("prompt_kind" not in explicit or card.prompt_kind == options.prompt_kind)
            and ("prompt_length" not in explicit or card.prompt_length == options.prompt_length)
        ]
        if not fitting:
            where = "There is no bank" if bank is None else f"The bank {bank.folder} holds no prompt that fits"
            progress.note(
                f"{where}, so there is nothing to transfer: only methods without a source compete (train a source with "
                "`panda train TASK`)."
            )
        return cls(found.narrowed(fitting), backbone, bank, progress)

    def of_seed(self, seed: int, target: TargetFeatures) -> tuple[Entry, ...]:
        """Of each series the prompt of this seed, else of the lowest; of a large bank those near the target alone."""
        if seed in self._of_seed:
            return self._of_seed[seed]
        series: dict[str, list[Entry]] = {}
        for card in self.fitting.cards:
            series.setdefault(card.series, []).append(card)
        found = [of_seed(alike, seed) for alike in series.values()]
        near = shortlisted(self.fitting.narrowed(found), target, self.progress)
        return self._of_seed.setdefault(seed, near.cards)

    def pruned(
        self, targets: Sequence[TargetFeatures], seeds: Sequence[int], cosine: Cosine, count: int
    ) -> list[Pruned]:
        """What forward passes leave of them for each seed; all prompts of the shape of the first seed's best."""
        found: list[Pruned] = []
        for target, seed in zip(targets, seeds, strict=True):
            cards = self.of_seed(seed, target)
            if found and found[0].survivors:
                shape = _shape(found[0].survivors[0])
                cards = tuple(card for card in cards if (card.prompt_kind, card.prompt_length) == shape)
            sources = [] if self.bank is None else readable_sources(cards, self.backbone, self.bank, self.progress)
            found.append(prune(sources, target, cosine, count, self.progress))
        return found


def prune(
    sources: Sequence[SourcePrompt], target: TargetFeatures, cosine: Cosine, count: int, progress: Progress
) -> Pruned:
    """Score prompts by the first estimator that can compare all of them, and keep the best of each of the best tasks.

    Of many prompts the worse half is left out after half of the examples (`HALVED`). A prompt that the bank has under
    several names, as of data that was trained on twice, is kept once. All survivors have prompts of one kind and
    length, those of the best: the methods of a transfer share them.
    """
    if not sources:
        return Pruned()
    progress.begin(f"{len(sources)} prompts, one forward pass each", len(sources))
    sources, read = _read(sources, target, progress)
    if not sources:
        return Pruned(work=read / 3)
    known = estimators(cosine)
    for name in _comparing():
        with suppress(IncomparableError):
            scores = {source.id: known[name].score(source, target) for source in sources}
            break
    else:
        raise AssertionError("one estimator looks at the bank alone, so that it can always compare")
    no_transfer = None
    with suppress(IncomparableError):
        no_transfer = known[name].score(None, target)
        read += len(target.texts)
    ranked = _best_first(sources, scores)
    once: dict[str, SourcePrompt] = {}
    for source in ranked:
        once.setdefault(source.checksum, source)
    best: dict[str, SourcePrompt] = {}
    for source in once.values():
        if _shape(source) == _shape(ranked[0]):
            best.setdefault(source.task, source)
    others = sum(_shape(source) != _shape(ranked[0]) for source in sources)
    if others:
        first = ranked[0].prompt
        progress.note(
            f"{others} of {len(sources)} prompts are left out: unlike the best, they are not a {first.kind} of length "
            f"{first.length}."
        )
    survivors = tuple(best.values())[:count]
    return Pruned(survivors, name, scores, no_transfer, read / 3)


def planned_reading(prompts: int, examples: int) -> float:
    """How many examples pruning reads, the bare model's included."""
    if prompts < HALVED:
        return (prompts + 1) * examples if prompts else 0
    first = -(-examples // 2)
    return prompts * first + -(-prompts // 2) * (examples - first) + examples


def _read(
    sources: Sequence[SourcePrompt], target: TargetFeatures, progress: Progress
) -> tuple[list[SourcePrompt], int]:
    """Read the target under the prompts; returns those that are still in, and how many examples were read.

    Prompts under which the model overflows are told, and left out.
    """
    if len(sources) < HALVED or target.readings is None or not target.readings.varied:
        target.read(sources, progress)
        return finite_sources(sources, target, progress), len(sources) * len(target.texts)
    halves = target.halves()
    first = len(np.unique(halves[0].readings.owner)) if halves[0].readings is not None else 0
    halves[0].read(sources, progress)
    read = len(sources) * first
    sources = finite_sources(sources, halves[0], progress)
    with suppress(IncomparableError):  # half of the examples may all have one label
        estimator = estimators()[_comparing()[0]]
        scores = {source.id: estimator.score(source, halves[0]) for source in sources}
        sources = _best_first(sources, scores)[: -(-len(sources) // 2)]
    halves[1].read(sources)
    read += len(sources) * (len(target.texts) - first)
    sources = finite_sources(sources, halves[1], progress)
    target.join(halves, sources)
    return sources, read


def _comparing() -> list[str]:
    """Estimators that need no prompt of the target, the preferred one first."""
    return [name for name in preferred() if not estimators()[name].needs_target_prompt]


def _best_first(sources: Sequence[SourcePrompt], scores: Mapping[str, float]) -> list[SourcePrompt]:
    return sorted(sources, key=lambda source: (-scores[source.id], source.id))


def _shape(source: SourcePrompt) -> tuple[str, int]:
    return source.prompt.kind, source.prompt.length

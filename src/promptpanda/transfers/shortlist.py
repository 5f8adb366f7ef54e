"""Which prompts of a large bank are worth a forward pass: those whose texts are nearest to the target's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from promptpanda.bank.catalogue import SMALL, Catalogue
from promptpanda.bank.entry import Entry
from promptpanda.errors import PandaError
from promptpanda.names import PromptKind
from promptpanda.progress import Progress
from promptpanda.transfers.estimators import TargetFeatures
from promptpanda.transfers.overlap import Fitting

PASSES = SMALL
"""Where more prompts fit, so many of them see the target's examples; banks of up to that many are never cut."""
_COMPARED = 4096  # embeddings at once
_TASKS = 4  # tasks that are among them, at least, where the bank has them: as many as race


def with_vectors(fitting: Fitting, catalogue: Catalogue, passes: int | None = None) -> Fitting:
    """The same with what `shortlisted` compares, where there is something to leave out."""
    few = len(fitting.cards) <= (passes or PASSES)
    return fitting if few else replace(fitting, vectors=catalogue.vectors(fitting.cards))


def shortlisted(fitting: Fitting, target: TargetFeatures, progress: Progress, passes: int | None = None) -> Fitting:
    """The prompts whose texts are nearest to the target's, in their old order; of few prompts all.

    Args:
        passes: how many are kept, as `with_vectors` had it; None: `PASSES`.
    """
    entries, vectors = fitting.cards, fitting.vectors
    passes = passes or PASSES
    if len(entries) <= passes or vectors is None:
        return fitting
    chosen = best_of_tasks([one.task for one in entries], nearness(entries, vectors, target), passes)
    progress.note(
        f"{len(entries):,} prompts fit, too many to run the model under each; the {len(chosen)} whose texts are "
        "nearest to the target's are kept."
    )
    return fitting.narrowed([entries[place] for place in sorted(chosen)])


def nearness(entries: Sequence[Entry], vectors: np.ndarray, target: TargetFeatures) -> np.ndarray:
    """Minus the distance of the texts of sources from the target's: of their mean word embeddings.

    Behind prompts of another length words have other positions, so that the target is seen behind each length once.

    Args:
        vectors: of the sources, NaN where one is missing. *Shape:* (sources, hidden).

    Returns:
        *Shape:* (sources,). Minus infinity where a source has no embedding, or one of another width.
    """
    found = np.full(len(entries), -np.inf)
    shapes: dict[tuple[PromptKind, int], list[int]] = {}
    for place, one in enumerate(entries):
        if one.prompt_kind is not None:
            shapes.setdefault((one.prompt_kind, one.prompt_length), []).append(place)
    for (kind, length), places in shapes.items():
        with suppress(PandaError):  # too long for this model: such a prompt is none of its own
            ours = target.word_embedding(kind, length)
            if vectors.shape[1:] == ours.shape:
                for start in range(0, len(places), _COMPARED):
                    some = places[start : start + _COMPARED]
                    found[some] = -np.linalg.norm(vectors[some] - ours, axis=1)
    return np.where(np.isnan(found), -np.inf, found)


def best_of_tasks(tasks: Sequence[str], scores: np.ndarray, count: int) -> list[int]:
    """Places of the best, none of a task beyond its share while others are left; ties go to the first."""
    share, taken = count // _TASKS, Counter[str]()
    ordered = [int(place) for place in np.argsort(-scores, kind="stable")]
    within: list[int] = []
    beyond: list[int] = []
    for place in ordered:
        taken[tasks[place]] += 1
        (within if taken[tasks[place]] <= share else beyond).append(place)
    return [*within, *beyond][:count]

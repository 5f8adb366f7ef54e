"""Which prompts of a large bank are worth a forward pass for a target, told by embeddings that are known already."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from promptpanda.bank.bank import Bank
from promptpanda.bank.catalogue import SMALL, opened
from promptpanda.bank.entry import Entry
from promptpanda.progress import Progress
from promptpanda.transfers.estimators import TargetFeatures

PASSES = SMALL
"""Where more prompts fit, so many of them see the target's examples; banks of up to that many are never cut."""
_TASKS = 4  # tasks that are among them, at least, where the bank has them: as many as race


def shortlisted(entries: Sequence[Entry], target: TargetFeatures, bank: Bank, progress: Progress) -> list[Entry]:
    """The prompts that are nearest to the target, in their old order; of few prompts all."""
    if len(entries) <= PASSES:
        return list(entries)
    with opened(bank, progress) as catalogue:
        known = catalogue.by_id
        entries = [one for one in entries if one.id in known]  # others were removed meanwhile
        vectors = catalogue.vectors(entries, target.backbone.fingerprint)
    near = nearness(vectors, target.plain_embeddings)
    chosen = best_of_tasks([one.task for one in entries], near, PASSES)
    progress.note(
        f"{len(entries):,} prompts fit, too many to run the model under each; the {len(chosen)} whose texts are "
        "nearest to the target's go on."
    )
    return [entries[place] for place in sorted(chosen)]


def nearness(vectors: np.ndarray, target: np.ndarray) -> np.ndarray:
    """How near the texts of sources are to a target's: mean over layers of the cosine of centred embeddings.

    Embeddings of any two texts are alike; what tells them apart is where they lie from the middle of the bank.

    Args:
        vectors: of the sources, NaN where one is missing. *Shape:* (sources, 2 x hidden).
        target: *Shape:* (2, hidden).

    Returns:
        *Shape:* (sources,). Minus infinity where a source has no embedding, or one of another width.
    """
    found = np.full(len(vectors), -np.inf)
    known = np.isfinite(vectors).all(axis=1)
    if vectors.shape[1] != target.size or not known.any():
        return found
    parts = vectors[known].reshape(-1, *target.shape)
    centre = parts.mean(axis=0)
    ours, theirs = parts - centre, target - centre
    norms = np.linalg.norm(ours, axis=2) * np.linalg.norm(theirs, axis=1)
    products = np.einsum("sld,ld->sl", ours, theirs)
    found[known] = np.divide(products, norms, out=np.zeros_like(products), where=norms > 0).mean(axis=1)
    return found


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

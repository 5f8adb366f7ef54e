"""A bank ranked by the workers of sweeps: each runs the model under some of the prompts.

What an order holds is small: the target's labelled rows and the files of a few prompts. The model is loaded once a
worker, from where the driver has it.
"""

from __future__ import annotations

import concurrent.futures
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank
from promptpanda.bank.folder import read_source
from promptpanda.bank.signature import Signature
from promptpanda.errors import PandaError
from promptpanda.names import SIGNATURE_EXAMPLES
from promptpanda.parallel import torch_threads
from promptpanda.progress import Progress, Silent
from promptpanda.sweep.cache import CACHE
from promptpanda.sweep.executors import Workers
from promptpanda.sweep.plan import ModelAt
from promptpanda.sweep.work import PromptFiles
from promptpanda.tasks.protocol import Partition
from promptpanda.tasks.task import Task
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.estimators import Cosine, TargetFeatures
from promptpanda.transfers.overlap import TargetRows
from promptpanda.transfers.ranking import Ranked, Ranking, in_order, ranked_cards, score_prompts

PART = 32  # prompts of an order, as many as go through the model in one series of batches
_ATTEMPTS = 3
_LOOK = 5.0  # seconds between two looks at workers that may be gone


@dataclass(frozen=True)
class RankTarget:
    """The target, as every worker makes it.

    Attributes:
        model, fingerprint: where the backbone is found, and what must be found there.
        task: its spec and classes, without data.
        part: the labelled rows.
        options: settled ones.
        own: signature of a prompt trained on the target, or None.
    """

    model: ModelAt
    fingerprint: str
    task: Task
    part: Partition
    options: TrainingOptions
    cosine: Cosine
    own: Signature | None = None

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        task: Task,
        part: Partition,
        options: TrainingOptions,
        cosine: Cosine,
        own: Signature | None,
    ) -> RankTarget:
        folder = Path(backbone.name)
        location = str(folder.resolve()) if folder.is_dir() else backbone.name
        bare = Task(task.spec, classes=task.labels)
        return cls(ModelAt(location, backbone.precision), backbone.fingerprint, bare, part, options, cosine, own)

    def features(self, backbone: Backbone) -> TargetFeatures:
        """As estimators see it."""
        examples = max(SIGNATURE_EXAMPLES, self.cosine.examples)
        return TargetFeatures.of(backbone, self.task, self.part, self.options, examples=examples, own=self.own)


class _Notes(Silent):
    def __init__(self) -> None:
        self.found: list[str] = []

    def note(self, message: str) -> None:
        self.found.append(message)


def rank_part(target: RankTarget, prompts: Sequence[PromptFiles]) -> tuple[list[Ranked], list[str]]:
    """In a worker: the scores of some prompts, and what is to be told of them."""
    notes = _Notes()
    with torch_threads(1), tempfile.TemporaryDirectory(prefix="panda-rank-") as scratch:
        backbone = CACHE.backbone(target.model, target.fingerprint)
        sources = []
        for files in prompts:
            try:
                sources.append(read_source(files.written(Path(scratch)), backbone))
            except PandaError as error:
                notes.note(str(error))
        return score_prompts(sources, target.features(backbone), target.cosine, notes), notes.found


def rank_by(
    workers: Workers,
    target: RankTarget,
    task: Task,
    backbone: Backbone,
    bank: Bank,
    rows: TargetRows,
    *,
    passes: int | None = None,
    progress: Progress | None = None,
) -> Ranking:
    """`rank`, with the passes carried out by workers, which are closed at the end.

    The part of a worker that is lost is given to another, up to three times.

    Args:
        task: the target, with its data.
        rows: which no prompt may have seen.
        passes: see `rank`.

    Raises:
        PandaError: no prompt fits or is intact, or workers were lost again and again.
    """
    progress = progress or Silent()
    calm = False
    try:
        fitting = ranked_cards(task, backbone, bank, target.features(backbone), rows, progress, passes=passes)
        folders = [bank.folder_of(one.id) for one in fitting.cards]
        progress.begin(f"rank for {task.name}", len(folders))
        ranked = _collected(workers, target, [folders[at : at + PART] for at in range(0, len(folders), PART)], progress)
        calm = True
    finally:
        workers.close(kill=not calm)
    return Ranking(in_order(ranked, bank), fitting.left_out)


@contextmanager
def scratch_of(bank: Bank) -> Iterator[Path]:
    """A folder for the files of a cluster's jobs, where the bank is: all nodes must see it."""
    where = bank.folder if bank.folder.is_dir() else Path.cwd()
    with tempfile.TemporaryDirectory(prefix=".panda-rank-", dir=where) as folder:
        yield Path(folder)


def _collected(
    workers: Workers, target: RankTarget, parts: Sequence[Sequence[Path]], progress: Progress
) -> list[Ranked]:
    found: dict[int, list[Ranked]] = {}
    waiting, attempts = list(range(len(parts))), [0] * len(parts)
    under_way: dict[Future[tuple[list[Ranked], list[str]]], int] = {}
    while waiting or under_way:
        while waiting and len(under_way) < max(1, workers.count()):
            number = waiting.pop(0)
            attempts[number] += 1
            under_way[workers.submit(rank_part, target, [PromptFiles.of(folder) for folder in parts[number]])] = number
        done, _ = concurrent.futures.wait(under_way, _LOOK, concurrent.futures.FIRST_COMPLETED)
        if not done:
            workers.count()  # raises if they are gone for good
        for future in done:
            number = under_way.pop(future)
            try:
                found[number], notes = future.result()
            except PandaError:
                raise
            except (Exception, concurrent.futures.CancelledError) as error:
                if attempts[number] >= _ATTEMPTS:
                    raise PandaError(
                        f"A worker that ranked prompts was lost {_ATTEMPTS} times ({type(error).__name__}); it may "
                        "need more memory, or use fewer workers."
                    ) from error
                waiting.append(number)
            else:
                for note in notes:
                    progress.note(note)
                progress.advance(len(parts[number]))
    return [one for number in sorted(found) for one in found[number]]

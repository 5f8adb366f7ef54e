"""The bank ranked for labelled rows that somebody pasted into the page."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from promptpanda.bank.bank import Bank
from promptpanda.errors import PandaError
from promptpanda.names import SIGNATURE_EXAMPLES
from promptpanda.progress import Silent
from promptpanda.serving.limits import RefusedError, outward
from promptpanda.serving.service import Service, first_of
from promptpanda.tasks.catalog import own_task
from promptpanda.tasks.protocol import partition
from promptpanda.tasks.spec import Kind
from promptpanda.tasks.task import Task
from promptpanda.training.defaults import settled
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.estimators import Cosine, TargetFeatures, preferred
from promptpanda.transfers.overlap import TargetRows
from promptpanda.transfers.ranking import ranked_cards, readable_sources, scored

_MOST_ROWS = 200
_SECONDS = 120.0
_NAME = "pasted-rows"


class _Notes(Silent):
    """Keeps what `rank` would tell its user."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(outward(message))


@dataclass
class _Job:
    """A ranking under way. `given_up` ends it before its next step."""

    result: dict[str, Any] = field(default_factory=dict)
    error: Exception | None = None
    given_up: bool = False


async def rank_pasted(service: Service, body: dict[str, Any], *, gone: Callable[[], Awaitable[None]]) -> dict[str, Any]:
    """Rank the bank for rows.

    Args:
        asked: `rows`, lines with a text (or two) and a label, between tabs or as CSV; `header`, whether the first line
            names columns; `numbers`, whether labels are numbers to be predicted.

    Returns:
        `ranking` (best first: prompt, task, scores by estimator), `by`, the estimator that decided, and `notes`.

    Raises:
        RefusedError: the rows cannot be read, the bank has nothing to rank, another ranking is under way, or there was
            no time.
    """
    rows = _rows(body)
    loop = asyncio.get_running_loop()
    ready, job = asyncio.Event(), _Job()

    def steps() -> Iterator[str]:
        try:
            yield from _steps(service, rows, bool(body.get("numbers")), job)
        except Exception as error:
            job.error = error
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(ready.set)

    with service.one_ranking():
        try:
            service.batcher.run(steps())
            async with asyncio.timeout(_SECONDS):
                await first_of(ready.wait(), gone())
        except TimeoutError as error:
            raise RefusedError(503, f"Ranking took more than {_SECONDS:g} seconds; paste fewer rows.") from error
        finally:
            job.given_up = True
    if isinstance(job.error, PandaError):
        raise RefusedError(422, outward(job.error)) from job.error
    if job.error is not None:
        raise job.error
    return job.result


def _steps(service: Service, rows: list[dict[str, str]], numbers: bool, job: _Job) -> Iterator[str]:
    """The ranking, one prompt a step. Run by the thread that runs the model."""
    backbone = service.model.ready()
    folders = list(service.registry.banks.items())
    bank = Bank(folders[0][1], others={name: Bank(folder, others={}) for name, folder in folders[1:]})
    task = _task(rows, numbers)
    part = partition(task, train_examples=None, seed=0)
    known = TargetRows.of([part], None)
    with service.model.tokenizing:
        settings = settled(TrainingOptions(), task.kind, part.train, backbone)
        target = TargetFeatures.of(backbone, task, part, settings, examples=SIGNATURE_EXAMPLES)
    yield "read"
    notes = _Notes()
    fitting = ranked_cards(task, backbone, bank, target, known, notes)
    for card in fitting.cards:
        if job.given_up:
            return
        target.observe(readable_sources([card], backbone, bank, Silent()))
        yield card.id
    ranking = scored(fitting, task, backbone, bank, target, Cosine(), notes)
    by = next(name for name in preferred() if all(name in entry.scores for entry in ranking))
    entries = [{"prompt": one.prompt, "task": one.task, "scores": one.scores} for one in ranking]
    job.result = {"ranking": entries, "by": by, "notes": notes.notes}


def _task(rows: list[dict[str, str]], numbers: bool) -> Task:
    text2 = "second" if "second" in rows[0] else None
    return own_task(train=rows, text="text", text2=text2, kind=Kind.REGRESSION if numbers else None, name=_NAME)


def _rows(body: dict[str, Any]) -> list[dict[str, str]]:
    """The rows that were pasted. Raises RefusedError (413, 422)."""
    pasted = body.get("rows")
    if not isinstance(pasted, str) or not pasted.strip():
        raise RefusedError(422, "Paste some rows first: a text, a tab or a comma, and its label.")
    first = pasted.lstrip("\r\n").split("\n", 1)[0]
    try:
        lines = list(csv.reader(io.StringIO(pasted, newline=""), delimiter="\t" if "\t" in first else ",", strict=True))
    except csv.Error as error:
        raise RefusedError(422, f"The rows cannot be read ({error}); put tabs between text and label.") from error
    lines = [line for line in lines if any(cell.strip() for cell in line)][bool(body.get("header")) :]
    if len(lines) > _MOST_ROWS:
        raise RefusedError(413, f"There are {len(lines)} rows, at most {_MOST_ROWS} are allowed; paste fewer.")
    width = len(lines[0]) if lines else 0
    wrong = [number for number, line in enumerate(lines, 1) if len(line) != width]
    if width not in (2, 3) or wrong:
        where = f"row {wrong[0]} has {len(lines[wrong[0] - 1])} cells" if wrong else f"the first has {width}"
        raise RefusedError(
            422,
            f"Every row needs a text and a label, or two texts and a label, but {where}; put tabs between them, or "
            "quotation marks around texts that hold commas.",
        )
    names = ("text", "label") if width == 2 else ("text", "second", "label")
    return [dict(zip(names, line, strict=True)) for line in lines]

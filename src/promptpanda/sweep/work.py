"""One run, carried out in a worker: plain data comes in, plain data goes out, only a scratch folder is written."""

from __future__ import annotations

import ctypes
import datetime
import errno
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from promptpanda.backbone import Backbone
from promptpanda.bank.card import Card, environment
from promptpanda.bank.folder import SourcePrompt, TrainedPrompt, read_folder, write_folder
from promptpanda.bank.peft_format import WEIGHTS_NAME
from promptpanda.errors import PandaError
from promptpanda.files import check_name, digest
from promptpanda.parallel import torch_threads
from promptpanda.sweep.cache import CACHE, TaskFacts
from promptpanda.sweep.plan import ModelAt
from promptpanda.sweep.row import ID_LIMIT, Answers, Curve, Row
from promptpanda.sweep.spec import RunSpec
from promptpanda.tasks.inputs import Split
from promptpanda.tasks.metrics import baseline
from promptpanda.tasks.protocol import Partition, capped, partition
from promptpanda.tasks.spec import Kind
from promptpanda.tasks.task import Task
from promptpanda.tasks.unlabeled import rest_of_train
from promptpanda.training.defaults import settled
from promptpanda.transfers.estimators import IncomparableError, estimators
from promptpanda.transfers.method import Method
from promptpanda.transfers.methods import METHODS
from promptpanda.transfers.names import AUTO
from promptpanda.transfers.overlap import LeftOut, TargetRows
from promptpanda.transfers.selection import Selection, SelectionOptions, choose, contestants_of
from promptpanda.transfers.trial import Trial


@dataclass(frozen=True)
class PromptFiles:
    """A prompt's folder as it travels: its id, and the bytes of every file."""

    id: str
    files: dict[str, bytes]

    @classmethod
    def of(cls, folder: Path) -> PromptFiles:
        """Hidden files are not the prompt's: a system's, or what a killed writer left."""
        files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
        return cls(folder.name, {path.name: path.read_bytes() for path in files})

    def written(self, scratch: Path) -> Path:
        """The folder, written into another one, unless it is there."""
        folder = scratch / check_name(self.id, "Prompt id", ID_LIMIT)
        if not folder.exists():
            folder.mkdir()
            for name, content in self.files.items():
                (folder / check_name(name, "File of a prompt")).write_bytes(content)
        return folder


@dataclass(frozen=True)
class Order:
    """What a worker is told.

    Attributes:
        key: of the run.
        model, task: where they are found.
        backbone_fingerprint, facts: what must be found there.
        prompts: of the runs that it starts from, by role.
        candidates: prompts of which one may be this run's own: it is then scored, and not trained again.
    """

    spec: RunSpec
    key: str
    model: ModelAt
    task: str
    data_dir: str | None
    backbone_fingerprint: str
    facts: TaskFacts
    prompts: dict[str, PromptFiles]
    candidates: tuple[PromptFiles, ...] = ()


@dataclass(frozen=True)
class Result:
    """What a worker gives back.

    Attributes:
        row: finished or failed.
        answers: of the test examples that were scored, or None.
        prompt: the folder of what was trained, or None where nothing was or where it was a candidate.
    """

    row: Row
    answers: Answers | None = None
    prompt: PromptFiles | None = None


def execute(order: Order) -> Result:
    """Carry out one run. Whatever goes wrong in it becomes a failed row with a one-sentence reason."""
    began = time.perf_counter()
    try:
        with torch_threads(order.spec.threads), tempfile.TemporaryDirectory(prefix="panda-run-") as scratch:
            return _execute(order, Path(scratch))
    except Exception as error:
        return Result(failed_row(order, reason_of(error), seconds=time.perf_counter() - began))
    finally:
        return_memory()


def return_memory() -> None:
    """Give freed memory back to the system.

    glibc keeps what lies between blocks in use. After batches of many different lengths that is most of its heap, and
    grows from run to run (5 GB in an hour of prompt tuning were measured, with .2 GB in use).
    """
    with suppress(OSError, AttributeError):  # other C libraries have no such function
        ctypes.CDLL(None).malloc_trim(0)


def reason_of(error: BaseException) -> str:
    """Why a run failed, in one sentence."""
    if isinstance(error, PandaError):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        return "The disk is full; free some space and try the run again (--retry-failed)."
    first = " ".join(str(error).split())[:300].rstrip(".")
    return f"The run raised {type(error).__name__}{f': {first}' if first else ''}."


def failed_row(order: Order, reason: str, *, seconds: float = 0.0) -> Row:
    """The row of a run that came to nothing."""
    return Row(**_asked(order), status="failed", reason=reason, seconds=seconds, finished=now())


def now() -> str:
    """ISO 8601 in UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def tensors_checksum(card: Card) -> str | None:
    """SHA-256 over the tensors of prompt and head, from the sums of their files; None for an unsaved prompt."""
    sums = {name: value for name, value in card.files.items() if name in (WEIGHTS_NAME, "head.safetensors")}
    return digest(sums) if sums else None


def _execute(order: Order, scratch: Path) -> Result:
    spec = order.spec
    backbone = CACHE.backbone(order.model, order.backbone_fingerprint)
    task = CACHE.expected(order.task, order.data_dir, spec.protocol, order.facts)
    began = time.perf_counter()
    part = partition(task, protocol=spec.protocol, train_examples=spec.budget, seed=spec.seed)
    prompts = {role: _read(files, scratch, backbone) for role, files in order.prompts.items()}
    prompts, left_out = _without_overlap(prompts, spec, task, part)
    trial = _trial(spec, backbone, task, part, prompts)
    if spec.method is None:
        return _estimate(order, trial, prompts.get("own"), began)
    trial, method, selection, spent = _prepared(order, trial, prompts, scratch)
    trained = trial.outcome(method)
    test = _test_of(task, part, spec)
    scores: dict[str, Any] = {}
    if test is not None:
        trained, scores = _tested(trial, method, test)
    fresh = trained.path is None
    folder = write_folder(trained, scratch / "new" / trained.card.id, backbone) if fresh else trained.path
    assert folder is not None
    card = Card.read(folder)
    example_steps, forward_examples = _work(card, selection)
    row = Row(
        **_asked(order),
        **_of_data(part, task),
        **_of_card(card),
        **scores,
        status="finished",
        example_steps=example_steps,
        forward_examples=forward_examples,
        selection=None if selection is None else selection.to_json() | ({"left_out": left_out} if left_out else {}),
        seconds=spent + time.perf_counter() - began,
        finished=now(),
    )
    return Result(row, None if test is None else answers_of(task, test), PromptFiles.of(folder) if fresh else None)


def _without_overlap(
    prompts: dict[str, TrainedPrompt], spec: RunSpec, task: Task, part: Partition
) -> tuple[dict[str, TrainedPrompt], list[dict[str, str | int | None]]]:
    """The prompts of a fusion or a selection without the sources that saw the target's rows, and which those are.

    Raises:
        PandaError: nothing is left to fuse.
    """
    if not spec.sources:
        return prompts, []
    rows = TargetRows.of([part], None if spec.protocol == "paper" else task.test())
    overlapping = {}
    for role, one in prompts.items():
        if role.startswith("source") and one.seen is not None and rows.overlap(one.seen).rows:
            overlapping[role] = LeftOut(one.card.id, rows.overlap(one.seen).rows).to_json()
    left = {role: one for role, one in prompts.items() if role.replace("teacher", "source") not in overlapping}
    if spec.method != AUTO and not any(role.startswith("source") for role in left):
        raise PandaError(f"Every source of this fusion saw rows of '{task.name}', so that nothing is left to fuse.")
    return left, list(overlapping.values())


def _trial(
    spec: RunSpec, backbone: Backbone, task: Task, part: Partition, prompts: Mapping[str, TrainedPrompt]
) -> Trial:
    unlabeled = None
    if spec.unlabeled is not None:
        unlabeled = rest_of_train(task, part, spec.unlabeled, seed=spec.seed)
    return Trial(
        backbone,
        task,
        part,
        settled(spec.training_options(), task.kind, part.train, backbone),
        spec.seed,
        sources=tuple(SourcePrompt.of(one) for role, one in prompts.items() if role.startswith("source")),
        distillation=spec.distillation_options(),
        unlabeled=unlabeled,
    )


def _prepared(
    order: Order, trial: Trial, prompts: Mapping[str, TrainedPrompt], scratch: Path
) -> tuple[Trial, Method, Selection | None, float]:
    """The trial with all that already exists, the method, what `auto` did, and seconds spent before this run."""
    assert order.spec.method is not None
    if order.spec.method == AUTO:
        selection = choose(trial, contestants_of(trial.task.kind), SelectionOptions())
        return selection.trial, METHODS[selection.chosen], selection, 0.0
    method = METHODS[order.spec.method]
    _hand_in_teachers(trial, method, [one for role, one in prompts.items() if role.startswith("teacher")])
    return trial, method, None, _resume_stage(trial, method, order, scratch)


def _tested(trial: Trial, method: Method, test: Split) -> tuple[TrainedPrompt, dict[str, Any]]:
    """The outcome with its test scores on its card, and what the row says of them."""
    task = trial.task
    trained, card, predictions = trial.evaluate(method, test)
    floor = baseline(task.spec, task.labels, trial.partition.train, test)
    scores = {
        "test_fingerprint": card.data_fingerprint,
        "n_test": card.n_test,
        "test": card.scores,
        "predictions": plain(predictions),
        "constant": floor[task.spec.metric],
    }
    return _with_card(trained, trained.card.model_copy(update={"test": card})), scores


def _of_card(card: Card) -> dict[str, Any]:
    return {
        "prompt": card.id,
        "checksum": tensors_checksum(card),
        "validation": card.validation,
        "curve": tuple(Curve(train_loss=epoch.train_loss, validation=epoch.validation) for epoch in card.curve),
        "environment": card.environment,
    }


def _work(card: Card, selection: Selection | None) -> tuple[int, int]:
    """Examples that went forward and backward, and forward only; of a selection all that it did, in the former."""
    if selection is None:
        return card.example_steps, card.forward_examples
    return round(selection.cost * selection.unit), 0


def _estimate(order: Order, trial: Trial, own: TrainedPrompt | None, began: float) -> Result:
    assert trial.source is not None
    if own is not None:
        trial.target.own = own.signature
    known = estimators(trial.cosine)
    values = {}
    for name in order.spec.estimators:
        with suppress(IncomparableError):
            values[name] = known[name].score(trial.source, trial.target)
    row = Row(
        **_asked(order),
        **_of_data(trial.partition, trial.task),
        status="finished",
        estimates=values,
        forward_examples=len(trial.target.texts),
        seconds=time.perf_counter() - began,
        environment=environment(trial.backbone),
        finished=now(),
    )
    return Result(row)


def _asked(order: Order) -> dict[str, Any]:
    spec = order.spec
    return {
        "key": order.key,
        "kind": spec.kind,
        "model": spec.model,
        "task": spec.task,
        "method": spec.method,
        "source": None if spec.source is None else spec.source.task,
        "seed": spec.seed,
        "budget": spec.budget,
        "variant": spec.variant,
        "protocol": spec.protocol,
        "spec": spec.to_json(),
        "backbone_fingerprint": order.backbone_fingerprint,
    }


def _of_data(part: Partition, task: Task) -> dict[str, Any]:
    return {
        "data_fingerprint": digest([part.train.fingerprint, part.validation.fingerprint]),
        "metric": task.spec.metric,
        "n_train": len(part.train),
        "n_val": len(part.validation),
    }


def _read(prompt: PromptFiles, scratch: Path, backbone: Backbone) -> TrainedPrompt:
    """A prompt that travelled, with every checksum compared."""
    folder = prompt.written(scratch)
    try:
        return read_folder(folder, backbone)
    except PandaError as error:
        raise PandaError(str(error).replace(str(folder), prompt.id)) from error


def _hand_in_teachers(trial: Trial, method: Method, teachers: Sequence[TrainedPrompt]) -> None:
    """Let the trial know what its sources' teachers are; a random teacher is not handed in."""
    if method.teacher is not None:
        for source, teacher in zip(trial.sources, teachers, strict=False):
            _hand_in(trial.with_source(source), method.teacher, teacher)


def _hand_in(trial: Trial, method: Method, trained: TrainedPrompt) -> None:
    run, _ = trial.identity(method)
    if trained.card.run != run:
        raise PandaError(
            f"The prompt {trained.card.id} is not what {method.name} gives here (other data, settings or version); "
            "remove it from the bank (panda bank rm) and try the run again (--retry-failed)."
        )
    trial.cached[method.name] = trained


def _resume_stage(trial: Trial, method: Method, order: Order, scratch: Path) -> float:
    """Let the trial know its own outcome, if a candidate is that; returns the seconds that its training took."""
    run, _ = trial.identity(method)
    for candidate in order.candidates:
        with suppress(PandaError):  # a damaged one is trained again
            trained = _read(candidate, scratch, trial.backbone)
            if trained.card.run == run and trained.card.weights_kept:
                trial.cached[method.name] = trained
                return trained.card.seconds
    return 0.0


def _test_of(task: Task, part: Partition, spec: RunSpec) -> Split | None:
    if not spec.tested:
        return None
    test = part.validation if spec.protocol == "paper" else task.test()
    return None if test is None else capped(test, spec.test_examples)


def _with_card(trained: TrainedPrompt, card: Card) -> TrainedPrompt:
    return replace(trained, card=card, backbone=None)


def answers_of(task: Task, split: Split) -> Answers:
    """The right answers of a split, as the store keeps them."""
    labels = _plain_array(split.labels)
    if task.kind == Kind.EXTRACTIVE_QA:
        labels = [[answer.text for answer in answers] for answers in split.labels]
    return Answers(
        test_fingerprint=split.fingerprint,
        task=task.name,
        task_spec=task.spec.model_dump(mode="json"),
        # Of one class a text the last may be the positive one, and others are told by their index alone.
        class_names=task.labels if task.kind.classifies else (*task.labels, *split.unseen_labels),
        labels=[list(label) if isinstance(label, tuple) else label for label in labels],
        groups=None if split.groups is None else split.groups.tolist(),
    )


def plain(predictions: Any) -> list[Any]:
    """Predictions as the store keeps them: class index, value, list of the labels that are given, place of a choice,
    list of tags, text of an answer."""
    values = _plain_array(predictions) if isinstance(predictions, np.ndarray) else list(predictions)
    return [list(value) if isinstance(value, tuple) else value for value in values]


def _plain_array(values: np.ndarray) -> list[Any]:
    """One entry an example; of 0 and 1 for every label, the places of the ones."""
    found: list[Any] = [np.flatnonzero(row).tolist() for row in values] if values.ndim == 2 else values.tolist()
    return found

"""Train and score the points of a learning curve; what is finished is never trained nor scored again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank, as_bank
from promptpanda.bank.folder import SourcePrompt, TrainedPrompt
from promptpanda.bank.outside import read_object
from promptpanda.bank.seen_texts import KnownRows
from promptpanda.curves.curve import LearningCurve
from promptpanda.curves.forecast import Measured
from promptpanda.curves.plan import MOST_HELD_OUT, CurvePlan
from promptpanda.curves.request import CurveRequest
from promptpanda.errors import PandaError
from promptpanda.files import digest, write_whole
from promptpanda.progress import Progress, Silent
from promptpanda.tasks.metrics import baseline
from promptpanda.tasks.protocol import partition
from promptpanda.tasks.task import Task
from promptpanda.training.defaults import settled
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.choice import RESAMPLES, Resamples
from promptpanda.transfers.method import Method
from promptpanda.transfers.overlap import TargetRows
from promptpanda.transfers.sources import find_sources, with_prompt_of
from promptpanda.transfers.trial import Trial

_TIMED = 3  # steps that tell how long a training takes


@dataclass(frozen=True)
class Point:
    """A training, scored: the task's metric, and the same on bootstrap samples of the rows; and how long it trained."""

    score: float
    resampled: tuple[float, ...]
    seconds: float


@dataclass
class CurveRun:
    """A plan with all that carries it out.

    Attributes:
        sources: where methods with a source start, one a seed; none for prompt tuning alone.
        options: of training; epochs and max length are settled for every size by itself, as `panda train` would.
        folder: of the prompts and scores that are finished; None keeps them in memory.
    """

    plan: CurvePlan
    backbone: Backbone
    sources: tuple[SourcePrompt, ...] = ()
    options: TrainingOptions = field(default_factory=TrainingOptions)
    folder: Path | None = None
    progress: Progress = field(default_factory=Silent)

    @classmethod
    def of(
        cls, request: CurveRequest, backbone: Backbone, *, folder: Path | None = None, progress: Progress | None = None
    ) -> CurveRun:
        """Read the data and find the sources; nothing is trained yet.

        Raises:
            PandaError: too few rows, or a source that is not there or does not fit.
        """
        progress, options = progress or Silent(), request.options
        plan = CurvePlan.of(
            request.task,
            request.chosen,
            sizes=request.sizes,
            seeds=request.seeds,
            test_examples=request.test_examples,
        )
        sources: tuple[SourcePrompt, ...] = ()
        if request.source is not None:
            rows = TargetRows(KnownRows.of(plan.pool.texts), KnownRows.of(plan.scored.texts))
            bank = as_bank(request.bank)
            sources = tuple(find_sources(request.source, plan.seeds, request.task, backbone, bank, rows, progress))
            options = with_prompt_of(options, sources[0])
        return cls(plan, backbone, sources, options, folder, progress)

    def left(self) -> list[tuple[Method, int, int]]:
        """The points that are not trained yet."""
        return [
            (method, size, seed)
            for method, size, seed in self.plan.points
            if not self.trial(size, seed).is_known(method)
        ]

    def trial(self, size: int, seed: int) -> Trial:
        """The trial of a size and a seed."""
        drawn = self.plan.drawn(size, seed)
        part = partition(drawn, seed=seed)
        options = settled(self.options, drawn.kind, part.train, self.backbone)
        source = self.sources[self.plan.seeds.index(seed) :][:1]
        bank = None if self.folder is None else Bank(self.folder / "bank", others={})
        return Trial(self.backbone, drawn, part, options, seed, source, bank=bank, progress=self.progress)

    def seconds(self, left: Sequence[tuple[Method, int, int]]) -> float:
        """About how long these points take on this machine, by the first steps of each method's longest training."""
        steps, total = self.plan.steps(self.options), 0.0
        for method in self.plan.methods:
            sizes = [size for one, size, _ in left if one is method]
            if not sizes:
                continue
            trial = replace(self, progress=Silent()).trial(max(sizes), left[0][2])
            training = trial.training(method)
            training.advance(1)  # what is made at the first step, is made once
            once, taken = training.seconds, training.done
            training.advance(1 + _TIMED)
            each = (training.seconds - once) / max(training.done - taken, 1)
            # Forward alone is a third of a step; what the head reads of training rows may be read once, before it.
            passes = len(self.plan.scored) * once / training.forward_examples if training.forward_examples else 0.0
            passes = passes or each * len(self.plan.scored) / self.options.batch_size / 3
            trainings = method.trainings + (method.teacher is not None)
            total += sum(each * (steps[size] * trainings + method.warm_up) + passes for size in sizes)
        return total

    def run(self) -> LearningCurve:
        """Train and score what is not there yet.

        Raises:
            PandaError: something that the caller can fix; what was finished is kept.
        """
        for trial in (self.trial(self.plan.sizes[0], seed) for seed in self.plan.seeds):
            for method in self.plan.methods:
                trial.check(method)
        found: dict[str, dict[tuple[int, int], Point]] = {method.name: {} for method in self.plan.methods}
        for size in self.plan.sizes:
            for seed in self.plan.seeds:
                trial = self.trial(size, seed)
                for method in self.plan.methods:
                    found[method.name][size, seed] = self._point(trial, method)
        return LearningCurve(
            self.plan,
            {name: self._measured(points) for name, points in found.items()},
            self._floor(),
            tuple(dict.fromkeys(source.id for source in self.sources)),
            sum(point.seconds for points in found.values() for point in points.values()),
        )

    def _measured(self, points: dict[tuple[int, int], Point]) -> Measured:
        table = [[points[size, seed] for seed in self.plan.seeds] for size in self.plan.sizes]
        return Measured(
            self.plan.sizes,
            np.asarray([[point.score for point in row] for row in table]),
            np.asarray([[point.resampled for point in row] for row in table]),
        )

    def _floor(self) -> float:
        """What a constant prediction scores."""
        task, scored = self.plan.task, self.plan.scored
        return float(baseline(task.spec, task.labels, self.plan.pool, scored)[task.spec.metric])

    def _point(self, trial: Trial, method: Method) -> Point:
        run, _ = trial.identity(method)
        key = digest([run, self.plan.scored.fingerprint])
        known = self._kept(key)
        if known is not None and trial.is_known(method):
            return known
        _, card, predictions = trial.evaluate(method, self.plan.scored)
        resampled = Resamples(trial.data(self.plan.scored)).scores(predictions)
        seconds = sum(one.card.seconds for one in trial.trained([method]))
        point = Point(card.scores[trial.task.spec.metric], tuple(map(float, resampled)), seconds)
        self._keep(key, point)
        return point

    def _kept(self, key: str) -> Point | None:
        """A point that was scored before; None too where its file is damaged, since it can be made again."""
        if self.folder is None:
            return None
        try:
            content = read_object(self._path(key))
            resampled = tuple(map(float, content["resampled"]))
            point = Point(float(content["score"]), resampled, float(content["seconds"]))
        except (FileNotFoundError, PandaError, KeyError, TypeError, ValueError):
            return None
        numbers = [point.score, point.seconds, *point.resampled]
        valid = len(point.resampled) == RESAMPLES and bool(np.isfinite(numbers).all())
        return point if valid else None

    def _keep(self, key: str, point: Point) -> None:
        if self.folder is None:
            return
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(vars(point)))

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / "scores" / f"{key[:32]}.json"


def learning_curve(
    task: Task,
    backbone: Backbone,
    *,
    source: str | Path | SourcePrompt | TrainedPrompt | None = None,
    methods: Sequence[str] | None = None,
    sizes: Sequence[int] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    test_examples: int = MOST_HELD_OUT,
    options: TrainingOptions | None = None,
    bank: Bank | Path | str | None = None,
    folder: Path | str | None = None,
    progress: Progress | None = None,
) -> LearningCurve:
    """Train with 16, 32, 64, ... labelled rows, up to all there are, and forecast what twice as many would give.

    Args:
        task: the task whose training rows are drawn from. Without test data, a quarter of them (20 to 1000) is kept
            aside to score on.
        backbone: the frozen model.
        source: a prompt to start from, named as in `transfer`; None, the default, starts from fresh prompts.
        methods: names of methods; None, the default, takes `pot` with a source and `prompt_tuning` without.
        sizes: numbers of labelled rows, training and validation part together; None, the default, doubles from 16 up to
            all rows.
        seeds: numbers from 0, each once, `(0, 1, 2)` by default. Each draws its own rows (small draws are parts of
            larger ones), validation part, order and initial values.
        test_examples: at most this many rows are scored; 1000 by default.
        options: training options; what they leave open is determined for every size separately. None leaves all open.
        bank: the bank, or the path of its folder, in which a source is found; None, the default, for none.
        folder: where finished points are kept, so that they are never trained again; None, the default, keeps nothing.
        progress: an object with the methods of `promptpanda.progress.Progress`, which is told what is being done; None,
            the default, is silent.

    Returns:
        The scores by method, size and seed, and the forecast.

    Raises:
        PandaError: something that the caller can fix; what was finished is kept.
    """
    request = CurveRequest(
        task=task,
        source=source,
        methods=methods,
        sizes=sizes,
        seeds=seeds,
        test_examples=test_examples,
        options=options or TrainingOptions(),
        bank=bank,
    )
    run = CurveRun.of(request, backbone, folder=None if folder is None else Path(folder), progress=progress)
    return run.run()

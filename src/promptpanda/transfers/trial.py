"""A trial: one target, one seed, its sources, on which every method is tried with the same data and settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank
from promptpanda.bank.card import Card, TestCard
from promptpanda.bank.folder import SourcePrompt, TrainedPrompt
from promptpanda.bank.signature import Signature
from promptpanda.errors import PandaError
from promptpanda.names import SIGNATURE_EXAMPLES, HeadReadout
from promptpanda.progress import Progress, Silent
from promptpanda.prompts.prompt import Prompt
from promptpanda.tasks.encoding import encode, token_lengths
from promptpanda.tasks.inputs import Input, Split
from promptpanda.tasks.protocol import Partition
from promptpanda.tasks.task import Task
from promptpanda.training.defaults import summary
from promptpanda.training.distillation import Distillation, DistillationOptions, Unlabeled, coefficient_value
from promptpanda.training.heads import HeadStart
from promptpanda.training.inference import Data, Predicted, predict_outputs, scores_of
from promptpanda.training.loop import ALL_SEEN, Fitted, Training, TrainingDivergedError
from promptpanda.training.objectives.kinds import objective_for
from promptpanda.training.objectives.objective import Objective, Threshold
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.cards import card_of, seen_by
from promptpanda.transfers.estimators import (
    PANDA_METRIC,
    Cosine,
    IncomparableError,
    TargetFeatures,
    estimates,
    estimators,
)
from promptpanda.transfers.fusion import fused_prompt, fusion_weights
from promptpanda.transfers.identity import identities
from promptpanda.transfers.method import Method


@dataclass
class Trial:
    """What methods work with. Outcomes are computed once: in memory, and through the bank also between runs.

    Attributes:
        sources: where transfer methods start, best first; none for a trial of methods without transfer.
        cosine: options of the metric that governs the adaptive coefficient.
        bank: where outcomes are saved; None keeps them in memory.
        cached: outcomes that are there already, by method; new ones join them.
        earlier: the trial whose validation part this one trains on too (a refit), so that thresholds are those that
            were chosen there; else None.
        unlabeled: texts of the target without labels, as the task's form makes them of rows; None where there are none.
    """

    backbone: Backbone
    task: Task
    partition: Partition
    options: TrainingOptions
    seed: int
    sources: tuple[SourcePrompt, ...] = ()
    distillation: DistillationOptions = field(default_factory=DistillationOptions)
    cosine: Cosine = field(default_factory=Cosine)
    bank: Bank | None = None
    progress: Progress = field(default_factory=Silent)
    cached: dict[str, TrainedPrompt] = field(default_factory=dict)
    unlabeled: tuple[Input, ...] | None = None
    earlier: Trial | None = None
    _with_source: dict[str, Trial] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.distillation.check(self.task.kind)
        self.options.check(self.task.kind)
        for place, source in enumerate(self.sources):
            self.backbone.check_prompt(source.prompt, f"The source prompt {source.id}")
            if source.checksum in {other.checksum for other in self.sources[:place]}:
                raise PandaError(f"The source {source.id} is named twice; name it once.")

    @property
    def source(self) -> SourcePrompt | None:
        """The best source, or None."""
        return self.sources[0] if self.sources else None

    def sources_of(self, method: Method) -> tuple[SourcePrompt, ...]:
        """What a method starts from. Several come in an order of their own, however they were named."""
        if method.sources == "several":
            return tuple(sorted(self.sources, key=lambda source: source.checksum))
        return self.sources[:1] if method.sources == "one" else ()

    def with_source(self, source: SourcePrompt) -> Trial:
        """This trial with one of its sources, for the teachers of a fusion; prompts are of the source's length."""
        if source is self.source:
            return self
        if source.checksum not in self._with_source:
            shape = {"prompt_length": source.prompt.length, "prompt_kind": source.prompt.kind}
            options = self.options.model_copy(update=shape)
            other = self._with_source[source.checksum] = self.with_sources((source,), {}, options)
            other.earlier = None if self.earlier is None else self.earlier.with_source(source)
        return self._with_source[source.checksum]

    def with_sources(
        self, sources: tuple[SourcePrompt, ...], known: dict[str, TrainedPrompt], options: TrainingOptions | None = None
    ) -> Trial:
        """This trial with other sources, and what is known of them, on the same data."""
        other = replace(self, sources=sources, cached=known, options=options or self.options)
        other.train_data, other.validation_data, other.target = self.train_data, self.validation_data, self.target
        return other

    def check(self, method: Method) -> None:
        """Find out what a method lacks before anything is trained. Raises PandaError."""
        sources = self.sources_of(method)
        if not method.supports(self.task.kind):
            raise PandaError(
                f"The method {method.name} is not defined for {self.task.kind.words}, the kind of task "
                f"'{self.task.name}'; leave it out."
            )
        if method.needs_source and not sources:
            raise PandaError(f"The method {method.name} starts from a source prompt, and there is none; give --source.")
        if method.unlabeled and not self.unlabeled:
            raise PandaError(f"The method {method.name} learns from unlabelled text; give it with --unlabeled FILE.")
        if method.teacher is not None:
            self.coefficient_of(method)
        if len(sources) > 1 and (method.teacher is None or self.distillation.student == "source"):
            self.fused_source(method)

    def announce(self) -> None:
        """Say with which settings is trained: some of them were settled by kind and amount of data."""
        for note in self.task.notes if self.task.tell is None else ():
            self.progress.note(note)
        if self.options.readout != "auto" and not self.objective.takes_readout:
            self.progress.note(
                f"--readout {self.options.readout} is ignored: it does not concern {self.task.kind.words}."
            )
        self.progress.note(f"{self.task.name}: {len(self.partition.train)} training examples; {summary(self.options)}.")
        lengths = token_lengths(self.backbone, self.partition.train.texts)
        cut = int((lengths > self.options.max_length).sum())
        if cut:
            self.progress.note(
                f"{cut} of {len(lengths)} training texts have more than {self.options.max_length} tokens and are cut "
                f"(the longest has {lengths.max()}); a larger --max-length costs time."
            )

    @cached_property
    def train_data(self) -> Data:
        return self.data(self.partition.train)

    @cached_property
    def validation_data(self) -> Data:
        data = self.data(self.partition.validation)
        self.objective.targets(data.encoded, data.split.labels)  # outliers must not be found out at the end
        return data

    @cached_property
    def objective(self) -> Objective:
        return objective_for(self.task.spec, len(self.task.labels), self.partition.train.labels)

    @property
    def readout(self) -> HeadReadout:
        """How a head reads hidden states."""
        return self.objective.readout(self.backbone, self.options.readout)

    @cached_property
    def target(self) -> TargetFeatures:
        """What estimators see of the target: texts of the training part, and labels of the whole budget."""
        examples = max(SIGNATURE_EXAMPLES, self.cosine.examples)
        return TargetFeatures.of(self.backbone, self.task, self.partition, self.options, examples=examples)

    def data(self, split: Split, readout: HeadReadout | None = None) -> Data:
        """Encoded as a head reads; by default as the options say."""
        apart = (readout or self.readout) == "compare"
        encoded = encode(self.backbone, split.texts, self.options.max_length, apart=apart)
        return Data(encoded, split, self.task.spec, self.task.labels)

    def outcome(self, method: Method) -> TrainedPrompt:
        """The trained prompt of a method: remembered, found in the bank, or trained and saved.

        Raises:
            PandaError: its training diverged; what it reached before is in the bank.
        """
        if method.name not in self.cached:
            run, series = self.identity(method)
            prompt_id = self._id(run)
            found = None if self.bank is None else self.bank.find(prompt_id, run)
            if found is not None and self.bank is not None:
                self.cached[method.name] = self.bank.load(str(found), self.backbone)
            else:
                self.cached[method.name] = self._train(method, prompt_id, run, series)
        return _converged(self.cached[method.name])

    def finished(self, method: Method, training: Training) -> TrainedPrompt:
        """The outcome of a method whose training was carried out elsewhere: kept as `outcome` keeps it.

        Raises:
            PandaError: it diverged.
        """
        return self.outcome(replace(method, run=lambda _: training.finish()))

    def is_known(self, method: Method) -> bool:
        """Whether a method's outcome already exists: in memory, or in the bank."""
        run, _ = self.identity(method)
        return method.name in self.cached or (self.bank is not None and self.bank.find(self._id(run), run) is not None)

    def training(
        self,
        method: Method,
        *,
        start: Prompt | None = None,
        head: HeadStart | None = None,
        distillation: Distillation | None = None,
        unlabeled: Unlabeled | None = None,
        restart: int = 0,
        epochs: int | None = None,
        objective: Objective | None = None,
        read: int = 0,
    ) -> Training:
        """A training on this trial's data before its first step (for the methods); see `Training`.

        Args:
            epochs, objective: others than the options' and the task's.
            read: examples that went forward for it before.
        """
        options = self.options
        if method.teacher is not None and options.student_lr is not None:
            options = options.model_copy(update={"lr": options.student_lr})
        if epochs is not None:
            options = options.model_copy(update={"epochs": epochs})
        if objective is not None:  # the task's metrics and classes do not concern it
            options = options.model_copy(update={"early_stopping": None, "class_weights": None})
        return Training(
            self.backbone,
            self.train_data,
            self.validation_data,
            objective or self.objective,
            options,
            seed=self.seed,
            restart=restart,
            start=start,
            head=head,
            trained=method.trained,
            distillation=distillation,
            unlabeled=unlabeled,
            threshold=self._kept_threshold(method) if objective is None else None,
            best_epoch=self.partition.protocol == "paper" and objective is None,
            read=read,
            progress=self.progress,
            label=f"{self.task.name} seed {self.seed} {method.name}",
        )

    def _kept_threshold(self, method: Method) -> Threshold | None:
        """What the earlier trial chose on the validation part; None where there was none, or nothing to choose."""
        if self.earlier is None or self.objective.threshold is None:
            return None
        return self.earlier.outcome(method).card.threshold

    def _judged(self, method: Method) -> Card | None:
        """The card of the method in the earlier trial, which had not seen the validation part; None without one."""
        if self.earlier is None or not self.earlier.is_known(method):
            return None
        return self.earlier.outcome(method).card

    def teachers(self, method: Method) -> tuple[TrainedPrompt, ...]:
        """The trained teachers of a method, one a source; none for a random teacher."""
        if method.teacher is None or self.distillation.teacher == "random":
            return ()
        return tuple(self.with_source(source).outcome(method.teacher) for source in self.sources_of(method))

    def trained(self, methods: Sequence[Method]) -> list[TrainedPrompt]:
        """The outcomes of methods and of their teachers, each training once."""
        found = [one for method in methods for one in (*self.teachers(method), self.outcome(method))]
        return list({one.card.run: one for one in found}.values())

    @cached_property
    def coefficient(self) -> float:
        """The weight of a student's distillation from the best source; known before anything is trained."""
        return self._coefficient(self.transferability.get(PANDA_METRIC))

    def coefficient_of(self, method: Method) -> float:
        """The weight of a method's distillation; of several sources the weighted mean of predictions governs it."""
        if len(self.sources_of(method)) < 2:
            return self.coefficient
        return self._coefficient(self._prediction(method))

    def _coefficient(self, transferability: float | None) -> float:
        return coefficient_value(
            self.distillation.coefficient,
            transferability=transferability,
            scale=self.distillation.scale,
            beta=self.distillation.beta,
            batch_size=self.options.batch_size,
        )

    def predicted(self, source: SourcePrompt) -> float | None:
        """What PANDA's metric says of one of the sources; None where it can say nothing."""
        if source.signature is None:
            return None
        try:
            return estimators(self.cosine)[PANDA_METRIC].score(source, self.target)
        except IncomparableError:
            return None

    def weights(self, method: Method) -> np.ndarray:
        """How much each source of a method counts. *Shape:* (sources,)."""
        sources = self.sources_of(method)
        return fusion_weights([self.predicted(source) for source in sources] if len(sources) > 1 else [None])

    def fused_source(self, method: Method) -> Prompt:
        """The prompt that a method's sources are together. Raises PandaError if their shapes differ."""
        sources = self.sources_of(method)
        return fused_prompt(sources, self.weights(method))

    def _prediction(self, method: Method) -> float | None:
        """The weighted mean of what is predicted for a method's sources."""
        found = [self.predicted(source) for source in self.sources_of(method)]
        known = [value for value in found if value is not None]
        return float(self.weights(method) @ np.asarray(known)) if known and len(known) == len(found) else None

    @cached_property
    def transferability(self) -> dict[str, float]:
        """What the estimators that need no prompt of the target predict; empty without a source or its signature."""
        if self.source is None or self.source.signature is None:
            return {}
        self.target.observe([self.source])
        if not self.target.shows_finite(self.source):
            self.progress.note(
                f"Under {self.source.id} the model's hidden states are not finite; estimators that need them give no "
                "score."
            )
        return estimates(self.source, replace(self.target, own=None), self.cosine)

    def test(self, method: Method, split: Split) -> tuple[TrainedPrompt, TestCard]:
        """Score a method's prompt on test data; what the bank knows already is not computed again."""
        trained = self.outcome(method)
        known = trained.card.test
        if known is not None and known.data_fingerprint == split.fingerprint:
            return trained, known
        return self.evaluate(method, split)[:2]

    def evaluate(self, method: Method, split: Split) -> tuple[TrainedPrompt, TestCard, Any]:
        """Score a method's prompt on test data in any case, and say what it predicts of every example."""
        trained = self.outcome(method)
        if not trained.card.weights_kept and trained.backbone is None:
            # The bank knows its scores alone, and not those on this split.
            trained = self._train(method, trained.card.id, trained.card.run, trained.card.series)
        said = self.predict(trained, self.data(split))
        what = f"The test scores of {trained.card.id}"
        test = TestCard.made(what, scores=said.scores, n_test=len(split), data_fingerprint=split.fingerprint)
        if self.bank is not None:
            trained = self.bank.record_test(trained, test)
        self.cached[method.name] = replace(trained, backbone=None)  # a tuned model has done its work
        return self.cached[method.name], test, said.predictions

    def predict(self, trained: TrainedPrompt, data: Data) -> Predicted:
        """What a trained prompt says of examples of the target, at the threshold that it was kept with."""
        if (trained.head.readout == "compare") != (data.encoded.second is not None):
            data = self.data(data.split, trained.head.readout)
        objective = replace(self.objective, threshold=trained.card.threshold)
        outputs = predict_outputs(trained.backbone or self.backbone, trained.prompt, trained.head, data.encoded)
        predictions = objective.predictions(outputs, data.encoded, data.split.texts)
        return Predicted(predictions, scores_of(outputs, data, objective))

    def identity(self, method: Method) -> tuple[str, str]:
        """Hashes of everything that determines a method's outcome: with and without what the seed decides."""
        return identities(self, method, cosine=self.cosine, threshold=self._kept_threshold(method))

    def _train(self, method: Method, prompt_id: str, run: str, series: str) -> TrainedPrompt:
        if self.bank is not None:
            self.bank.prepare()
        return self._kept(method, method.run(self), prompt_id, run, series)

    def keep(self, method: Method, fitted: Fitted) -> TrainedPrompt:
        """Take what was trained elsewhere (in a race) as a method's outcome, and save it.

        Raises:
            PandaError: the training diverged; what it reached before is kept.
        """
        run, series = self.identity(method)
        self.cached[method.name] = self._kept(method, fitted, self._id(run), run, series)
        return _converged(self.cached[method.name])

    def _id(self, run: str) -> str:
        return f"{self.task.name}-s{self.seed}-{run[:8]}"

    def _kept(self, method: Method, fitted: Fitted, prompt_id: str, run: str, series: str) -> TrainedPrompt:
        first = self._judged(method)
        if first is not None:  # what validation examples say is known from there, and was told
            fitted = replace(
                fitted, validation=first.validation, warnings=first.warnings, temperature=first.temperature
            )
        elif self.earlier is not None:  # there never was a first training, and the validation part is no news
            warnings = tuple(warning for warning in fitted.warnings if warning != ALL_SEEN)
            fitted = replace(fitted, temperature=None, warnings=warnings)
        for warning in fitted.warnings if first is None else ():
            self.progress.note(f"{prompt_id} ({method.name}): {warning}")
        signature = None
        if fitted.prompt is not None:
            signature = Signature.of(self.backbone, fitted.prompt, self.train_data.encoded)
        card = card_of(self, method, fitted, signature, first, id=prompt_id, run=run, series=series)
        seen = None if fitted.prompt is None else seen_by(self, method)
        trained = TrainedPrompt(fitted.prompt, fitted.head, signature, card, backbone=fitted.backbone, seen=seen)
        return trained if self.bank is None else self.bank.save(trained, self.backbone)


def _converged(trained: TrainedPrompt) -> TrainedPrompt:
    """Return a prompt, or raise PandaError if its training diverged (it is kept, and the message says where)."""
    if trained.card.diverged is None:
        return trained
    where = "" if trained.path is None else f"; the best so far is kept in {trained.path}"
    raise TrainingDivergedError(
        f"Training {trained.card.id} stopped: {trained.card.diverged}{where}; lower --lr (it was "
        f"{trained.card.options.lr}) and train again."
    )

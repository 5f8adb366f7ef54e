"""A trial: one target, one seed, one source, on which every method is tried with the same data and settings."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import torch

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank
from promptpanda.bank.card import BackboneCard, Card, DistillationCard, EpochCard, SourceCard, TestCard, environment
from promptpanda.bank.folder import SourcePrompt, TrainedPrompt
from promptpanda.bank.peft_format import peft_form
from promptpanda.bank.signature import EXAMPLES, Signature
from promptpanda.files import digest
from promptpanda.progress import Progress, Silent
from promptpanda.tasks.encoding import encode, token_lengths
from promptpanda.tasks.inputs import Split
from promptpanda.tasks.protocol import Partition
from promptpanda.tasks.task import Task
from promptpanda.training.defaults import told
from promptpanda.training.distillation import DistanceName, Distillation, check_distance, coefficient_value
from promptpanda.training.inference import Data, predict_outputs, scores_of
from promptpanda.training.loop import Fitted, Trained, TrainingDivergedError, fit
from promptpanda.training.objectives.kinds import objective_for
from promptpanda.training.objectives.objective import Objective
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.estimators import DEFAULT_ESTIMATOR, Cosine, TargetView, estimates
from promptpanda.version import __version__


@dataclass(frozen=True)
class DistillationOptions:
    """How PANDA's student listens to its teacher.

    Attributes:
        coefficient: `adaptive`, `published` or a number; see `coefficient_value`.
        scale: of `adaptive`.
        beta: of `published`.
        distance, temperature: see `Distillation`.
    """

    coefficient: str = "adaptive"
    scale: float = 1.0
    beta: float = 0.1
    distance: DistanceName = "mse"
    temperature: float = 1.0

    def used(self) -> dict[str, object]:
        """The settings that have an effect: what does not matter must not make two runs differ."""
        values: dict[str, object] = {"coefficient": self.coefficient, "distance": self.distance}
        if self.coefficient == "adaptive":
            values["scale"] = self.scale
        if self.coefficient == "published":
            values["beta"] = self.beta
        if self.distance == "kl":
            values["temperature"] = self.temperature
        return values


@dataclass(frozen=True, eq=False)
class Method:
    """A way to a target prompt.

    Attributes:
        name: as in commands and results.
        title: as in tables.
        reference: where it comes from.
        needs_source: whether it starts from a source prompt.
        teacher: the method whose outcome it is distilled from, or None.
        run: trains on a trial.
        trained: what learns beside the head.
    """

    name: str
    title: str
    reference: str
    needs_source: bool
    teacher: Method | None
    run: Callable[[Trial], Fitted]
    trained: Trained = "prompt"


@dataclass
class Trial:
    """What methods work with. Outcomes are computed once: in memory, and through the bank also between runs.

    Attributes:
        cosine: options of the metric that governs the adaptive coefficient.
        source: where transfer methods start; None for a trial of methods without transfer.
        bank: where outcomes are saved; None keeps them in memory.
        known: outcomes that are there already, by method; new ones join them.
    """

    backbone: Backbone
    task: Task
    partition: Partition
    options: TrainingOptions
    seed: int
    source: SourcePrompt | None = None
    distillation: DistillationOptions = field(default_factory=DistillationOptions)
    cosine: Cosine = field(default_factory=Cosine)
    bank: Bank | None = None
    progress: Progress = field(default_factory=Silent)
    known: dict[str, TrainedPrompt] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_distance(self.distillation.distance, self.task.kind)
        if self.source is not None:
            self.backbone.check_prompt(self.source.prompt, f"The source prompt {self.source.id}")

    def tell(self) -> None:
        """Say with which settings is trained: some of them were settled by kind and amount of data."""
        if self.options.readout != "auto" and not self.objective.takes_readout:
            self.progress.note(
                f"--readout {self.options.readout} is ignored: it does not concern {self.task.kind.words}."
            )
        self.progress.note(f"{self.task.name}: {len(self.partition.train)} training examples; {told(self.options)}.")
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
        return self.data(self.partition.validation)

    @cached_property
    def objective(self) -> Objective:
        return objective_for(self.task.spec, len(self.task.labels), self.partition.train.labels)

    @cached_property
    def target(self) -> TargetView:
        """What estimators see of the target: texts of the training part, and labels of the whole budget."""
        examples = max(EXAMPLES, self.cosine.examples)
        return TargetView.of(self.backbone, self.task, self.partition, self.options, examples=examples)

    def data(self, split: Split) -> Data:
        encoded = encode(self.backbone, split.texts, self.options.max_length)
        return Data(encoded, split, self.task.spec, self.task.labels)

    def outcome(self, method: Method) -> TrainedPrompt:
        """The trained prompt of a method: remembered, found in the bank, or trained and saved.

        Raises:
            PandaError: its training diverged; what it reached before is in the bank.
        """
        if method.name not in self.known:
            run, series = self.identity(method)
            prompt_id = f"{self.task.name}-s{self.seed}-{run[:8]}"
            found = None if self.bank is None else self.bank.find(prompt_id, run)
            if found is not None and self.bank is not None:
                self.known[method.name] = self.bank.load(str(found), self.backbone)
            else:
                self.known[method.name] = self._train(method, prompt_id, run, series)
        return _sound(self.known[method.name])

    def fit(
        self, method: Method, *, start: SourcePrompt | None = None, distillation: Distillation | None = None
    ) -> Fitted:
        """One training on this trial's data (called by the methods)."""
        options = self.options
        if method.teacher is not None and options.student_lr is not None:
            options = options.model_copy(update={"lr": options.student_lr})
        return fit(
            self.backbone,
            self.train_data,
            self.validation_data,
            self.objective,
            options,
            seed=self.seed,
            start=None if start is None else start.prompt,
            trained=method.trained,
            distillation=distillation,
            best_epoch=self.partition.protocol == "paper",
            progress=self.progress,
            label=f"{self.task.name} seed {self.seed} {method.name}",
        )

    def taught_by(self, method: Method) -> Distillation:
        """The outputs of another method's model on the training part, and the coefficient that governs them."""
        trained = self.outcome(method)
        outputs = predict_outputs(self.backbone, trained.prompt, trained.head, self.train_data.encoded)
        return Distillation(
            torch.from_numpy(self.objective.unfold(outputs)).float(),
            self.coefficient,
            self.distillation.distance,
            self.distillation.temperature,
        )

    @cached_property
    def coefficient(self) -> float:
        """The weight of a student's distillation; known before anything is trained."""
        return coefficient_value(
            self.distillation.coefficient,
            transferability=self.transferability.get(DEFAULT_ESTIMATOR),
            scale=self.distillation.scale,
            beta=self.distillation.beta,
            batch_size=self.options.batch_size,
        )

    @cached_property
    def transferability(self) -> dict[str, float]:
        """What the estimators that need no prompt of the target predict; empty without a source or its signature."""
        if self.source is None or self.source.signature is None:
            return {}
        return estimates(self.source, replace(self.target, own=None), self.cosine)

    def test(self, method: Method, split: Split) -> tuple[TrainedPrompt, TestCard]:
        """Score a method's prompt on test data; what the bank knows already is not computed again."""
        trained = self.outcome(method)
        known = trained.card.test
        if known is not None and known.data_fingerprint == split.fingerprint:
            return trained, known
        return self.judge(method, split)[:2]

    def judge(self, method: Method, split: Split) -> tuple[TrainedPrompt, TestCard, Any]:
        """Score a method's prompt on test data in any case, and say what it predicts of every example."""
        trained = self.outcome(method)
        if not trained.card.weights_kept and trained.backbone is None:
            # The bank knows its scores alone, and not those on this split.
            trained = self._train(method, trained.card.id, trained.card.run, trained.card.series)
        objective = objective_for(self.task.spec, len(self.task.labels), threshold=trained.card.threshold)
        objective = self.objective if trained.card.threshold is None else objective
        data = self.data(split)
        outputs = predict_outputs(trained.backbone or self.backbone, trained.prompt, trained.head, data.encoded)
        predictions = objective.predictions(outputs, data.encoded, split.texts)
        scores = scores_of(outputs, data, objective)
        test = TestCard(scores=scores, n_test=len(split), data_fingerprint=split.fingerprint)
        if self.bank is not None:
            trained = self.bank.record_test(trained, test)
        self.known[method.name] = replace(trained, backbone=None)  # a tuned model has done its work
        return self.known[method.name], test, predictions

    def identity(self, method: Method) -> tuple[str, str]:
        """Hashes of everything that determines a method's outcome: with and without what the seed decides."""
        source = self.source if method.needs_source else None
        series: dict[str, object] = {
            "version": __version__,
            "method": method.name,
            "task": self.task.spec.model_dump(mode="json", exclude={"title", "templates", "hub", "package", "files"}),
            "labels": self.task.labels,
            "backbone": self.backbone.fingerprint,
            "readout": self.objective.readout(self.backbone, self.options.readout),
            "options": options_used(self.options, method),
            "protocol": self.partition.protocol,
            "budget": len(self.partition.train) + len(self.partition.validation),
            "distillation": self._distillation_identity() if method.teacher is not None else None,
            "source": None if source is None else source.series,
            "threads": torch.get_num_threads(),
        }
        run = series | {
            "seed": self.seed,
            "train": self.partition.train.fingerprint,
            "validation": self.partition.validation.fingerprint,
            "source": None if source is None else source.checksum,
        }
        return digest(run), digest(series)

    def _distillation_identity(self) -> dict[str, object]:
        used = self.distillation.used()
        return used | {"cosine": asdict(self.cosine)} if self.distillation.coefficient == "adaptive" else used

    def _train(self, method: Method, prompt_id: str, run: str, series: str) -> TrainedPrompt:
        if self.bank is not None:
            self.bank.prepare()
        fitted = method.run(self)
        for warning in fitted.warnings:
            self.progress.note(f"{prompt_id} ({method.name}): {warning}")
        signature = None
        if fitted.prompt is not None:
            signature = Signature.of(self.backbone, fitted.prompt, self.train_data.encoded)
        source = self.source if method.needs_source else None
        card = Card(
            id=prompt_id,
            run=run,
            series=series,
            task=self.task.spec,
            labels=self.task.labels,
            method=method.name,
            sources=() if source is None else (SourceCard(id=source.id, task=source.task, checksum=source.checksum),),
            distillation=self._distillation_card(fitted, method),
            transferability={} if source is None else self.transferability,
            backbone=BackboneCard.of(self.backbone),
            prompt_kind=None if fitted.prompt is None else fitted.prompt.kind,
            prompt_length=0 if fitted.prompt is None else fitted.prompt.length,
            readout=fitted.head.readout,
            weights_kept=fitted.backbone is None,
            threshold=fitted.objective.threshold,
            options=self.options,
            protocol=self.partition.protocol,
            seed=self.seed,
            n_train=len(self.partition.train),
            n_val=len(self.partition.validation),
            data_fingerprint=digest([self.partition.train.fingerprint, self.partition.validation.fingerprint]),
            validation=fitted.validation,
            curve=tuple(EpochCard(train_loss=e.train_loss, validation=e.validation) for e in fitted.curve),
            example_steps=fitted.example_steps,
            forward_examples=fitted.forward_examples + (0 if signature is None else signature.examples),
            seconds=fitted.seconds,
            diverged=fitted.diverged,
            warnings=fitted.warnings,
            peft=peft_form(self.backbone, fitted.prompt, fitted.head, self.task.kind),
            environment=environment(self.backbone),
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        trained = TrainedPrompt(fitted.prompt, fitted.head, signature, card, backbone=fitted.backbone)
        return trained if self.bank is None else self.bank.save(trained, self.backbone)

    def _distillation_card(self, fitted: Fitted, method: Method) -> DistillationCard | None:
        if fitted.distillation is None or method.teacher is None:
            return None
        return DistillationCard(
            rule=self.distillation.coefficient,
            coefficient=fitted.distillation.coefficient,
            distance=fitted.distillation.distance,
            temperature=fitted.distillation.temperature,
            teacher=self.outcome(method.teacher).card.id,
        )


def options_used(options: TrainingOptions, method: Method) -> dict[str, Any]:
    """The options that have an effect on a method: others must not make two runs differ."""
    unused = {"prompt": {"model_lr"}, "model": {"lr"}, "head": {"model_lr"}}[method.trained]
    if method.trained != "prompt":
        unused = unused | {"prompt_kind", "prompt_length", "init_std", "reparameterize"}
    if method.teacher is None:
        unused = unused | {"student_lr"}
    return options.model_dump(mode="json", exclude=unused)


def _sound(trained: TrainedPrompt) -> TrainedPrompt:
    """Return a prompt, or raise PandaError if its training diverged (it is kept, and the message says where)."""
    if trained.card.diverged is None:
        return trained
    where = "" if trained.path is None else f"; the best so far is kept in {trained.path}"
    raise TrainingDivergedError(
        f"Training {trained.card.id} stopped: {trained.card.diverged}{where}; lower --lr (it was "
        f"{trained.card.options.lr}) and train again."
    )

"""The card of a trained prompt: everything about it that is not a tensor."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticSerializationError

from promptpanda.bank.layout import CARD_NAME, check_id
from promptpanda.bank.outside import MOST_BYTES, read_object
from promptpanda.errors import PandaError
from promptpanda.files import sync
from promptpanda.names import HeadReadout, NumberFormat, PromptKind
from promptpanda.tasks.protocol import Protocol
from promptpanda.tasks.spec import Kind, TaskSpec
from promptpanda.training.options import TrainingOptions
from promptpanda.version import __version__

if TYPE_CHECKING:
    from promptpanda.backbone import Backbone

FORMAT = 1
_MOST_TOKENS = 2**31 - 1  # what tokenizers can count
_SHA256 = re.compile(r"[0-9a-f]{64}")

PeftForm = Literal["SEQ_CLS", "FEATURE_EXTRACTION", "unsupported"]


class _Frozen(BaseModel):
    """JSON knows no infinite number and no NaN, so that no card holds one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def made(cls, what: str, **values: Any) -> Self:
        """A card of a result. Raises PandaError, which names `what`, if the result is none that a card can hold."""
        try:
            return cls(**values)
        except ValidationError as error:
            where, message, value = _first(error)
            raise PandaError(
                f"{what} cannot be kept: {where} is {value} ({message}); look for labels that are far from all others, "
                "or lower --lr."
            ) from error


class BackboneCard(_Frozen):
    """Which frozen model a prompt belongs to.

    Attributes:
        name, revision: where it was loaded from.
        family: transformers' name of the architecture.
        fingerprint: of all that decides what it computes of a text; of the weights alone where `weights` is None.
        weights: fingerprint of the weights alone; None in cards of versions that compared nothing else.
        precision: the number format in which the model computed.
    """

    name: str
    revision: str | None
    family: str
    fingerprint: str
    weights: str | None = None
    precision: NumberFormat = "float32"

    @classmethod
    def of(cls, backbone: Backbone) -> BackboneCard:
        return cls(
            name=backbone.name,
            revision=backbone.revision,
            family=backbone.family,
            fingerprint=backbone.fingerprint,
            weights=backbone.weights_fingerprint,
            precision=backbone.precision,
        )


class SourceCard(_Frozen):
    """A prompt that a transfer started from; `weight` is its share where several were fused."""

    id: str
    task: str
    checksum: str
    weight: float | None = None


class DistillationCard(_Frozen):
    """How a student was distilled.

    Attributes:
        teacher: a prompt's id, or `random`.
        fused_with: the other teachers, in the order of the sources, where several were fused.
        student: what it started from, `fresh` or `source`.
        n_unlabeled, unlabeled_weight, confidence: texts without labels, and how they counted.
    """

    rule: str
    coefficient: float
    distance: str
    temperature: float
    teacher: str
    fused_with: tuple[str, ...] = ()
    student: str = "fresh"
    n_unlabeled: int = 0
    unlabeled_weight: float | None = None
    confidence: bool = False


class TestCard(_Frozen):
    """Scores on test data, and on how much of which."""

    scores: dict[str, float]
    n_test: int = Field(ge=0)
    data_fingerprint: str


class EpochCard(_Frozen):
    """One point of the learning curve."""

    train_loss: float
    validation: dict[str, float] | None


class Card(_Frozen):
    """What a prompt is, where it comes from, and how good it was on which data.

    Attributes:
        id: `TASK-sSEED-HASH8`.
        run: hash of everything that determines the training; equal runs are not trained twice.
        series: the same without the seed: prompts of one series differ only in their seed.
        labels: names of classes, labels or tags in the order of the head's outputs; empty for the other kinds.
        prompt_kind: `prefix` or `shallow`; None for baselines, which train no prompt.
        prompt_length: V, virtual tokens; 0 for baselines.
        weights_kept: whether what was trained is in the folder; a tuned model is not.
        threshold: chosen on the validation part: for questions, the threshold of "no answer"; for several labels, the
            probability from which each label is predicted, in their order. None if there is nothing to choose.
        temperature: what outputs are divided by for calibrated probabilities, fitted on the validation part; None in
            older cards, and if there is nothing to fit or no data to fit it on.
        validation: metrics (fractions) on the validation part, and the mean task `loss`.
        before: the same before the first step, if the training continued another prompt and head (`sources` names
            it); None if the head was fresh.
        validation_seen: whether all validation examples were trained on too.
        refit_of: the id of the same training without the validation part, where there was one: validation scores are
            then its scores. None: they are this prompt's own, and say little if `validation_seen`.
        test: test scores; None if no test data was read.
        example_steps: examples that went forward and backward, over all epochs.
        forward_examples: examples that went only forward.
        seconds: wall time of the training.
        diverged: why training stopped early, or None.
        warnings: signs that little was learnt.
        files: SHA-256 of every other file of the folder.
    """

    format: int = FORMAT
    id: str
    run: str
    series: str
    task: TaskSpec
    labels: tuple[str, ...]
    method: str
    sources: tuple[SourceCard, ...] = ()
    distillation: DistillationCard | None = None
    transferability: dict[str, float] = {}
    backbone: BackboneCard
    prompt_kind: PromptKind | None
    prompt_length: int = Field(ge=0)
    readout: HeadReadout
    weights_kept: bool = True
    threshold: float | tuple[float, ...] | None = None
    temperature: float | None = Field(default=None, ge=1e-3, le=1e3)
    options: TrainingOptions
    protocol: Protocol
    seed: int = Field(ge=0)
    n_train: int = Field(ge=0)
    n_val: int = Field(ge=0)
    data_fingerprint: str
    validation: dict[str, float]
    before: dict[str, float] | None = None
    validation_seen: bool = False
    refit_of: str | None = None
    test: TestCard | None = None
    curve: tuple[EpochCard, ...]
    example_steps: int = Field(ge=0)
    forward_examples: int = Field(ge=0)
    seconds: float
    diverged: str | None = None
    warnings: tuple[str, ...] = ()
    peft: PeftForm
    environment: dict[str, str]
    created: str
    files: dict[str, str] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """All that later code relies on, whoever wrote the card. `ValueError` becomes one sentence."""
        check_id(self.id)
        if self.refit_of is not None:
            check_id(self.refit_of)
        if (self.prompt_kind is None) != (self.prompt_length == 0):
            raise ValueError(f"a prompt of kind {self.prompt_kind} and length {self.prompt_length}")
        if self.options.max_length > _MOST_TOKENS:
            raise ValueError(f"a max_length of more than {_MOST_TOKENS} tokens")
        self._check_scores()
        self._check_labels()
        for name, checksum in self.files.items():
            if re.fullmatch(r"[\w-][\w.-]*", name) is None:
                raise ValueError(f"names a file outside its folder, {name[:80]!r}")
            if _SHA256.fullmatch(checksum) is None:
                raise ValueError(f"the checksum of {name[:80]} is not a SHA-256")
        return self

    def _check_scores(self) -> None:
        for name in (self.task.metric, "loss"):
            if name not in self.validation:
                raise ValueError(f"the validation scores lack {name}")
        if self.test is not None and self.task.metric not in self.test.scores:
            raise ValueError(f"the test scores lack {self.task.metric}")

    def _check_labels(self) -> None:
        kind = self.task.kind
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("a label is there twice")
        if kind.names_labels and not self.labels:
            raise ValueError(f"a task of kind {kind} needs labels")
        if kind.classifies and self.task.positive is not None and self.task.positive not in self.labels:
            raise ValueError(f"the positive class {self.task.positive[:80]!r} is not among the labels")
        if (kind == Kind.MULTI_LABEL) != isinstance(self.threshold, tuple):
            raise ValueError(f"a task of kind {kind} with the threshold {str(self.threshold)[:80]}")
        if isinstance(self.threshold, tuple) and len(self.threshold) != len(self.labels):
            raise ValueError(f"{len(self.threshold)} thresholds for {len(self.labels)} labels")
        if isinstance(self.threshold, tuple) and not all(0 <= value <= 1 for value in self.threshold):
            raise ValueError("a threshold that is not a probability")
        if kind.reads_tokens != (self.readout == "token"):
            raise ValueError(f"readout {self.readout} does not go with kind {kind}")
        if self.readout == "compare" and len(self.task.segments) != 2:
            raise ValueError("readout compare does not go with texts that are not pairs")

    @property
    def outputs(self) -> int:
        """How many outputs the head has."""
        return self.task.kind.outputs(len(self.labels))

    @property
    def score(self) -> float:
        """The task's metric on the validation part."""
        return self.validation[self.task.metric]

    @property
    def is_judged(self) -> bool:
        """Whether the validation scores are of examples that had not been trained on."""
        return not self.validation_seen or self.refit_of is not None

    @property
    def work(self) -> float:
        """The cost of the training in examples trained; a forward pass counts a third."""
        return self.example_steps + self.forward_examples / 3

    def write(self, folder: Path) -> None:
        """Write or replace the card of a folder, whole or not at all."""
        staging = folder / f".{CARD_NAME}.{os.getpid()}"
        try:
            content = (self.model_dump_json(indent=2) + "\n").encode()
        except (PydanticSerializationError, UnicodeError) as error:
            raise PandaError(f"{self.id} cannot be kept: a name in it is not valid Unicode ({error}).") from error
        if len(content) > MOST_BYTES:
            raise PandaError(f"{self.id} cannot be kept: its card has more than {MOST_BYTES // 1_000_000} MB.")
        try:
            staging.write_bytes(content)
            sync(staging)
            staging.replace(folder / CARD_NAME)
            sync(folder)
        except BaseException:
            staging.unlink(missing_ok=True)
            raise

    @classmethod
    def read(cls, folder: Path) -> Card:
        """Read the card of a folder. Raises PandaError if there is none, or one that cannot be read."""
        path = folder / CARD_NAME
        try:
            content = read_object(path)
        except FileNotFoundError as error:
            raise PandaError(
                f"{folder} is not a prompt of promptpanda: it has no {CARD_NAME} (a foreign PEFT prompt brings no "
                "head; it can be a --source)."
            ) from error
        if content.get("format") != FORMAT:
            raise PandaError(
                f"{path} has format {str(content.get('format'))[:80]}, this version reads format {FORMAT}; use the "
                "promptpanda version that wrote it."
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            where, message, _ = _first(error)
            raise PandaError(f"{path} is damaged ({where}: {message}); train the prompt again.") from error


def _first(error: ValidationError) -> tuple[str, str, str]:
    """Where the first fault is, what it is, and the value, each short enough for a sentence."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "card"
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    return where[:80], (message[:1].lower() + message[1:])[:200], str(first["input"])[:40]


def environment(backbone: Backbone) -> dict[str, str]:
    """Versions and settings that results depend on."""
    import torch
    import transformers

    return {
        "promptpanda": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": str(backbone.device),
        "threads": str(torch.get_num_threads()),
    }

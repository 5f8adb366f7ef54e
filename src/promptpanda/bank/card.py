"""The card of a trained prompt: everything about it that is not a tensor."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from promptpanda.errors import PandaError
from promptpanda.names import HeadReadout, PromptKind
from promptpanda.tasks.protocol import Protocol
from promptpanda.tasks.spec import TaskSpec
from promptpanda.training.options import TrainingOptions
from promptpanda.version import __version__

if TYPE_CHECKING:
    from promptpanda.backbone import Backbone

FORMAT = 1
CARD_NAME = "card.json"
CONFIG_NAME = "adapter_config.json"  # of PEFT

PeftForm = Literal["SEQ_CLS", "FEATURE_EXTRACTION", "unsupported"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BackboneCard(_Frozen):
    """Which frozen model a prompt belongs to."""

    name: str
    revision: str | None
    family: str
    fingerprint: str

    @classmethod
    def of(cls, backbone: Backbone) -> BackboneCard:
        return cls(
            name=backbone.name,
            revision=backbone.revision,
            family=backbone.family,
            fingerprint=backbone.fingerprint,
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
    n_test: int
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
        series: the same without the seed: prompts of one series differ in their seed alone.
        labels: names of classes or tags in the order of the head's outputs; empty for the other kinds.
        prompt_kind, prompt_length: None and 0 for baselines, which train no prompt.
        weights_kept: whether what was trained is in the folder; a tuned model is not.
        threshold: of "no answer", chosen on the validation part; None where every question has an answer.
        validation: metrics on the validation part, and the mean task `loss`.
        validation_seen: whether all validation examples were trained on too (a refit), so that their score says little.
        test: None where no test data was read.
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
    prompt_length: int
    readout: HeadReadout
    weights_kept: bool = True
    threshold: float | None = None
    options: TrainingOptions
    protocol: Protocol
    seed: int
    n_train: int
    n_val: int
    data_fingerprint: str
    validation: dict[str, float]
    validation_seen: bool = False
    test: TestCard | None = None
    curve: tuple[EpochCard, ...]
    example_steps: int
    forward_examples: int
    seconds: float
    diverged: str | None = None
    warnings: tuple[str, ...] = ()
    peft: PeftForm
    environment: dict[str, str]
    created: str
    files: dict[str, str] = {}

    @property
    def score(self) -> float:
        """The task's metric on the validation part."""
        return self.validation[self.task.metric]

    @property
    def work(self) -> float:
        """What the training took, in examples trained; a forward pass counts a third (contract: cost)."""
        return self.example_steps + self.forward_examples / 3

    def write(self, folder: Path) -> None:
        """Write or replace the card of a folder, whole or not at all."""
        staging = folder / f".{CARD_NAME}.{os.getpid()}"
        try:
            staging.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
            staging.replace(folder / CARD_NAME)
        except BaseException:
            staging.unlink(missing_ok=True)
            raise

    @classmethod
    def read(cls, folder: Path) -> Card:
        """Raises PandaError if the folder has no card, or one that cannot be read."""
        path = folder / CARD_NAME
        try:
            content: Any = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise PandaError(
                f"{folder} is not a prompt of promptpanda: it has no {CARD_NAME} (a foreign PEFT prompt brings no "
                "head; it can be a --source)."
            ) from error
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise PandaError(
                f"{path} is damaged (not valid JSON); remove the folder and train the prompt again."
            ) from error
        if isinstance(content, dict) and content.get("format") != FORMAT:
            raise PandaError(
                f"{path} has format {content.get('format')!r}, this version reads format {FORMAT}; use the promptpanda "
                "version that wrote it."
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise PandaError(f"{path} is damaged ({where}: {first['msg'].lower()}); train the prompt again.") from error


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

"""Transferability estimators, one registry entry each: scores of (source prompt, target) before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Protocol

import torch.nn.functional as F
from torch import Tensor

from promptpanda.backbone import Backbone
from promptpanda.bank.folder import SourcePrompt
from promptpanda.bank.signature import EXAMPLES, Signature
from promptpanda.errors import PandaError
from promptpanda.tasks.encoding import Encoded

DEFAULT_ESTIMATOR = "cosine"

Side = Literal["source", "own"]


class IncomparableError(PandaError):
    """An estimator has nothing to say of this source and this target."""


@dataclass
class TargetView:
    """The target as estimators see it.

    Attributes:
        texts: training texts of the target; labels are not looked at.
        own: the signature of a prompt trained on the target, where there is one.
    """

    backbone: Backbone
    texts: Encoded
    own: Signature | None = None
    _under: dict[tuple[str, int], Signature] = field(default_factory=dict, repr=False)

    def seen(self, side: Side, source: SourcePrompt, examples: int = EXAMPLES) -> Signature:
        """The target's texts under a source's prompt (forward passes, once a prompt), or under a prompt of its own."""
        if side == "own":
            if self.own is None:
                raise PandaError("This estimator needs a prompt trained on the target; say --with-target-prompt.")
            return self.own
        key = (source.checksum, examples)
        if key not in self._under:
            self._under[key] = Signature.of(self.backbone, source.prompt, self.texts, examples=examples)
        return self._under[key]


class Estimator(Protocol):
    """Predicts how well a source prompt will serve a target, from the source's stored signature."""

    @property
    def reference(self) -> str:
        """Where it comes from."""

    @property
    def needs_target_prompt(self) -> bool:
        """Whether it needs a prompt trained on the target; else the target's texts are enough."""

    def score(self, source: SourcePrompt, target: TargetView) -> float:
        """Higher is better; at most 1. Raises PandaError if the source has no signature."""


@dataclass(frozen=True)
class Cosine:
    """PANDA's metric: cosine of two task embeddings. What the paper leaves open are options.

    Attributes:
        layer: whose hidden states; 0 the embeddings, -1 the last layer.
        pooling: over tokens: `mean`, or `first` position.
        examples: at most so many texts of the target (a source's signature has up to 100).
        prompt: under which prompt the target's texts are seen: the `source`'s, or one of their `own`.
    """

    layer: int = -1
    pooling: Literal["mean", "first"] = "mean"
    examples: int = EXAMPLES
    prompt: Side = "source"
    reference: ClassVar[str] = "PANDA, arXiv 2208.10160"

    @property
    def needs_target_prompt(self) -> bool:
        return self.prompt == "own"

    def score(self, source: SourcePrompt, target: TargetView) -> float:
        ours, theirs = _signature(source), target.seen(self.prompt, source, self.examples)
        return _similarity(
            ours.task_embedding(self.layer, self.pooling), theirs.task_embedding(self.layer, self.pooling)
        )


@dataclass(frozen=True)
class ActivatedNeurons:
    """ON: cosine of the binary vectors of neurons that are active at the first position.

    Attributes:
        prompt: as in `Cosine`.
    """

    prompt: Side = "source"
    reference: ClassVar[str] = "Su et al., arXiv 2111.06719"

    @property
    def needs_target_prompt(self) -> bool:
        return self.prompt == "own"

    def score(self, source: SourcePrompt, target: TargetView) -> float:
        ours, theirs = _signature(source), target.seen(self.prompt, source)
        return _similarity(ours.activated_neurons, theirs.activated_neurons)


@dataclass(frozen=True)
class AveragePrompt:
    """E_avg: cosine of the two prompts, each averaged over its virtual tokens."""

    reference: ClassVar[str] = "SPoT, arXiv 2110.07904"
    needs_target_prompt: ClassVar[bool] = True

    def score(self, source: SourcePrompt, target: TargetView) -> float:
        ours, theirs = _signature(source).pooled_prompt, target.seen("own", source).pooled_prompt
        if ours.shape != theirs.shape:
            raise IncomparableError(f"E_avg compares prompts of one shape; {source.id} and the target's are of two.")
        return _similarity(ours, theirs)


def estimators(cosine: Cosine | None = None) -> dict[str, Estimator]:
    """The registry, by name as in commands and results.

    Args:
        cosine: layer, pooling and examples of PANDA's metric. `cosine` sees both sides under the source's prompt,
            `cosine_own` each side under its own; likewise `on` and `on_own`.
    """
    cosine = cosine or Cosine()
    return {
        "cosine": replace(cosine, prompt="source"),
        "on": ActivatedNeurons(),
        "cosine_own": replace(cosine, prompt="own"),
        "on_own": ActivatedNeurons(prompt="own"),
        "e_avg": AveragePrompt(),
    }


def _signature(source: SourcePrompt) -> Signature:
    if source.signature is None:
        raise PandaError(f"Source {source.id} is a foreign prompt without a signature; no estimator can score it.")
    return source.signature


def _similarity(a: Tensor, b: Tensor) -> float:
    return float(F.cosine_similarity(a.double(), b.double(), dim=0).clamp(-1.0, 1.0))

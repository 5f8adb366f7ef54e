"""Estimators that compare two signatures: how the model sees the source's texts and the target's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from promptpanda.errors import PandaError
from promptpanda.names import SIGNATURE_EXAMPLES
from promptpanda.transfers.estimators.base import Estimator, IncomparableError, Needs, Side

if TYPE_CHECKING:
    from torch import Tensor

    from promptpanda.bank.folder import SourcePrompt
    from promptpanda.bank.signature import Signature
    from promptpanda.transfers.estimators.target import TargetFeatures


@dataclass(frozen=True)
class Cosine(Estimator):
    """PANDA's metric: cosine of two task embeddings. What the paper leaves open are options. At most 1.

    Attributes:
        layer: whose hidden states; 0 the embeddings, -1 the last layer.
        pooling: over tokens: `mean`, or `first` position.
        examples: at most so many texts of the target (a source's signature has up to 100).
        prompt: under which prompt the target's texts are seen: the `source`'s, or one of their `own`.
    """

    layer: int = -1
    pooling: Literal["mean", "first"] = "mean"
    examples: int = SIGNATURE_EXAMPLES
    prompt: Side = "source"
    reference: ClassVar[str] = "PANDA, arXiv 2208.10160"

    @property
    def needs(self) -> Needs:
        return "target_prompt" if self.prompt == "own" else "examples"

    def score(self, source: SourcePrompt | None, target: TargetFeatures) -> float:
        known, ours = _signature(source, of_own_texts=self.prompt == "source")
        theirs = target.signature_under(self.prompt, known, self.examples)
        return _similarity(
            ours.task_embedding(self.layer, self.pooling), theirs.task_embedding(self.layer, self.pooling)
        )


@dataclass(frozen=True)
class ActivatedNeurons(Estimator):
    """ON: cosine of the binary vectors of neurons that are active at the first position.

    Attributes:
        prompt: as in `Cosine`.
    """

    prompt: Side = "source"
    reference: ClassVar[str] = "Su et al., arXiv 2111.06719"

    @property
    def needs(self) -> Needs:
        return "target_prompt" if self.prompt == "own" else "examples"

    def score(self, source: SourcePrompt | None, target: TargetFeatures) -> float:
        known, ours = _signature(source, of_own_texts=self.prompt == "source")
        theirs = target.signature_under(self.prompt, known)
        if ours.activated_neurons is None or theirs.activated_neurons is None:
            raise IncomparableError(
                f"The model does not expose the neurons of every layer, so they cannot compare {known.id} with the "
                "target; take another estimator, such as cosine."
            )
        return _similarity(ours.activated_neurons, theirs.activated_neurons)


@dataclass(frozen=True)
class AveragePrompt(Estimator):
    """E_avg: cosine of the two prompts, each averaged over its virtual tokens."""

    reference: ClassVar[str] = "SPoT, arXiv 2110.07904"
    needs: ClassVar[Needs] = "target_prompt"

    def score(self, source: SourcePrompt | None, target: TargetFeatures) -> float:
        known, ours = _signature(source)
        theirs = target.signature_under("own", known)
        if ours.pooled_prompt.shape != theirs.pooled_prompt.shape:
            raise IncomparableError(f"E_avg compares prompts of one shape; {known.id} and the target's are of two.")
        return _similarity(ours.pooled_prompt, theirs.pooled_prompt)


def _signature(source: SourcePrompt | None, *, of_own_texts: bool = False) -> tuple[SourcePrompt, Signature]:
    """A source and its signature.

    Args:
        of_own_texts: whether it must be of the source's own texts: against the target's, under the same prompt, that of
            the target's texts is always the same.
    """
    if source is None:
        raise IncomparableError("No prompt has no signature to compare.")
    if source.signature is None:
        raise PandaError(f"Source {source.id} is a foreign prompt without a signature; no estimator can score it.")
    if of_own_texts and source.borrowed:
        raise IncomparableError(f"Source {source.id} is a foreign prompt without texts to compare with the target's.")
    return source, source.signature


def _similarity(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        raise IncomparableError(f"Signatures of shapes {tuple(a.shape)} and {tuple(b.shape)} cannot be compared.")
    from torch.nn.functional import cosine_similarity

    found = float(cosine_similarity(a.double(), b.double(), dim=0).clamp(-1.0, 1.0))
    if not math.isfinite(found):
        raise IncomparableError("Under this prompt the model's hidden states are not finite.")
    return found

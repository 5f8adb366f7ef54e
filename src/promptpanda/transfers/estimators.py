"""Transferability estimators, one registry entry each: scores of (source prompt, target) before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from promptpanda.backbone import Backbone
from promptpanda.bank.folder import SourcePrompt
from promptpanda.bank.signature import Signature
from promptpanda.errors import PandaError, suggest
from promptpanda.prompts.prompt import Prompt
from promptpanda.tasks.encoding import Encoded


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
    _under: dict[str, Signature] = field(default_factory=dict, repr=False)

    def under(self, checksum: str, prompt: Prompt) -> Signature:
        """How the model sees the target's texts under a prompt; computed once a prompt."""
        if checksum not in self._under:
            self._under[checksum] = Signature.of(self.backbone, prompt, self.texts)
        return self._under[checksum]


@dataclass(frozen=True)
class Estimator:
    """Predicts how well a source prompt will serve a target.

    Attributes:
        name: as in commands and results.
        reference: where it comes from.
        needs: in words: the bank alone, the target's examples, or a prompt trained on the target.
        needs_target_prompt: whether `TargetView.own` must be there.
    """

    name: str
    reference: str
    needs: str
    needs_target_prompt: bool
    compare: Callable[[SourcePrompt, Signature, TargetView], float]

    def score(self, source: SourcePrompt, target: TargetView) -> float:
        """Higher is better; at most 1. Raises PandaError if the source has no signature."""
        if source.signature is None:
            raise PandaError(
                f"Source {source.id} is a foreign prompt without a signature; {self.name} cannot score it."
            )
        return self.compare(source, source.signature, target)


def _own(target: TargetView) -> Signature:
    if target.own is None:
        raise PandaError("This estimator needs a prompt trained on the target; say --with-target-prompt.")
    return target.own


def _similarity(a: Tensor, b: Tensor) -> float:
    return float(F.cosine_similarity(a.double(), b.double(), dim=0).clamp(-1.0, 1.0))


def _binary(neurons: Tensor) -> Tensor:
    return neurons.to(torch.float64)


def _cosine(source: SourcePrompt, signature: Signature, target: TargetView) -> float:
    return _similarity(signature.mean_embedding, target.under(source.checksum, source.prompt).mean_embedding)


def _cosine_first(source: SourcePrompt, signature: Signature, target: TargetView) -> float:
    return _similarity(signature.first_embedding, target.under(source.checksum, source.prompt).first_embedding)


def _cosine_own(source: SourcePrompt, signature: Signature, target: TargetView) -> float:
    return _similarity(signature.mean_embedding, _own(target).mean_embedding)


def _on(source: SourcePrompt, signature: Signature, target: TargetView) -> float:
    under = target.under(source.checksum, source.prompt)
    return _similarity(_binary(signature.activated_neurons), _binary(under.activated_neurons))


def _on_own(source: SourcePrompt, signature: Signature, target: TargetView) -> float:
    return _similarity(_binary(signature.activated_neurons), _binary(_own(target).activated_neurons))


def _e_avg(source: SourcePrompt, signature: Signature, target: TargetView) -> float:
    own = _own(target).pooled_prompt
    if own.shape != signature.pooled_prompt.shape:
        raise PandaError(f"E_avg compares prompts of one kind; {source.id} and the target's prompt are of two.")
    return _similarity(signature.pooled_prompt, own)


_PANDA = "PANDA, arXiv 2208.10160"
_ON = "Su et al., arXiv 2111.06719"
_EXAMPLES = "the target's examples"
_TARGET_PROMPT = "a prompt trained on the target"

DEFAULT_ESTIMATOR = "cosine"

# PANDA's metric leaves open which prompt encodes which side and how tokens are pooled; each choice has its entry.
ESTIMATORS: dict[str, Estimator] = {
    estimator.name: estimator
    for estimator in (
        Estimator(
            "cosine", f"{_PANDA}; both sides under the source's prompt, mean of tokens", _EXAMPLES, False, _cosine
        ),
        Estimator("cosine_first", f"{_PANDA}; as cosine, first position", _EXAMPLES, False, _cosine_first),
        Estimator("on", f"{_ON}; both sides under the source's prompt", _EXAMPLES, False, _on),
        Estimator("cosine_own", f"{_PANDA}; each side under its own prompt", _TARGET_PROMPT, True, _cosine_own),
        Estimator("on_own", f"{_ON}; each side under its own prompt", _TARGET_PROMPT, True, _on_own),
        Estimator("e_avg", "SPoT, arXiv 2110.07904", _TARGET_PROMPT, True, _e_avg),
    )
}


def check_estimator(name: str) -> Estimator:
    """The estimator of that name. Raises PandaError for an unknown one."""
    if name not in ESTIMATORS:
        raise PandaError(f"No estimator '{name}'; known are {', '.join(ESTIMATORS)}.{suggest(name, ESTIMATORS)}")
    return ESTIMATORS[name]

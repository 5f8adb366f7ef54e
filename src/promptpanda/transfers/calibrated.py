"""A prompt whose probabilities are scaled by the temperature of its card, with the predictions that it has."""

from __future__ import annotations

from dataclasses import replace

from scipy.special import expit, logit

from promptpanda.bank.folder import TrainedPrompt
from promptpanda.errors import PandaError
from promptpanda.training.objectives.objective import Threshold


def calibrated(trained: TrainedPrompt) -> TrainedPrompt:
    """The same prompt with its head divided by the temperature, in memory alone.

    Raises:
        PandaError: its card has no temperature.
    """
    card = trained.card
    if card.temperature is None:
        raise PandaError(
            f"{card.id} has no temperature to calibrate by: values have none, and an older prompt gets one from `panda "
            f"evaluate {card.id}` where its training data still is; leave --calibrated out."
        )
    head = trained.head
    bias = None if head.bias is None else head.bias / card.temperature
    scaled = replace(head, weight=head.weight / card.temperature, bias=bias)
    threshold = _scaled(card.threshold, card.temperature)
    return replace(trained, head=scaled, card=card.model_copy(update={"threshold": threshold, "temperature": None}))


def _scaled(threshold: Threshold | None, temperature: float) -> Threshold | None:
    """The thresholds that give the same predictions of scaled outputs."""
    if threshold is None:
        return None
    if isinstance(threshold, tuple):  # of labels: probabilities, whose logits are scaled
        return tuple(map(float, expit(logit(threshold) / temperature)))
    return threshold / temperature  # of "no answer": a difference of outputs

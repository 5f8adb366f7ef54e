"""A prompt whose probabilities are scaled by the temperature of its card, with the predictions that it has."""

from __future__ import annotations

from dataclasses import replace

from scipy.special import expit, logit

from promptpanda.bank.folder import TrainedPrompt
from promptpanda.errors import PandaError
from promptpanda.files import digest


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
    if isinstance(card.threshold, tuple):  # of several labels: probabilities
        threshold = tuple(float(expit(logit(one) / card.temperature)) for one in card.threshold)
    else:  # of "no answer": a difference of outputs, which are all scaled
        threshold = None if card.threshold is None else card.threshold / card.temperature
    # Whoever keeps answers by run must not take these for the others.
    run = digest([card.run, "calibrated", card.temperature])
    changes = {"threshold": threshold, "temperature": None, "run": run}
    return replace(trained, head=scaled, card=card.model_copy(update=changes))

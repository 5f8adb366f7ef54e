"""A prompt whose probabilities are scaled by the temperature of its card, with the predictions that it has."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from promptpanda.bank.card import Card
from promptpanda.errors import PandaError
from promptpanda.files import digest

if TYPE_CHECKING:
    from promptpanda.bank.folder import TrainedPrompt
    from promptpanda.training.objectives.objective import Threshold


def calibrated(trained: TrainedPrompt) -> TrainedPrompt:
    """The same prompt with its head divided by the temperature, in memory alone.

    Raises:
        PandaError: its card has no temperature.
    """
    from scipy.special import expit, logit

    card = trained.card
    temperature = check_temperature(card)
    head = trained.head
    bias = None if head.bias is None else head.bias / temperature
    scaled = replace(head, weight=head.weight / temperature, bias=bias)
    threshold: Threshold | None
    if isinstance(card.threshold, tuple):  # of several labels: probabilities
        threshold = tuple(float(expit(logit(one) / temperature)) for one in card.threshold)
    else:  # of "no answer": a difference of outputs, which are all scaled
        threshold = None if card.threshold is None else card.threshold / temperature
    # Whoever keeps answers by run must not take these for the others.
    run = digest([card.run, "calibrated", temperature])
    changes = {"threshold": threshold, "temperature": None, "run": run}
    return replace(trained, head=scaled, card=card.model_copy(update=changes))


def check_temperature(card: Card) -> float:
    """The temperature of a card. Raises PandaError if it has none."""
    if card.temperature is None:
        raise PandaError(
            f"{card.id} has no temperature to calibrate by: regressions have none, and an older prompt gets one from "
            f"`panda evaluate {card.id}` if its training data is still there; leave --calibrated out."
        )
    return card.temperature

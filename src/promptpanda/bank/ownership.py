"""Which backbone a prompt belongs to."""

from __future__ import annotations

from typing import Protocol

from promptpanda.backbone import Backbone
from promptpanda.bank.card import Card
from promptpanda.errors import PandaError
from promptpanda.names import NumberFormat


class Known(Protocol):
    """What is kept of the backbone that a prompt was trained on."""

    @property
    def family(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def weights(self) -> str | None: ...
    @property
    def precision(self) -> NumberFormat: ...


def weights_alone_match(known: Known, backbone: Backbone) -> bool:
    """Whether an old card tells of the backbone's weights, and nothing tells whether config and tokenizer are its."""
    return known.weights is None and known.fingerprint == backbone.weights_fingerprint


def is_owner(known: Known, backbone: Backbone) -> bool:
    """Whether what a prompt was trained on is this backbone, or the same model in another number format."""
    return known.fingerprint == backbone.fingerprint or in_another_format(known, backbone)


def in_another_format(known: Known, backbone: Backbone) -> bool:
    """Whether it is the same model in another number format."""
    if known.fingerprint == backbone.fingerprint or known.family != backbone.family:
        return False
    return known.fingerprint == backbone.fingerprint_in(known.precision)


def moved(card: Card, backbone: Backbone) -> str | None:
    """A note on a prompt that was trained on the same model in another number format; None of all others."""
    known = card.backbone
    if not in_another_format(known, backbone):
        return None
    return (
        f"Prompt {card.id} was trained on {known.name} in {known.precision} and is used in {backbone.precision}; "
        "its scores may differ a little from those on its card."
    )


def check_owner(card: Card, backbone: Backbone) -> None:
    """Raises PandaError if a prompt belongs to another backbone, or if that cannot be told."""
    if is_owner(card.backbone, backbone):
        return
    if weights_alone_match(card.backbone, backbone):
        raise PandaError(
            f"Prompt {card.id} was kept by a version that compared weights alone: it has those of {backbone.name}, but "
            "its config and tokenizer are not known; if it was trained on this very model, accept it with "
            f"`panda bank adopt {card.id} --model {backbone.name}`."
        )
    if card.backbone.weights == backbone.weights_fingerprint:
        raise PandaError(
            f"Prompt {card.id} was trained on {card.backbone.name}, which has the weights of {backbone.name} but "
            "another config or tokenizer; give the model that it was trained on (--model), or train it again."
        )
    raise PandaError(
        f"Prompt {card.id} was trained on {card.backbone.name} (fingerprint {card.backbone.fingerprint[:8]}), not on "
        f"{backbone.name} (fingerprint {backbone.fingerprint[:8]}); give --model {card.backbone.name}."
    )

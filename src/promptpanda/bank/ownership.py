"""Which backbone a prompt belongs to, and how prompts of versions that compared weights alone are accepted."""

from __future__ import annotations

from collections.abc import Sequence

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank
from promptpanda.bank.card import BackboneCard, Card
from promptpanda.errors import PandaError


def weights_alone_match(card: Card, backbone: Backbone) -> bool:
    """Whether an old card tells of the backbone's weights, and nothing tells whether config and tokenizer are its."""
    return card.backbone.weights is None and card.backbone.fingerprint == backbone.weights_fingerprint


def check_owner(card: Card, backbone: Backbone) -> None:
    """Raises PandaError if a prompt belongs to another backbone, or if that cannot be told."""
    if card.backbone.fingerprint == backbone.fingerprint:
        return
    if weights_alone_match(card, backbone):
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


def check_adoptable(bank: Bank, prompt_ids: Sequence[str], backbone: Backbone) -> None:
    """Raises PandaError unless all these prompts are sound, and are the backbone's as far as their cards tell."""
    for prompt_id in prompt_ids:
        bank.verify(prompt_id)
        card = Card.read(bank.path(prompt_id))
        if not weights_alone_match(card, backbone):
            check_owner(card, backbone)


def adopt(bank: Bank, prompt_id: str, backbone: Backbone) -> bool:
    """Make an old prompt the backbone's, on the word of who calls: its card is rewritten, whole or not at all.

    Returns:
        False if it was the backbone's already; nothing is written then.

    Raises:
        PandaError: it is damaged, or of another model.
    """
    check_adoptable(bank, [prompt_id], backbone)
    folder = bank.path(prompt_id)
    card = Card.read(folder)
    if not weights_alone_match(card, backbone):
        return False
    known = {"fingerprint": backbone.fingerprint, "weights": backbone.weights_fingerprint}
    owner = BackboneCard.model_validate(card.backbone.model_dump() | known)
    card.model_copy(update={"backbone": owner}).write(folder)
    return True

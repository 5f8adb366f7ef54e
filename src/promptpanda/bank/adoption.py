"""How prompts of versions that compared weights alone are accepted, on the word of who calls."""

from __future__ import annotations

from collections.abc import Sequence

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank
from promptpanda.bank.card import BackboneCard, Card
from promptpanda.bank.ownership import check_owner, weights_alone_match


def check_adoptable(bank: Bank, prompt_ids: Sequence[str], backbone: Backbone) -> None:
    """Raises PandaError unless all these prompts are sound, and are the backbone's as far as their cards tell."""
    for prompt_id in prompt_ids:
        bank.verify(prompt_id)
        card = Card.read(bank.path(prompt_id))
        if not weights_alone_match(card.backbone, backbone):
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
    if not weights_alone_match(card.backbone, backbone):
        return False
    known = {"fingerprint": backbone.fingerprint, "weights": backbone.weights_fingerprint}
    owner = BackboneCard.model_validate(card.backbone.model_dump() | known)
    card.model_copy(update={"backbone": owner}).write(folder)
    return True

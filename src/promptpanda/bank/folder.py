"""One prompt, one folder: written whole or not at all, checked when it is read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from promptpanda.backbone import Backbone
from promptpanda.bank import peft_format
from promptpanda.bank.card import Card
from promptpanda.bank.layout import CARD_NAME, CONFIG_NAME, SIGNATURE_NAME
from promptpanda.bank.ownership import check_owner
from promptpanda.bank.seen_texts import SEEN_NAME, OtherVersionError, SeenTexts
from promptpanda.bank.signature import POOLINGS, Signature
from promptpanda.bank.tensors import check_shapes, read_tensors
from promptpanda.errors import PandaError
from promptpanda.files import sha256_file, whole_folder
from promptpanda.prompts.prompt import Prompt
from promptpanda.tasks.spec import TaskSpec
from promptpanda.training.heads import Head, width_of

_HEAD_NAME = "head.safetensors"
PARTS = frozenset({_HEAD_NAME, SIGNATURE_NAME, SEEN_NAME, CONFIG_NAME, peft_format.WEIGHTS_NAME})
"""The files that a prompt's folder can have beside its card."""


@dataclass(frozen=True)
class TrainedPrompt:
    """A trained prompt with everything that belongs to it: what `train` returns and a bank holds.

    Attributes:
        prompt: the trained prompt; None for baselines, which have a head only.
        head: the classifier on top of the model. A transfer takes the prompt of its source, never the head.
        signature: what estimators need to know about the prompt; None for baselines.
        card: everything else: task, settings, scores, versions. `card.id` is its id, `card.score` its validation score.
        path: its folder; None while it is not saved.
        backbone: the tuned model, if the method was model tuning (it is never saved); otherwise None.
        seen: hashes of the texts that it, and everything that it started from, was trained and validated on; None if
            that is not recorded (an older folder, a baseline).
    """

    prompt: Prompt | None
    head: Head
    signature: Signature | None
    card: Card
    path: Path | None = None
    backbone: Backbone | None = None
    seen: SeenTexts | None = None


@dataclass(frozen=True)
class SourcePrompt:
    """What a transfer takes from its source. A foreign PEFT prompt brings no signature.

    Attributes:
        id: bank id, or the path of a foreign folder.
        task: name of the task it was trained on, or the folder's name.
        checksum: SHA-256 of the file with the prompt; of a prompt that was never saved, its run.
        series: its card's; of a foreign prompt, the checksum.
        spec: of that task; None for a foreign prompt.
        seen: hashes of the texts that it saw; None if that is not recorded.
        borrowed: whether the signature was computed from the target's own texts, because a foreign prompt brings none.
            Such a signature can compare prompts, but not the source's texts with the target's.
    """

    prompt: Prompt
    id: str
    task: str
    checksum: str
    series: str
    signature: Signature | None = None
    spec: TaskSpec | None = None
    seen: SeenTexts | None = None
    borrowed: bool = False

    @classmethod
    def of(cls, trained: TrainedPrompt) -> SourcePrompt:
        card = trained.card
        if trained.prompt is None:
            raise PandaError(f"{card.id} was made by {card.method}, which trains no prompt; it cannot be a source.")
        return cls(
            trained.prompt,
            card.id,
            card.task.name,
            card.files.get(peft_format.WEIGHTS_NAME, card.run),
            card.series,
            trained.signature,
            card.task,
            trained.seen,
        )


def write_folder(trained: TrainedPrompt, target: Path, backbone: Backbone) -> Path:
    """Save a prompt as a folder; if the folder exists, it is left as it is.

    Raises:
        PandaError: it holds numbers that are not finite, so that it could not be read again.
    """
    for tensor in _numbers(trained):
        if not bool(torch.isfinite(tensor).all()):
            raise PandaError(
                f"The outcome {trained.card.id} cannot be kept: it holds numbers that are not finite; lower --lr."
            )
    form = trained.card.peft
    with whole_folder(target) as staging:
        if trained.prompt is not None and trained.signature is not None:
            adapter = peft_format.adapter_tensors(backbone, trained.prompt, trained.head, form)
            (staging / peft_format.WEIGHTS_NAME).write_bytes(save(adapter, {"format": "pt"}))
            config = peft_format.adapter_config(backbone, trained.prompt, form)
            (staging / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            signature = save(trained.signature.tensors(), trained.signature.metadata())
            (staging / SIGNATURE_NAME).write_bytes(signature)
        if trained.seen is not None:
            (staging / SEEN_NAME).write_bytes(trained.seen.saved())
        if form != "SEQ_CLS":
            head = {"weight": trained.head.weight.contiguous()}
            if trained.head.bias is not None:
                head["bias"] = trained.head.bias.contiguous()
            (staging / _HEAD_NAME).write_bytes(save(head))
        sums = {path.name: sha256_file(path) for path in sorted(staging.iterdir())}
        trained.card.model_copy(update={"files": sums}).write(staging)
    return target


def _numbers(trained: TrainedPrompt) -> list[Tensor]:
    """All tensors of numbers that are saved."""
    found = [trained.head.weight, trained.head.bias, None if trained.prompt is None else trained.prompt.tensor]
    if trained.signature is not None:
        found += [trained.signature.embeddings, trained.signature.pooled_prompt]
    return [tensor for tensor in found if tensor is not None]


def read_folder(folder: Path, backbone: Backbone) -> TrainedPrompt:
    """Load a prompt of ours. Raises PandaError if it is damaged or belongs to another backbone."""
    trained = read_contents(folder)
    card = trained.card
    check_owner(card, backbone)
    if trained.prompt is not None:
        backbone.check_prompt(trained.prompt, f"The prompt {card.id}")
    width = trained.head.weight.shape[1]
    given = width_of(card.readout, backbone.hidden_size)
    if width != given:
        raise PandaError(
            f"The head of {card.id} reads {width} numbers, but {backbone.name} gives {given}; it was "
            "changed, so remove the prompt (panda bank rm) and train it again."
        )
    backbone.check_length(card.options.max_length, card.prompt_length)
    if card.readout not in ("token", "compare"):
        backbone.resolve_readout(card.readout)
    return trained


def read_contents(folder: Path) -> TrainedPrompt:
    """Load a prompt of ours, and check all that can be checked without its backbone.

    Raises:
        PandaError: a file is missing, cut or changed, or they do not go together.
    """
    card = Card.read(folder)
    check_files(folder, card)
    if card.prompt_kind is None:
        return TrainedPrompt(None, _head(folder, card, {}), None, card, folder)
    prompt, rest = peft_format.read_adapter(folder)
    if (prompt.kind, prompt.length) != (card.prompt_kind, card.prompt_length):
        raise PandaError(
            f"The prompt in {folder} is a {prompt.kind} of {prompt.length} virtual tokens, but its card says it is a "
            f"{card.prompt_kind} of {card.prompt_length}; one of the two was changed."
        )
    head = _head(folder, card, rest)
    return TrainedPrompt(prompt, head, _signature(folder, prompt, head), card, folder, seen=_seen(folder, card))


def read_source(folder: Path, backbone: Backbone) -> SourcePrompt:
    """Load a prompt to start from: ours, or any PEFT prefix or prompt tuning folder of the same backbone."""
    if (folder / CARD_NAME).exists():
        return SourcePrompt.of(read_folder(folder, backbone))
    prompt, _ = peft_format.read_adapter(folder, backbone)
    peft_format.check_base_model(folder, backbone)
    checksum = sha256_file(folder / peft_format.WEIGHTS_NAME)
    return SourcePrompt(prompt, str(folder), folder.resolve().name, checksum, series=checksum)


def is_incomplete(folder: Path) -> bool:
    """Whether a folder holds nothing but files of a prompt, and not all of them, as an interrupted removal leaves it.

    What is damaged in another way, or holds other files, is not: that is for its owner to remove.
    """
    if folder.is_symlink() or not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir() if not path.name.startswith(f".{CARD_NAME}.")}
    if not names <= {CARD_NAME, *PARTS}:
        return False
    if CARD_NAME not in names:
        return True
    try:
        return not set(Card.read(folder).files) <= names
    except PandaError:
        return False


def check_files(folder: Path, card: Card) -> None:
    """Compare every file with its checksum in the card."""
    needed = {CONFIG_NAME, peft_format.WEIGHTS_NAME, SIGNATURE_NAME}
    unnamed = ({_HEAD_NAME} if card.prompt_kind is None else needed) - set(card.files)
    if unnamed:
        raise PandaError(
            f"The card of {folder} has no checksum of {', '.join(sorted(unnamed))}: it was changed; remove the prompt "
            "(panda bank rm) and train it again."
        )
    for name in card.files:
        _check_file(folder, card, name)


def _check_file(folder: Path, card: Card, name: str) -> None:
    path = folder / name
    if not path.is_file():
        raise PandaError(
            f"Prompt {card.id} is incomplete: {name} is missing; remove it (panda bank rm) and train it again."
        )
    if sha256_file(path) != card.files[name]:
        raise PandaError(
            f"Prompt {card.id} is damaged: {name} does not match its checksum (changed or truncated); remove it "
            "(panda bank rm) and train it again."
        )


def read_seen(folder: Path, card: Card) -> SeenTexts | None:
    """The record of a prompt's texts, without the rest of its folder; None where the card names none (an older one).

    Raises:
        OtherVersionError: it is of another version.
        PandaError: it is missing, cut or changed.
    """
    if SEEN_NAME not in card.files:
        return None
    _check_file(folder, card, SEEN_NAME)
    return SeenTexts.read(folder / SEEN_NAME)


def _seen(folder: Path, card: Card) -> SeenTexts | None:
    try:
        return read_seen(folder, card)
    except OtherVersionError:  # who compares texts tells it; the prompt itself is sound
        return None


def _head(folder: Path, card: Card, rest: dict[str, Tensor]) -> Head:
    tensors, where = {key.rsplit(".", 1)[-1]: value for key, value in rest.items()}, folder / peft_format.WEIGHTS_NAME
    if len(tensors) < len(rest):
        raise PandaError(f"{where} holds more than one head; it was changed.")
    if not tensors:
        where = folder / _HEAD_NAME
        tensors, _ = read_tensors(where)
    expected: dict[str, tuple[int | None, ...]] = {"weight": (card.outputs, None), "bias": (card.outputs,)}
    if "bias" not in tensors:
        del expected["bias"]
    check_shapes(tensors, expected, where)
    return Head(tensors["weight"], tensors.get("bias"), card.readout)


def _signature(folder: Path, prompt: Prompt, head: Head) -> Signature:
    where = folder / SIGNATURE_NAME
    tensors, metadata = read_tensors(where)
    expected: dict[str, tuple[int | None, ...]] = {
        "embeddings": (None, len(POOLINGS), head.weight.shape[1] // width_of(head.readout, 1)),
        "activated_neurons": (None,),
        "pooled_prompt": (prompt.tensor.numel() // prompt.length,),
    }
    if "activated_neurons" not in tensors and "embeddings" in tensors:
        del expected["activated_neurons"]  # of a model that does not show its neurons
    check_shapes(tensors, expected, where)
    try:
        return Signature.from_tensors(tensors, metadata)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise PandaError(
            f"The header of {where} does not say how many texts it was made from; remove the prompt (panda bank rm) "
            "and train it again."
        ) from error

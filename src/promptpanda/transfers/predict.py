"""Predictions of trained prompts on rows of data: all rows under one prompt, or each under its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank, as_trained
from promptpanda.bank.folder import TrainedPrompt
from promptpanda.errors import PandaError
from promptpanda.tasks.encoding import encode
from promptpanda.tasks.inputs import Input
from promptpanda.transfers.given import Given, as_list, checked
from promptpanda.transfers.outputs import outputs_together, predictions_of

if TYPE_CHECKING:
    import pandas

_TOGETHER = 1024  # inputs that are encoded and held in memory at a time

PromptGiven = TrainedPrompt | Path | str


def predict(
    prompt: PromptGiven | Sequence[PromptGiven] | pandas.Series,
    backbone: Backbone,
    inputs: Sequence[Given] | pandas.DataFrame | pandas.Series,
    *,
    bank: Bank | Path | str | None = None,
) -> list[dict[str, Any]]:
    """Predict labels, values, tags or answers.

    Args:
        prompt: a trained prompt, its folder, or, with a bank, its id or a task's name; or a list with one of these for
            each input, of whatever tasks and kinds.
        backbone: the frozen model that it was trained on.
        inputs: what the task's template makes of rows (`read_inputs`): a string each, or a pair of strings for pairs;
            `Choices`; `Words`, or a list of words, or a string that is cut at white space; `Passage`, or a pair of
            question and context. Or whole rows, whose fields the task's template finds by name: a dictionary each, or a
            pandas frame.
        bank: the bank, or its folder, where names are looked up.

    Returns:
        A dictionary for each input, with the keys `label` and `probabilities` ({name: p}) for classes and choices,
        `labels` (a list) and `probabilities` (of each label by itself) for several labels, `value` for a regression,
        `spans` (each start, end, label and text; places in words, end exclusive) and `tags` for words, `answer`,
        `start` (place in characters, -1 for no answer), `score` and `nbest` for questions.

    Raises:
        PandaError: no such prompt; an input is empty or no text, named by its number; or outputs are not finite.
    """
    inputs = as_list(inputs)
    if isinstance(prompt, (TrainedPrompt, Path, str)):
        return list(predictions(as_trained(prompt, backbone, bank), backbone, inputs))
    prompt = as_list(prompt)
    if len(prompt) != len(inputs):
        raise PandaError(f"{len(prompt)} prompts for {len(inputs)} inputs; give one prompt for all, or one for each.")
    loaded = {one: as_trained(one, backbone, bank) for one in prompt if isinstance(one, (Path, str))}
    trained = [loaded[one] if isinstance(one, (Path, str)) else one for one in prompt]
    return predict_pairs(backbone, list(zip(trained, inputs, strict=True)))


def predictions(trained: TrainedPrompt, backbone: Backbone, inputs: Sequence[Given]) -> Iterator[dict[str, Any]]:
    """What `predict` gives, one by one: all inputs are checked first, and some hundreds are computed at a time."""
    ready = ((trained, checked(trained.card, one, number)) for number, one in enumerate(inputs, 1))
    return _by_parts(backbone, list(ready))


def predict_pairs(backbone: Backbone, pairs: Sequence[tuple[TrainedPrompt, Given]]) -> list[dict[str, Any]]:
    """Predictions of inputs that each have a prompt of their own, in order, as `predict` gives them.

    Prompts of one kind and length whose heads read the same (`Head.readout`) share their batches, whatever their tasks;
    others are computed one group after the other. Each prediction is that of its prompt alone, within rounding.

    Raises:
        PandaError: an input is empty or no text, named by its number from 1; outputs are not finite.
    """
    ready = [(trained, checked(trained.card, one, number)) for number, (trained, one) in enumerate(pairs, 1)]
    return list(_by_parts(backbone, ready))


def _by_parts(backbone: Backbone, pairs: Sequence[tuple[TrainedPrompt, Input]]) -> Iterator[dict[str, Any]]:
    for start in range(0, len(pairs), _TOGETHER):
        yield from _together(backbone, pairs[start : start + _TOGETHER])


def _together(backbone: Backbone, pairs: Sequence[tuple[TrainedPrompt, Input]]) -> list[dict[str, Any]]:
    prompts = {id(trained): trained for trained, _ in pairs}
    places: dict[int, list[int]] = {key: [] for key in prompts}
    for place, (trained, _) in enumerate(pairs):
        places[id(trained)].append(place)
    inputs = [[pairs[place][1] for place in places[key]] for key in prompts]
    encoded = [
        encode(backbone, own, trained.card.options.max_length, apart=trained.card.readout == "compare")
        for trained, own in zip(prompts.values(), inputs, strict=True)
    ]
    outputs = outputs_together(list(prompts.values()), backbone, encoded)
    found: list[dict[str, Any]] = [{}] * len(pairs)
    for trained, own, rows, values in zip(prompts.values(), inputs, encoded, outputs, strict=True):
        for place, prediction in zip(places[id(trained)], predictions_of(trained.card, values, rows, own), strict=True):
            found[place] = prediction
    return found

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
        prompt: a trained prompt, the path of its folder, or, with a bank, its id or a task's name. Or a list (or pandas
            series) with one of these for each input; they may be of different tasks and kinds.
        backbone: the frozen model that the prompts were trained on.
        inputs: one entry per input: a string; a pair of strings for pairs; `Choices` for multiple choice; `Words`, a
            list of words, or a string that is split at white space for tagging; `Passage`, or a pair of question and
            context for questions. Or whole rows that have the columns of the training data: dictionaries, or a pandas
            frame.
        bank: the bank, or the path of its folder, in which ids and task names are looked up; None, the default, allows
            paths only.

    Returns:
        A dictionary for each input, in order. Its keys depend on the kind of task:

        - classes and choices: `label`, and `probabilities` ({name: p}, adding up to 1)
        - several labels: `labels` (a list), and `probabilities` (of each label separately)
        - regression: `value`
        - tagged words: `tags`, and `spans` (each with `start`, `end`, `label` and `text`; `start` and `end` count
          words from 0, `end` is exclusive)
        - questions: `answer`, `start` (counted in characters from 0, -1 for no answer), `score` and `nbest`

    Raises:
        PandaError: there is no such prompt; an input is empty or not a text (the message names it by its number); or
            the model's outputs are not finite.
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
    """The results of `predict` one by one: all inputs are checked first, and some hundreds are computed at a time."""
    ready = ((trained, checked(trained.card, one, number)) for number, one in enumerate(inputs, 1))
    return _by_parts(backbone, list(ready))


def predict_pairs(backbone: Backbone, pairs: Sequence[tuple[TrainedPrompt, Given]]) -> list[dict[str, Any]]:
    """Predictions for inputs that each have a prompt of their own, in order, in the form of `predict`.

    Prompts of one kind and length whose heads read the same (`Head.readout`) share their batches, whatever their tasks;
    other groups are computed one after the other. Each prediction equals that of its prompt alone, up to rounding.

    Raises:
        PandaError: an input is empty or not a text, named by its number from 1; or outputs are not finite.
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

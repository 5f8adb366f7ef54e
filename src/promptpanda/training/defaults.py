"""Defaults that depend on the task: what the user leaves open is settled by its kind and the amount of data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from promptpanda.tasks.inputs import Split
from promptpanda.tasks.spec import Kind
from promptpanda.training.options import TrainingOptions

if TYPE_CHECKING:
    from promptpanda.backbone import Backbone

_STEPS = 200  # a training of the default length, if the data is neither tiny nor large
_FEWEST, _MOST = 3, 40  # epochs
_LENGTH, _LONGEST = 128, 384  # tokens


def settled(options: TrainingOptions, kind: Kind, train: Split, backbone: Backbone) -> TrainingOptions:
    """`resolved` for a training part and a backbone. Raises PandaError if it has not so many layers to train."""
    from promptpanda.tasks.encoding import token_lengths  # needs torch, and `resolved` does not

    backbone.check_depth(options.train_layers)
    lengths = np.empty(0) if "max_length" in options.model_fields_set else token_lengths(backbone, train.texts)
    return resolved(options, kind, len(train), positions=backbone.positions, lengths=lengths)


def resolved(
    options: TrainingOptions,
    kind: Kind,
    n_train: int,
    *,
    positions: int | None = None,
    lengths: np.ndarray | None = None,
) -> TrainingOptions:
    """The options with epochs and max length settled, where they were not given.

    Args:
        n_train: examples that are trained on; epochs make up about 200 steps of them, within 3 to 40.
        positions: how many the backbone has; max length and prompt stay within them.
        lengths: tokens of the rows. Max length is 128, or what holds 95 % of longer ones, up to 384; windows over the
            contexts of questions have 384.
    """
    values: dict[str, int] = {}
    if "epochs" not in options.model_fields_set:
        steps = -(-n_train // options.batch_size)
        values["epochs"] = min(max(round(_STEPS / steps), _FEWEST), _MOST)
    if "max_length" not in options.model_fields_set:
        length = _LONGEST if kind == Kind.EXTRACTIVE_QA else _LENGTH
        if lengths is not None and len(lengths):
            most = int(np.ceil(np.quantile(lengths, 0.95) / 32)) * 32
            length = min(max(length, most), _LONGEST)
        if positions is not None:
            length = min(length, max(positions - options.prompt_length, 4))
        values["max_length"] = length
    return options.model_copy(update=values)


def summary(options: TrainingOptions) -> str:
    """The settings that matter most, for a line before a training."""
    rate = options.lr if isinstance(options.lr, str) else f"{options.lr:g}"
    layers = "" if options.train_layers is None else f", of which the upper {options.train_layers} layers learn"
    return (
        f"{options.epochs} epoch{'s' * (options.epochs != 1)}, lr {rate}, batch {options.batch_size}, "
        f"{options.prompt_kind} of {options.prompt_length}{layers}, max length {options.max_length}"
    )

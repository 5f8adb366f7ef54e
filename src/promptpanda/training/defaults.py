"""Defaults that depend on the task: what the user leaves open is settled by its kind and the amount of data."""

from __future__ import annotations

from promptpanda.tasks.spec import Kind
from promptpanda.training.options import TrainingOptions

_STEPS = 200  # a training of the default length, if the data is neither tiny nor large
_FEWEST, _MOST = 3, 40  # epochs
_MAX_LENGTH = {Kind.EXTRACTIVE_QA: 384}


def resolved(
    options: TrainingOptions,
    kind: Kind,
    n_train: int,
    *,
    positions: int | None = None,
    prompt_length: int | None = None,
) -> TrainingOptions:
    """The options with epochs and max length settled, where they were not given.

    Args:
        n_train: examples that are trained on; epochs make up about 200 steps of them, within 3 to 40.
        positions: how many the backbone has; max length and prompt stay within them.
    """
    values: dict[str, int] = {}
    if "epochs" not in options.model_fields_set:
        steps = -(-n_train // options.batch_size)
        values["epochs"] = min(max(round(_STEPS / steps), _FEWEST), _MOST)
    if "max_length" not in options.model_fields_set:
        length = _MAX_LENGTH.get(kind, options.max_length)
        if positions is not None:
            length = min(length, max(positions - options.prompt_length, 4))
        values["max_length"] = length
    return options.model_copy(update=values)


def told(options: TrainingOptions) -> str:
    """The settings that matter most, for a line before a training."""
    return (
        f"{options.epochs} epochs, lr {options.lr if isinstance(options.lr, str) else format(options.lr, 'g')}, batch "
        f"{options.batch_size}, {options.prompt_kind} of {options.prompt_length}, max length {options.max_length}"
    )

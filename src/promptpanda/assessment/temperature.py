"""The temperature of a prompt whose card has none: fitted on its validation part, where that can be drawn again."""

from __future__ import annotations

from pathlib import Path

from promptpanda.backbone import Backbone
from promptpanda.bank.folder import TrainedPrompt
from promptpanda.errors import PandaError
from promptpanda.files import digest
from promptpanda.tasks.encoding import encode
from promptpanda.tasks.protocol import partition
from promptpanda.tasks.task import Task
from promptpanda.training.calibration import fit_temperature
from promptpanda.training.inference import Data
from promptpanda.transfers.evaluate import with_labels_of
from promptpanda.transfers.outputs import finite_outputs, objective_of


def fitted_again(trained: TrainedPrompt, backbone: Backbone, data_dir: Path | None) -> float | None:
    """Fit a temperature on the very validation part of a training.

    None where the training data is not there any more, has changed, or the validation part was trained on too, and
    under the paper protocol, whose validation part is what is reported on.
    """
    card = trained.card
    if card.validation_seen or card.protocol != "clean":
        return None
    try:
        task = with_labels_of(card, Task(card.task, data_dir))
        part = partition(task, train_examples=card.n_train + card.n_val, seed=card.seed)
    except (PandaError, OSError):
        return None
    if digest([part.train.fingerprint, part.validation.fingerprint]) != card.data_fingerprint:
        return None
    encoded = encode(backbone, part.validation.texts, card.options.max_length, apart=card.readout == "compare")
    data = Data(encoded, part.validation, task.spec, task.labels)
    return fit_temperature(finite_outputs(trained, backbone, encoded), data, objective_of(card))

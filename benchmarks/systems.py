"""What is compared: the same examples, epochs, prompt length and batch size, trained in five ways."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from peft import PrefixTuningConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)

from promptpanda.backbone import Backbone
from promptpanda.tasks.encoding import encode
from promptpanda.tasks.inputs import Split
from promptpanda.tasks.spec import TaskSpec
from promptpanda.training.distillation import Distillation
from promptpanda.training.inference import Data, predict_outputs
from promptpanda.training.loop import Training
from promptpanda.training.objectives.kinds import objective_for
from promptpanda.training.options import TrainingOptions

PAD_TO = 128  # of the published scheme


@dataclass
class Work:
    """What every system gets.

    Attributes:
        folder: the model as transformers saves it.
        split: texts and classes.
        max_length: tokens an example is cut to.
    """

    folder: Path
    split: Split
    spec: TaskSpec
    prompt_length: int = 20
    batch_size: int = 16
    epochs: int = 2
    max_length: int = PAD_TO
    readout: str = "pooler"

    @property
    def examples(self) -> int:
        return len(self.split) * self.epochs


class Ours:
    """promptpanda, as `panda train` and `panda transfer` run it; the teacher's outputs are computed once and count."""

    def __init__(self, work: Work, teacher: bool) -> None:
        self.work, self.teacher = work, teacher
        self.backbone = Backbone.load(str(work.folder))
        encoded = encode(self.backbone, work.split.texts, work.max_length)
        self.train = Data(encoded, work.split, work.spec, work.spec.labels)
        two = work.split.take(np.arange(2))
        self.validation = Data(encode(self.backbone, two.texts, work.max_length), two, work.spec, work.spec.labels)
        self.objective = objective_for(work.spec, len(work.spec.labels))
        self.options = TrainingOptions(
            epochs=work.epochs,
            batch_size=work.batch_size,
            prompt_length=work.prompt_length,
            max_length=work.max_length,
            readout=work.readout,
        )
        self.source = self._fit(None, epochs=1, data=self.validation) if teacher else None

    def __call__(self) -> float:
        began = time.perf_counter()
        distillation = None
        if self.source is not None:
            outputs = predict_outputs(self.backbone, self.source.prompt, self.source.head, self.train.encoded)
            distillation = Distillation(torch.from_numpy(outputs).float(), 0.5)
        self._fit(distillation)
        return time.perf_counter() - began

    def _fit(self, distillation: Distillation | None, data: Data | None = None, epochs: int | None = None) -> Any:
        options = self.options if epochs is None else self.options.model_copy(update={"epochs": epochs})
        return Training(
            self.backbone,
            self.train if data is None else data,
            self.validation,
            self.objective,
            options,
            seed=0,
            distillation=distillation,
        ).run()


class Peft:
    """A user's best effort: PEFT prefix tuning with the transformers Trainer, padded to the longest of a batch.

    With `published` the scheme of the authors' code: everything padded to 128 tokens, and the teacher in train mode.
    Both have dropout on, since the Trainer puts a model in train mode, and run the teacher at every step.
    """

    def __init__(self, work: Work, teacher: bool, published: bool = False) -> None:
        self.work, self.published = work, published
        self.backbone = Backbone.load(str(work.folder))
        self.teacher = self._model() if teacher else None
        segments = list(zip(*work.split.texts, strict=True))
        encoded = self.backbone.tokenizer(
            *map(list, segments),
            truncation=True,
            max_length=PAD_TO if published else work.max_length,
            padding="max_length" if published else False,
        )
        self.rows = [
            {name: values[row] for name, values in encoded.items()} | {"labels": int(work.split.labels[row])}
            for row in range(len(work.split))
        ]

    def _model(self) -> nn.Module:
        model = AutoModelForSequenceClassification.from_pretrained(
            self.work.folder, num_labels=len(self.work.spec.labels)
        )
        config = PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=self.work.prompt_length)
        wrapped: nn.Module = get_peft_model(model, config)
        return wrapped

    def __call__(self) -> float:
        model = self._model()
        with TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder,
                num_train_epochs=self.work.epochs,
                per_device_train_batch_size=self.work.batch_size,
                learning_rate=1e-2,
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                use_cpu=not torch.cuda.is_available(),
            )
            trainer = _Distiller(
                model,
                arguments,
                train_dataset=self.rows,  # type: ignore[arg-type]
                data_collator=DataCollatorWithPadding(self.backbone.tokenizer),
            )
            trainer.remove_callback(PrinterCallback)
            trainer.teacher = self.teacher
            if self.teacher is not None:
                self.teacher.train(self.published)
            began = time.perf_counter()
            trainer.train()
            return time.perf_counter() - began


class _Distiller(Trainer):
    teacher: nn.Module | None = None

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        outputs = model(**inputs)
        loss = outputs.loss
        if self.teacher is not None:
            with torch.no_grad():
                taught = self.teacher(**inputs).logits
            loss = loss + 0.5 * nn.functional.mse_loss(outputs.logits, taught)
        return (loss, outputs) if kwargs.get("return_outputs") else loss


SYSTEMS: dict[str, Callable[[Work], Callable[[], float]]] = {
    "promptpanda, prompt tuning": lambda work: Ours(work, False),
    "promptpanda, PANDA student": lambda work: Ours(work, True),
    "PEFT + Trainer": lambda work: Peft(work, False),
    "PEFT + Trainer, teacher": lambda work: Peft(work, True),
    "published scheme": lambda work: Peft(work, False, published=True),
    "published scheme, teacher": lambda work: Peft(work, True, published=True),
}


def quiet() -> None:
    """Keep the libraries' talk out of the table."""
    from promptpanda.quiet import quiet_libraries

    quiet_libraries()
    for library in ("transformers", "peft", "accelerate"):
        logging.getLogger(library).setLevel(logging.ERROR)

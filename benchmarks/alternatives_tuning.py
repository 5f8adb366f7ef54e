"""LoRA by PEFT, and fine-tuning of all weights: a plain loop over the labelled rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from alternatives_work import Found, Seconds, Work, megabytes
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModel, get_linear_schedule_with_warmup

from promptpanda.backbone import TextBatch
from promptpanda.tasks.encoding import Layout, encode
from promptpanda.tasks.inputs import Split
from promptpanda.training.batching import sorted_batches
from promptpanda.training.inference import Data
from promptpanda.training.objectives.kinds import objective_for

LORA_RATES = (3e-4, 1e-3, 3e-3)
FULL_RATES = (3e-5, 1e-4, 3e-4)
WARM_UP = 0.1  # of the steps
DECAY = 0.01
MATRICES = r".*\.layer\.\d+\..*\.?(query|key|value|dense)"  # of BERT: of all its layers, not of its pooler


def lora(work: Work) -> Found:
    """Low-rank updates of all matrices of attention and feed-forward layers, and a head."""

    def body() -> nn.Module:
        model = AutoModel.from_pretrained(work.folder, dtype=torch.float32)
        config = LoraConfig(task_type="FEATURE_EXTRACTION", r=8, lora_alpha=16, target_modules=MATRICES)
        wrapped: nn.Module = get_peft_model(model, config)
        return wrapped

    return _tuned(work, body, LORA_RATES)


def full(work: Work) -> Found:
    """All weights."""
    return _tuned(work, lambda: AutoModel.from_pretrained(work.folder, dtype=torch.float32), FULL_RATES)


def _tuned(work: Work, body: Callable[[], nn.Module], rates: tuple[float, ...]) -> Found:
    began = Seconds.now()
    tried: dict[float, tuple[float, float]] = {}
    for rate in rates:
        model = Tuned(work, body, work.part.train)
        model.train(work.part.train, rate)
        tried[rate] = model.scores(work.part.validation)
    best = max(tried, key=lambda rate: (tried[rate][0], -tried[rate][1]))
    searched = began.passed
    model = Tuned(work, body, work.labelled)
    began = Seconds.now()
    steps = model.train(work.labelled, best)
    seconds = began.passed
    settings = {
        "rate": best,
        "epochs": work.options.epochs,
        "steps": steps,
        "validation": {f"{rate:g}": score for rate, (score, _) in tried.items()},
    }
    return Found(model.scores(work.test)[0], seconds, searched, model.megabytes(), settings)


class Tuned:
    """A model that learns, and its head."""

    def __init__(self, work: Work, body: Callable[[], nn.Module], learnt: Split) -> None:
        torch.manual_seed(work.seed)
        self._work = work
        self._objective = objective_for(work.task.spec, len(work.task.labels), learnt.labels)
        self._readout = self._objective.readout(work.backbone, "auto")
        self.body = body()
        self.head = nn.Linear(work.backbone.hidden_size, self._objective.outputs)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self._dropout = nn.Dropout(0.1)

    def train(self, split: Split, rate: float) -> int:
        """Learn from a split; the number of steps."""
        work, data = self._work, self._data(split)
        targets = self._objective.targets(data.encoded, split.labels)
        draws = np.random.default_rng(work.seed)
        size, epochs = work.options.batch_size, work.options.epochs
        learnt = [one for one in (*self.body.parameters(), *self.head.parameters()) if one.requires_grad]
        optimizer = torch.optim.AdamW(learnt, lr=rate, weight_decay=DECAY)
        steps = epochs * -(-len(split) // size)
        schedule = get_linear_schedule_with_warmup(optimizer, round(WARM_UP * steps), steps)
        self.body.train()
        self._dropout.train()
        for _ in range(epochs):
            for examples in self._objective.batches(data.encoded.lengths, targets, size, draws):
                layout = data.encoded.layout(examples)
                loss = self._objective.loss(self._outputs(data, layout), targets, layout)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(learnt, 1.0)
                optimizer.step()
                schedule.step()
        return steps

    def scores(self, split: Split) -> tuple[float, float]:
        """The task's metric, and the loss."""
        data = self._data(split)
        self.body.eval()
        self._dropout.eval()
        rows: list[np.ndarray] = [np.empty(0)] * len(data.encoded.input_ids)
        with torch.inference_mode():
            for indices in sorted_batches(data.encoded.row_lengths, 32):
                outputs = self._outputs(data, data.encoded.row_layout(indices)).numpy()
                for place, index in enumerate(indices):
                    rows[index] = outputs[place]
        outputs = _stacked(rows)
        objective = self._objective
        layout = data.encoded.layout(np.arange(len(split)))
        loss = objective.loss(torch.from_numpy(outputs), objective.targets(data.encoded, split.labels), layout)
        kept = outputs * objective.scale + objective.shift  # in the units of the labels
        predictions = objective.predictions(kept, data.encoded, split.texts)
        return self._work.score(split, predictions), float(loss)

    def megabytes(self) -> float:
        """Of what is saved for the task: the adapter or the whole model, and the head."""
        with TemporaryDirectory() as folder:
            self.body.save_pretrained(folder)  # type: ignore[operator]
            save_file({name: value.detach().clone() for name, value in self.head.state_dict().items()},
                      Path(folder) / "head.safetensors")  # fmt: skip
            return megabytes(Path(folder))

    def _data(self, split: Split) -> Data:
        work = self._work
        encoded = encode(work.backbone, split.texts, work.options.max_length)
        return Data(encoded, split, work.task.spec, work.task.labels)

    def _outputs(self, data: Data, layout: Layout) -> Tensor:
        batch: TextBatch = data.encoded.batch(layout.rows.numpy())
        inputs: dict[str, Any] = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        if batch.token_type_ids is not None:
            inputs["token_type_ids"] = batch.token_type_ids
        hidden = self.body(**inputs).last_hidden_state
        if self._readout == "token":
            assert layout.units is not None
            read = hidden.gather(1, layout.units[:, :, None].expand(-1, -1, hidden.shape[2]))
        else:
            weights = batch.attention_mask[:, :, None].to(hidden.dtype)
            read = (hidden * weights).sum(1) / weights.sum(1)
        outputs: Tensor = self.head(self._dropout(read))
        return outputs


def _stacked(rows: list[np.ndarray]) -> np.ndarray:
    """Rows of unequal numbers of units as one array, with zeros behind them."""
    if rows[0].ndim == 1:
        return np.stack(rows)
    width = max(len(row) for row in rows)
    return np.stack([np.pad(row, ((0, width - len(row)), (0, 0))) for row in rows])

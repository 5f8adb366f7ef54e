"""SetFit (arXiv 2209.11055): contrastive fine-tuning of the whole model on pairs, then a logistic regression."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from alternatives_work import Found, Seconds, Work, megabytes

from promptpanda.tasks.inputs import Split


def setfit(work: Work, *, iterations: int | None) -> Found | None:
    """SetFit on all labelled rows.

    Args:
        iterations: pairs of each sort a text; None: the default, all pairs with the rarer sort drawn again.
    """
    if not work.task.kind.classifies:
        return None
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    rows = Dataset.from_dict({"text": _texts(work, work.labelled), "label": work.labelled.labels.tolist()})
    with TemporaryDirectory() as folder:
        given: dict[str, Any] = {} if iterations is None else {"num_iterations": iterations}
        arguments = TrainingArguments(
            output_dir=folder,
            save_strategy="no",
            logging_strategy="no",
            show_progress_bar=False,
            seed=work.seed,
            **given,
        )
        model = SetFitModel.from_pretrained(str(work.folder))
        trainer = Trainer(model=model, args=arguments, train_dataset=rows)
        began = Seconds.now()
        trainer.train()
        seconds = began.passed
        predictions = np.asarray(model.predict(_texts(work, work.test), as_numpy=True, show_progress_bar=False))
        kept = Path(folder) / "kept"
        model.save_pretrained(kept)
        size = megabytes(kept)
    settings = {"iterations": iterations, "steps": int(trainer.st_trainer.state.global_step)}
    return Found(work.score(work.test, predictions.astype(np.int64)), seconds, Seconds(), size, settings)


def _texts(work: Work, split: Split) -> list[str]:
    """One text an example: SetFit knows no pairs."""
    return [f" {work.backbone.tokenizer.sep_token or ''} ".join(text) for text in split.texts]

"""The result of a transfer: every method over all seeds, what was chosen, and what it cost."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from promptpanda.bank.folder import TrainedPrompt
from promptpanda.tasks.protocol import Protocol
from promptpanda.tasks.task import Task
from promptpanda.transfers.ablation import Ablated
from promptpanda.transfers.frozen import FrozenEmbeddings
from promptpanda.transfers.overlap import LeftOut
from promptpanda.transfers.scores import OverSeeds
from promptpanda.transfers.selection import Selection

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class MethodResult(OverSeeds):
    """One method over all seeds; every tuple has one entry per seed. Scores are in the task's metric, as fractions.

    Attributes:
        outcomes: the trained prompts.
        scores: test scores; None if there is no test data.
        validation: validation scores; None if the validation part was trained on.
        seconds: wall time of the trainings over all seeds, including those of the teachers.
    """

    outcomes: tuple[TrainedPrompt, ...]
    scores: tuple[float, ...] | None
    validation: tuple[float, ...] | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            **self.scores_json(),
            "validation": None if self.validation is None else list(self.validation),
        }

    @property
    def validation_loss(self) -> float:
        return statistics.fmean(outcome.card.validation["loss"] for outcome in self.outcomes)


@dataclass(frozen=True)
class TransferResult:
    """The result of a transfer. Scores are in the task's metric, as fractions.

    Attributes:
        task: the target.
        source: the id of the first seed's source prompt; None without a source.
        protocol: `clean` or `paper`.
        n_train: examples of the training part.
        n_val: examples of the validation part.
        n_test: test examples; 0 without test data.
        seeds: the seeds, in the order of all scores.
        methods: the results of all methods, by name.
        transferability: every estimator's estimate for the source, mean over seeds.
        cost: cost per seed, in trainings (all epochs on the training part; a forward pass counts a third).
        chosen: the name of the method with the best mean validation score, or with `auto` the best mean expected score;
            ties are decided by the validation loss. Model tuning is never chosen, unless it is alone.
        prompt: the chosen method's prompt of the seed with the best validation score; with a refit, the retrained one.
        constant: the score of a constant prediction (the most frequent class of the training part, the mean, no span)
            on the test data, mean over seeds. None without test data.
        selection: what `auto` did, one entry per seed; None without `auto`.
        auto: what `auto` would have chosen on each seed alone; None without `auto`.
        ablation: the controls by name, if they were requested; otherwise None. Not part of `cost`.
        left_out: prompts that `best` and `auto` did not consider because they saw the target's rows.
        frozen_embeddings: the result of a linear model on the frozen model's embeddings for the same examples, to
            compare with. None if it is not defined for the kind of task.
    """

    task: Task
    source: str | None
    protocol: Protocol
    n_train: int
    n_val: int
    n_test: int
    seeds: tuple[int, ...]
    methods: dict[str, MethodResult]
    transferability: dict[str, float]
    cost: float
    chosen: str
    prompt: TrainedPrompt
    constant: float | None
    selection: tuple[Selection, ...] | None = None
    auto: MethodResult | None = None
    ablation: dict[str, Ablated] | None = None
    left_out: tuple[LeftOut, ...] = ()
    frozen_embeddings: FrozenEmbeddings | None = None

    def to_frame(self) -> pandas.DataFrame:
        """A pandas frame with one row per method and seed: method, seed, score, validation, prompt (its id).

        Scores that do not exist are NaN.
        """
        import pandas

        rows = [
            {
                "method": name,
                "seed": seed,
                "score": None if result.scores is None else result.scores[place],
                "validation": None if result.validation is None else result.validation[place],
                "prompt": result.outcomes[place].card.id,
            }
            for name, result in self.methods.items()
            for place, seed in enumerate(self.seeds)
        ]
        return pandas.DataFrame(rows).astype({"score": float, "validation": float})

    def to_json(self) -> dict[str, Any]:
        """The dictionary that `panda transfer --json` prints."""
        found: dict[str, Any] = {
            "target": self.task.name,
            "source": self.source,
            "protocol": self.protocol,
            "metric": self.task.spec.metric,
            "n_train": self.n_train,
            "n_val": self.n_val,
            "n_test": self.n_test,
            "seeds": list(self.seeds),
            "methods": {name: result.to_json() | {"seconds": result.seconds} for name, result in self.methods.items()},
            "transferability": self.transferability,
            "cost": self.cost,
            "chosen": self.chosen,
            "constant": self.constant,
            "frozen_embeddings": None if self.frozen_embeddings is None else self.frozen_embeddings.to_json(),
            "prompt": None if self.prompt.path is None else str(self.prompt.path),
            "left_out": [one.to_json() for one in self.left_out],
        }
        if self.selection is not None and self.auto is not None:
            seeds = [selection.to_json() for selection in self.selection]
            found["selection"] = {name: [seed[name] for seed in seeds] for name in seeds[0]}
            found["auto"] = self.auto.to_json()
        if self.ablation is not None:
            found["ablation"] = {name: one.to_json() for name, one in self.ablation.items()}
        return found

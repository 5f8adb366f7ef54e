"""What a transfer gives: every method over all seeds, what was chosen, and what it took."""

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
    """One method over all seeds; every list has one entry a seed.

    Attributes:
        outcomes: the trained prompts.
        seconds: wall time of its trainings over all seeds, those of its teachers included.
        scores: test scores, or None where there is no test data.
        validation: validation scores, or None where the validation part was trained on.
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
    """What a transfer gives.

    Attributes:
        source: of the first seed.
        chosen: the method with the best mean validation score, of `auto` with the best mean expected score; equal
            scores are decided by the validation loss. Model tuning is a line to compare with and never chosen, unless
            it is alone.
        prompt: its prompt of the seed with the best validation score; with a refit, what it was trained to again.
        constant: what a constant prediction (the most frequent class of the training part, the mean, no span) scores on
            the test data, mean over seeds; a floor to compare with. None without test data.
        transferability: mean over seeds of what each estimator predicted for the source.
        cost: trainings a seed, in units of one training of all epochs on the training part (contract: cost).
        selection: what `auto` did, one entry a seed; else None.
        auto: what it would have chosen on each seed by itself.
        ablation: the controls around the default, by name, where they were asked for; no part of `cost`.
        left_out: prompts that `best` and `auto` did not consider, since they saw the target's rows.
        frozen_embeddings: what a linear model on the frozen model's embeddings gives for the same examples; a line to
            compare with, never chosen. None where it is not defined.
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
        """One row a method and seed: method, seed, score, validation, prompt (its id); a score may be missing."""
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
        """The object that `panda transfer --json` prints (contract: command line)."""
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

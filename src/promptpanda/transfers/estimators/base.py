"""What an estimator is: a score of (source prompt, target) before the transfer is trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from promptpanda.errors import PandaError

if TYPE_CHECKING:
    from promptpanda.bank.folder import SourcePrompt
    from promptpanda.transfers.estimators.target import TargetFeatures

Side = Literal["source", "own"]
Needs = Literal["bank", "examples", "labels", "target_prompt"]


class IncomparableError(PandaError):
    """An estimator cannot compare this source with this target."""


class Estimator(ABC):
    """Predicts how well a source prompt will serve a target, before the transfer is trained.

    To write one, derive a class, set `reference` and `needs`, and implement `score`.

    Attributes:
        reference: where it was published, for tables.
        needs: what it looks at: `bank` (the cards alone), `examples` (the target's examples too), `labels` (their
            labels too), or `target_prompt` (a prompt trained on the target).
    """

    reference: ClassVar[str]

    @property
    @abstractmethod
    def needs(self) -> Needs:
        """What it looks at: `bank`, `examples`, `labels` or `target_prompt`."""

    @property
    def needs_target_prompt(self) -> bool:
        """Whether it needs a prompt trained on the target."""
        return self.needs == "target_prompt"

    @property
    def cost(self) -> Cost:
        """What it costs, for one source prompt."""
        return COSTS[self.needs]

    @abstractmethod
    def score(self, source: SourcePrompt | None, target: TargetFeatures) -> float:
        """Estimate how well a source will serve the target; higher is better.

        Args:
            source: the source prompt; None for no transfer, that is, the bare backbone.
            target: the target's examples, labels and features.

        Raises:
            IncomparableError: it cannot compare this source with this target.
            PandaError: it needs a signature that the source does not have, or a prompt trained on the target.
        """


@dataclass(frozen=True)
class Cost:
    """What estimators with the same needs cost together, for one source prompt.

    Attributes:
        words: in words; a forward pass is one over all the target's examples.
        passes: forward passes over the target's examples, for every source prompt.
        trainings: of the target, once for all source prompts.
    """

    words: str
    passes: int
    trainings: int

    def relative(self, prompts: int, examples: int, n_train: int, epochs: int) -> float:
        """The cost in units of one training of the target; a forward pass counts a third.

        Args:
            prompts: source prompts that are scored.
            examples: examples of the target that go through the model.
            n_train: examples of the training part.
            epochs: epochs of the training.
        """
        return self.trainings + prompts * self.passes * examples / 3 / (n_train * epochs)


COSTS: dict[Needs, Cost] = {
    "bank": Cost("no forward pass", 0, 0),
    "examples": Cost("one forward pass per source prompt", 1, 0),
    "labels": Cost("one forward pass per source prompt", 1, 0),
    "target_prompt": Cost("one training on the target", 0, 1),
}

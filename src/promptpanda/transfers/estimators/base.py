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
    """An estimator has nothing to say of this source and this target."""


class Estimator(ABC):
    """Predicts how well a source prompt will serve a target.

    Attributes:
        reference: where it comes from.
        needs: what it looks at: the bank's cards alone, the target's examples too, their labels too, or a prompt
            trained on the target.
    """

    reference: ClassVar[str]

    @property
    @abstractmethod
    def needs(self) -> Needs: ...

    @property
    def needs_target_prompt(self) -> bool:
        """Whether it needs a prompt trained on the target."""
        return self.needs == "target_prompt"

    @property
    def cost(self) -> Cost:
        """What it takes."""
        return COSTS[self.needs]

    @abstractmethod
    def score(self, source: SourcePrompt | None, target: TargetFeatures) -> float:
        """Higher is better.

        Args:
            source: None for no transfer: the bare backbone.

        Raises:
            IncomparableError: it can say nothing of this pair.
            PandaError: the source has no signature, or the target no prompt of its own, and it needs one.
        """


@dataclass(frozen=True)
class Cost:
    """What estimators with the same needs take together, for one source prompt.

    Attributes:
        words: for people; a forward pass is one of all the target's examples.
        passes: forward passes over the target's examples, for every source prompt.
        trainings: of the target, once for all source prompts.
    """

    words: str
    passes: int
    trainings: int

    def relative(self, prompts: int, examples: int, n_train: int, epochs: int) -> float:
        """In units of one training of the target (contract: cost; a forward pass counts a third).

        Args:
            prompts: source prompts that are scored.
            examples: of the target, that go through the model.
            n_train, epochs: of the training.
        """
        return self.trainings + prompts * self.passes * examples / 3 / (n_train * epochs)


COSTS: dict[Needs, Cost] = {
    "bank": Cost("no forward pass", 0, 0),
    "examples": Cost("one forward pass a source prompt", 1, 0),
    "labels": Cost("one forward pass a source prompt", 1, 0),
    "target_prompt": Cost("one training on the target", 0, 1),
}

"""The trivial estimator that every other must beat: do source and target look alike from outside?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from promptpanda.transfers.estimators.base import Estimator, IncomparableError, Needs

if TYPE_CHECKING:
    from promptpanda.bank.folder import SourcePrompt
    from promptpanda.transfers.estimators.target import TargetFeatures


@dataclass(frozen=True)
class SameFormat(Estimator):
    """1 where the source task has the target's kind and number of segments, else 0."""

    reference: ClassVar[str] = "trivial baseline"
    needs: ClassVar[Needs] = "bank"

    def score(self, source: SourcePrompt | None, target: TargetFeatures) -> float:
        theirs, ours = None if source is None else source.spec, target.spec
        if theirs is None or ours is None:
            raise IncomparableError("same_format compares two tasks; a foreign prompt or no prompt has none.")
        return float(theirs.kind == ours.kind and len(theirs.segments) == len(ours.segments))

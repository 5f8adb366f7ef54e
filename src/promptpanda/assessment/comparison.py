"""Which of two prompts is better on the same examples, and whether that can be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from promptpanda.assessment.bootstrap import Interval, interval
from promptpanda.assessment.evaluated import Evaluated
from promptpanda.assessment.forms.form import Form

Verdict = Literal["better", "worse", "open"]


@dataclass(frozen=True)
class McNemar:
    """McNemar's exact test (1947): of the examples that one prompt alone is right about, are there more of one's?

    Attributes:
        this, other: how many each is right about alone.
        p: two-sided probability of so uneven a split, or a more uneven one, if both are equally good.
    """

    this: int
    other: int
    p: float

    @classmethod
    def of(cls, this: np.ndarray, other: np.ndarray) -> McNemar:
        """*Shape:* (examples,) each, whether each is right."""
        from scipy.stats import binomtest

        alone, other_alone = int((this & ~other).sum()), int((other & ~this).sum())
        total = alone + other_alone
        return cls(alone, other_alone, float(binomtest(alone, total, 0.5).pvalue) if total else 1.0)


@dataclass(frozen=True)
class Comparison:
    """A prompt against another.

    Attributes:
        other: the other prompt's id.
        score: the other's, in the task's metric.
        difference: this prompt's score less the other's, with its paired bootstrap interval.
        mcnemar: None where answers are not right or wrong as a whole, or examples belong together in groups, which the
            test takes for independent.
    """

    other: str
    score: float
    difference: float
    interval: Interval
    mcnemar: McNemar | None

    @classmethod
    def of(
        cls, form: Form, this: Evaluated, other: Evaluated, scores: tuple[float, float], replicates: np.ndarray
    ) -> Comparison:
        """
        Args:
            scores: of both.
            replicates: differences on the same resamples.
        """
        right, other_right = form.right(this), form.right(other)
        single = len(np.unique(this.units)) == len(this)
        test = McNemar.of(right, other_right) if single and right is not None and other_right is not None else None
        return cls(other.id, scores[1], scores[0] - scores[1], interval(replicates), test)

    @property
    def verdict(self) -> Verdict:
        """Whether the interval of the difference lies wholly on one side of zero; this prompt is better or worse."""
        low, high = self.interval
        if low is None or high is None:
            return "open"
        return "better" if low > 0 else "worse" if high < 0 else "open"

    def to_json(self) -> dict[str, Any]:
        """`verdict` says what this prompt is."""
        test = None if self.mcnemar is None else {
            "right_alone": self.mcnemar.this,
            "other_right_alone": self.mcnemar.other,
            "p": self.mcnemar.p,
        }  # fmt: skip
        return {
            "other": self.other,
            "other_score": self.score,
            "difference": self.difference,
            "low": self.interval.low,
            "high": self.interval.high,
            "verdict": self.verdict,
            "mcnemar": test,
        }

"""A measured learning curve, and what it says in sentences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from promptpanda.curves.forecast import LAST, Forecast, Measured, forecast
from promptpanda.curves.plan import CurvePlan
from promptpanda.transfers.methods import METHODS


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """A measured learning curve. Scores are in the task's metric, as fractions.

    Attributes:
        plan: the sizes (labelled rows), the seeds, and the rows that are scored.
        measured: the scores, by method.
        floor: the score of a constant prediction on the same rows.
        sources: ids of the prompts that methods with a source started from.
        seconds: wall time of all trainings, including those of earlier runs.
    """

    plan: CurvePlan
    measured: dict[str, Measured]
    floor: float
    sources: tuple[str, ...]
    seconds: float

    @property
    def metric(self) -> str:
        """The name of the metric."""
        return self.plan.task.spec.metric

    @property
    def twice(self) -> int:
        """Twice the largest size, in labelled rows."""
        return 2 * self.plan.sizes[-1]

    def forecast(self, method: str) -> Forecast | None:
        """What a method would score with twice as many labels; None if that cannot be forecast.

        `no_forecast_reason` says why it cannot.
        """
        return None if self.no_forecast_reason(method) else forecast(self.measured[method], self.twice)

    def check(self, method: str) -> Forecast | None:
        """What the smaller sizes forecast for the largest, to compare with what was measured there.

        None if there are too few sizes or seeds.
        """
        return forecast(self.measured[method].first(len(self.plan.sizes) - 1), self.plan.sizes[-1])

    def no_forecast_reason(self, method: str) -> str | None:
        """Why no forecast can be made for a method; None if one can."""
        plan, measured = self.plan, self.measured[method]
        if len(plan.sizes) < LAST:
            return f"{len(plan.sizes)} size{'s are' if len(plan.sizes) > 1 else ' is'} too few, {LAST} are needed"
        if len(plan.seeds) < 2:
            return "one seed does not show how much a score varies by chance; give several (--seeds 0,1,2)"
        low, _ = measured.interval(len(plan.sizes) - 1)
        if low <= self.floor:
            return (
                f"with {plan.sizes[-1]} rows it may be no better than a constant prediction ({self.floor:.3f}), and "
                "the curve of a model that has not learnt yet says nothing about what follows"
            )
        return None

    def sentences(self, method: str) -> list[str]:
        """The forecast for a method in words; the first sentence is the answer."""
        plan, why = self.plan, self.no_forecast_reason(method)
        title = METHODS[method].title
        if why is not None:
            return [f"{title}: what {self.twice} labelled rows would give cannot be forecast: {why}."]
        found = self.forecast(method)
        assert found is not None
        gain = f"{100 * found.gain:+.1f} points ({100 * found.gain_low:+.1f} to {100 * found.gain_high:+.1f})"
        answer = {
            "helps": f"twice as many labels ({plan.sizes[-1]} -> {found.size} rows) would help: {gain}",
            "harms": f"twice as many labels ({plan.sizes[-1]} -> {found.size} rows) are not expected to help: {gain}",
            "little": f"twice as many labels ({plan.sizes[-1]} -> {found.size} rows) would hardly change it: {gain}",
            "open": f"whether twice as many labels ({plan.sizes[-1]} -> {found.size} rows) would help is not clear: "
            f"{gain}",
        }[found.verdict]
        sentences = [
            f"{title}: {answer}.",
            f"By the law through the last {LAST} sizes the {self.metric} is {found.now:.3f} with {plan.sizes[-1]} rows "
            f"and {found.score:.3f} ({found.low:.3f} to {found.high:.3f}) with {found.size}.",
        ]
        earlier = self.check(method)
        if earlier is not None:
            there = float(self.measured[method].means[-1])
            held = "within" if earlier.low <= there <= earlier.high else "outside"
            sentences.append(
                f"Check: the sizes below {plan.sizes[-1]} predicted {earlier.score:.3f} ({earlier.low:.3f} to "
                f"{earlier.high:.3f}) for it; {there:.3f} was measured, {held} the interval."
            )
        return sentences

    def to_json(self) -> dict[str, Any]:
        """The dictionary that `panda curve --json` prints."""
        plan = self.plan
        methods: dict[str, Any] = {}
        for name, measured in self.measured.items():
            found, earlier = self.forecast(name), self.check(name)
            bounds = [measured.interval(place) for place in range(len(plan.sizes))]
            methods[name] = {
                "scores": measured.scores.tolist(),
                "mean": measured.means.tolist(),
                "low": [low for low, _ in bounds],
                "high": [high for _, high in bounds],
                "forecast": None if found is None else found.to_json(),
                "check": None if earlier is None else earlier.to_json(),
                "why_not": self.no_forecast_reason(name),
            }
        return {
            "target": plan.task.name,
            "metric": self.metric,
            "sizes": list(plan.sizes),
            "seeds": list(plan.seeds),
            "n_scored": len(plan.scored),
            "scored": "carved from train" if plan.carved else "test data",
            "constant": self.floor,
            "source": list(self.sources),
            "methods": methods,
            "seconds": self.seconds,
        }

"""Successive halving: many sources start, the better half goes on from where it stands, few are trained to the end.

Reference: Jamieson and Talwalkar, arXiv 1502.07943. Runners are PoT from each source, on one seed and carve. A rung
ranks them by their expected scores: validation scores shrunken towards what an estimator promises of their sources
(transfers/choice.py), since a handful of validation examples tells sources apart badly. Prompt tuning, no transfer,
runs beside them to the end and takes no one's place. All train as in the full run from step 1, so that a finalist's
prompt equals one that was never in a race, bit for bit. With a bank a race that was killed goes on from its last rung
(transfers/race_state.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from promptpanda.bank.folder import SourcePrompt
from promptpanda.errors import PandaError
from promptpanda.names import SIGNATURE_EXAMPLES
from promptpanda.training.beside import advance_beside
from promptpanda.training.loop import Training, TrainingDivergedError
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.choice import NOISE, SPREAD, Contestant, Resamples, posteriors, prior_of
from promptpanda.transfers.method import Method
from promptpanda.transfers.methods import POT, PROMPT_TUNING
from promptpanda.transfers.race_state import DamagedStateError, RaceState, Standing, Standings
from promptpanda.transfers.trial import Trial

BUDGETS = (1 / 8, 1 / 4, 1 / 2)  # where the rungs before the end are, as shares of the full run
FINALISTS = 1


@dataclass(frozen=True)
class Rung:
    """A stop of a race.

    Attributes:
        step: of the full run.
        running: sources that get there.
        staying: sources that go on; where that is all of them nothing is compared.
    """

    step: int
    running: int
    staying: int


@dataclass(frozen=True)
class RaceResult:
    """What a race gives.

    Attributes:
        finalists: sources that were trained to the end, best first; none where all diverged.
        winner: the PoT from the first of them, as the choice sees it; None where there is none.
        rungs: (step, who stood how), best first; the end is the last, where no transfer stands behind all.
        runs: hashes of the trainings that reached the end.
        work: what it took, in examples trained; a forward pass counts a third.
    """

    finalists: tuple[SourcePrompt, ...]
    winner: Contestant | None
    rungs: tuple[tuple[int, Standings], ...]
    runs: frozenset[str]
    work: float

    def to_json(self) -> list[dict[str, Any]]:
        """One object a rung."""
        names = ("prompt", "score", "loss", "expected", "goes_on")
        return [
            {"step": step, "standings": [{name: getattr(one, name) for name in names} for one in standings]}
            for step, standings in self.rungs
        ]


def rungs(sources: int, total: int, finalists: int = FINALISTS) -> tuple[Rung, ...]:
    """The stops before the end: the better half goes on (rounded up), and never fewer than the finalists.

    Args:
        sources: that start.
        total: steps of the full run; where it is so short that rungs coincide, the later one is left out.
    """
    found: list[Rung] = []
    running = sources
    for budget in BUDGETS:
        step = max(1, round(budget * total))
        if step < total and (not found or step > found[-1].step):
            staying = min(running, max(-(-running // 2), finalists))
            found.append(Rung(step, running, staying))
            running = staying
    return tuple(found)


def validations(options: TrainingOptions, *, tracked: bool = False) -> int:
    """Passes over the validation part in one training: one at its end, and one an epoch where that is validated.

    Args:
        tracked: whether every epoch is validated, early stopping or not.
    """
    return 1 + options.epochs * (tracked or options.early_stopping is not None)


def planned_training(options: TrainingOptions, n_train: int, n_val: int, *, tracked: bool = False) -> float:
    """Examples trained in one training of a prompt, its validation and its signature (a third each) included.

    Args:
        options: settled ones.
        tracked: see `validations`.
    """
    passes = validations(options, tracked=tracked)
    return options.epochs * n_train + (passes * n_val + min(SIGNATURE_EXAMPLES, n_train)) / 3


def planned_cost(
    sources: int,
    options: TrainingOptions,
    n_train: int,
    n_val: int,
    *,
    finalists: int = FINALISTS,
    tracked: bool = False,
) -> float:
    """What a race takes, no transfer included, in trainings.

    Args:
        sources: that start.
        options, tracked: see `planned_training`.
    """
    whole = options.epochs * n_train
    total = _steps(options, n_train)
    stops = rungs(sources, total, finalists)
    arriving = stops[-1].staying if stops else sources
    every_epoch = tracked or options.early_stopping is not None
    work = (1 + arriving) * planned_training(options, n_train, n_val, tracked=tracked) + arriving * n_val / 3
    for stop in stops:
        if stop.staying < stop.running:
            epochs = stop.step // (total // options.epochs) if every_epoch else 0
            behind = whole * stop.step / total + epochs * n_val / 3
            work += (stop.running - stop.staying) * behind + stop.running * n_val / 3
    return work / whole


def race(trial: Trial, leads: Mapping[str, float] | None = None, *, finalists: int = FINALISTS) -> RaceResult:
    """Let the sources of a trial race, and no transfer beside them.

    Those who reach the end are then ordinary prompts of `pot` and `prompt_tuning`, in the bank if there is one; what is
    in it already is not trained again. A source whose training diverges drops out.

    Args:
        leads: by how much an estimator puts each source above no transfer, by id; none where it cannot say.

    Raises:
        PandaError: prompt tuning diverged.
    """
    if not trial.sources:
        raise ValueError("a race needs a source")
    if finalists < 1:
        raise PandaError(f"--finalists must be at least 1, found {finalists}.")
    if trial.bank is not None:
        trial.bank.prepare()
    scale = _Scale(trial, leads or {})
    if trial.bank is None:
        return _run(trial, scale, finalists, None)
    runs = [one.identity(method)[0] for one, method in _entered(trial)]
    kept = RaceState.of(trial.bank, [runs, finalists, BUDGETS, scale.determined_by])
    with kept.locked(trial.progress.note):
        return _run(trial, scale, finalists, kept)


def _entered(trial: Trial) -> list[tuple[Trial, Method]]:
    """Who races: no transfer, and PoT from every source."""
    return [(trial, PROMPT_TUNING), *((trial.with_source(source), POT) for source in trial.sources)]


def _run(trial: Trial, scale: _Scale, finalists: int, kept: RaceState | None) -> RaceResult:
    """The race itself, from where it was put down if it was."""
    none, *every = (
        _Runner(number, source, one, method)
        for number, (source, (one, method)) in enumerate(zip((None, *trial.sources), _entered(trial), strict=True))
    )
    total = _steps(trial.options, len(trial.partition.train))
    stops = rungs(len(every), total, finalists)
    history = _resume_stage(kept, [none, *every], len(stops))
    running = every
    for standings in history:
        running = [one for one in running if any(at.prompt == one.prompt and at.goes_on for at in standings)]
    for place in range(len(history), len(stops)):
        stop = stops[place]
        # What is in the bank already need not be trained again, unless it is still to be compared on the way.
        compared = any(later.staying < later.running for later in stops[place:])
        on_the_way = [one for one in (none, *running) if not one.cached or (compared and one is not none)]
        advance_beside([one.training for one in on_the_way], trial.options.beside, stop.step)
        running, standings = _ranked(running, stop, scale)
        history.append(standings)
        if kept is not None and trial.bank is not None:
            trial.bank.check_there()
            states = {one.number: one.training.state() for one in on_the_way if one is none or one in running}
            kept.save_rung(place, history, states)
        if not all(at.goes_on for at in standings):
            _tell(trial, stop, standings, total)
    if trial.options.beside > 1:  # else each is kept before the next is trained
        advance_beside([one.training for one in (none, *running) if not one.cached], trial.options.beside)
    ends = [one.finish() for one in (none, *running)]
    arrived = {
        source.id: Contestant.of(one.trial, POT, scale.leads[source.id])
        for one, end in zip(running, ends[1:], strict=True)
        if (source := one.source) is not None and end.standing.goes_on
    }
    last = scale.in_order([end.standing for end in ends], arrived)
    if kept is not None:
        kept.remove()
    by_id = {source.id: source for source in trial.sources}
    arriving = tuple(by_id[at.prompt] for at in last if at.prompt is not None and at.goes_on)
    return RaceResult(
        arriving,
        arrived[arriving[0].id] if arriving else None,
        tuple(zip([*(stop.step for stop in stops), total], [*history, last], strict=True)),
        frozenset(end.run for end in ends if end.run is not None),
        sum(end.work for end in ends) + _work_of_comparing([*history, last], len(trial.partition.validation)),
    )


def _steps(options: TrainingOptions, n_train: int) -> int:
    """Of a full run."""
    return -(-n_train // options.batch_size) * options.epochs


class _Scale:
    """What runners are compared by: their expected scores, on the same validation examples.

    Attributes:
        leads: by id. Their last digits depend on which prompts went through the backbone together, and are cut.
    """

    def __init__(self, trial: Trial, leads: Mapping[str, float]) -> None:
        self.leads = {source.id: round(leads.get(source.id, 0.0), 4) for source in trial.sources}
        self._resamples = Resamples(trial.validation_data)

    @property
    def determined_by(self) -> list[Any]:
        """All that decides beside the trainings themselves."""
        return [sorted(self.leads.items()), asdict(prior_of(POT)), SPREAD, NOISE]

    def in_order(self, standings: Sequence[Standing], contestants: Mapping[str, Contestant]) -> Standings:
        """With expected scores, best first, then by loss, then name; then who diverged, and no transfer last."""
        expected = {name: one.mean for name, one in posteriors(contestants, self._resamples).items()}
        found = [replace(at, expected=expected.get(at.prompt or "")) for at in standings]

        def key(at: Standing) -> tuple[bool, bool, float, float, str]:
            ahead = -round(at.expected or 0.0, 12), at.loss or 0.0, at.prompt or ""
            return (at.prompt is None, not at.goes_on, *ahead)

        return tuple(sorted(found, key=key))


@dataclass(frozen=True)
class _End:
    """How a runner ended: where it stands, the hash of its training if there is anything of it, and its work."""

    standing: Standing
    run: str | None
    work: float


class _Runner:
    """One who races: a source's PoT, or prompt tuning."""

    def __init__(self, number: int, source: SourcePrompt | None, trial: Trial, method: Method) -> None:
        self.number, self.source, self.trial, self.method = number, source, trial, method
        self.cached = trial.is_known(method)
        self._training: Training | None = None

    @property
    def prompt(self) -> str | None:
        return None if self.source is None else self.source.id

    @property
    def training(self) -> Training:
        """Where it stands; at the start, if it has not run yet."""
        if self._training is None:
            start = None if self.source is None else self.source.prompt
            self._training = self.trial.training(self.method, start=start)
        return self._training

    def restart(self) -> None:
        self._training = None

    def finish(self) -> _End:
        """Train to the end, and keep the outcome.

        Raises:
            PandaError: prompt tuning diverged.
        """
        method, trial = self.method, self.trial
        if not self.cached:
            self.training.advance()
        try:
            card = (trial.outcome(method) if self.cached else trial.finished(method, self.training)).card
        except TrainingDivergedError as error:
            if self.source is None:
                raise
            self.trial.progress.note(str(error))
            left = self.trial.cached.get(method.name)
            run, work = (None, _work(self.training)) if left is None else (left.card.run, left.card.work)
            return _End(Standing(self.prompt, None, None, None, 0, False), run, work)
        standing = Standing(self.prompt, card.score, card.validation["loss"], None, 0, True)
        return _End(standing, card.run, card.work)


def _resume_stage(kept: RaceState | None, runners: Sequence[_Runner], stops: int) -> list[Standings]:
    """Go on from where the race was put down, if it was; returns what was decided before."""
    if kept is None:
        return []
    try:
        history, states = kept.load_rungs(stops)
        for number, state in states.items():
            runners[number].training.load_state(state)
    except (DamagedStateError, IndexError, KeyError, TypeError, ValueError, RuntimeError):
        for one in runners:
            one.restart()
        runners[0].trial.progress.note(f"The saved race in {kept.folder} is damaged; the race starts again.")
        kept.remove()
        return []
    return history


def _work(training: Training) -> float:
    """In examples trained."""
    return training.example_steps + training.forward_examples / 3


def _ranked(running: Sequence[_Runner], stop: Rung, scale: _Scale) -> tuple[list[_Runner], Standings]:
    """Who goes on from a rung, and how all stand, best first; who diverged does not go on."""
    compared = stop.staying < stop.running
    found: list[Standing] = []
    contestants: dict[str, Contestant] = {}
    for one in running:
        if not compared:
            usable = one.cached or one.training.diverged is None
            found.append(Standing(one.prompt, None, None, None, 0, usable))
            continue
        evaluated = one.training.validate()
        if evaluated is None:
            found.append(Standing(one.prompt, None, None, None, 0, False))
            continue
        predictions, scores = evaluated
        score, loss = scores[one.trial.task.spec.metric], scores["loss"]
        name = one.prompt or ""
        contestants[name] = Contestant(predictions, score, loss, prior_of(one.method).of(scale.leads[name]))
        found.append(Standing(one.prompt, score, loss, None, 0, True))
    by_id = {one.prompt: one for one in running}
    standings = []
    for place, at in enumerate(scale.in_order(found, contestants)):
        stays = at.goes_on and place < stop.staying
        spent = 0.0 if stays else _work(by_id[at.prompt].training)
        standings.append(replace(at, goes_on=stays, work=spent))
    return [by_id[at.prompt] for at in standings if at.goes_on], tuple(standings)


def _work_of_comparing(rungs: Sequence[Standings], n_val: int) -> float:
    """Examples trained for the comparisons, and by those who stayed behind.

    Who reached the end counts by its card: a race costs the same whether the bank had its prompt already or not.
    """
    validated = sum(at.expected is not None for standings in rungs for at in standings)
    return validated * n_val / 3 + sum(at.work for standings in rungs for at in standings)


def _tell(trial: Trial, stop: Rung, standings: Standings, total: int) -> None:
    def names(going_on: bool) -> str:
        found = [
            f"{one.prompt} (diverged)"
            if one.score is None
            else f"{one.prompt} ({one.score:.3f}, expected {one.expected:.3f})"
            for one in standings
            if one.goes_on == going_on
        ]
        return ", ".join(found) or "none"

    trial.progress.note(f"Race, step {stop.step} of {total}: continuing: {names(True)}; dropped: {names(False)}.")

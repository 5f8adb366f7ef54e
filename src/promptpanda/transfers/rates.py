"""`--lr auto`: three learning rates tried on the validation part."""

from __future__ import annotations

from collections.abc import Callable

from promptpanda.errors import PandaError
from promptpanda.progress import Progress
from promptpanda.training.loop import TrainingDivergedError
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.beside import train_beside
from promptpanda.transfers.method import Method
from promptpanda.transfers.methods import PROMPT_TUNING
from promptpanda.transfers.trial import Trial

RATES = (3e-3, 1e-2, 3e-2)


def best_rate(
    options: TrainingOptions,
    trial_of: Callable[[TrainingOptions], Trial],
    progress: Progress,
    method: Method = PROMPT_TUNING,
) -> tuple[TrainingOptions, int]:
    """The options with the rate at which a method does best on the validation part of one seed.

    All methods then share it; the training at the chosen rate is used again where prompt tuning is asked for.

    Returns:
        The options, and the example-steps and forward passes that went into rates that were not chosen, in examples
        trained (a forward pass counts a third).

    Raises:
        PandaError: at every rate the training diverged.
    """
    tried: dict[float, tuple[float, float]] = {}
    work: dict[float, float] = {}
    trials = {rate: trial_of(options.model_copy(update={"lr": rate})) for rate in RATES}
    train_beside(list(trials.values()), [method])
    for rate, trial in trials.items():
        try:
            card = trial.outcome(method).card
        except TrainingDivergedError as error:
            progress.note(str(error))
            work[rate] = sum(one.card.work for one in trial.cached.values())
            continue
        tried[rate] = card.score, -card.validation["loss"]
        work[rate] = card.work
    if not tried:
        raise PandaError(f"--lr auto tried {', '.join(f'{rate:g}' for rate in RATES)}, and all diverged; give --lr.")
    chosen = max(tried, key=lambda rate: tried[rate])
    wasted = sum(value for rate, value in work.items() if rate != chosen)
    scores = ", ".join(f"{rate:g}: {score:.3f}" for rate, (score, _) in tried.items())
    trial = trial_of(options.model_copy(update={"lr": chosen}))
    unit = trial.options.epochs * len(trial.partition.train)
    progress.note(
        f"--lr auto takes {chosen:g} ({trial.task.spec.metric} on {len(trial.partition.validation)} validation "
        f"examples at {scores}); the others cost {wasted / unit:.1f} trainings."
    )
    return options.model_copy(update={"lr": chosen}), round(wasted)

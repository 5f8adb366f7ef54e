"""panda train, rank, transfer: making prompts."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from promptpanda.cli import output
from promptpanda.cli.command import command
from promptpanda.cli.options import (
    DATA,
    OUTPUT,
    SELECTION,
    TRAINING,
    DataChoice,
    DistillationChoice,
    Json,
    LogTo,
    MetricChoice,
    ModelChoice,
    TaskChoice,
    TrainingChoice,
)
from promptpanda.transfers.names import METHOD_NAMES, check_sources, method_names

if TYPE_CHECKING:
    from promptpanda.bank.card import Card
    from promptpanda.progress import Progress
    from promptpanda.tracking.tracker import TrackerName


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    command(app, "train")(train_command)
    command(app, "rank")(rank_command)
    command(app, "transfer")(transfer_command)


def train_command(
    task: TaskChoice,
    model: ModelChoice,
    data: DataChoice,
    training: TrainingChoice,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="PROMPT",
            help="Continue with this prompt and its head (id, path or task name); labels new to it are added.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    log_to: LogTo = None,
    json: Json = False,
) -> None:
    """Train a prompt for a task by prompt tuning and keep it in the bank.

    Test data is not read. A prompt that the bank has already is not trained again. With --from, own files should have
    the columns that the prompt was trained on; otherwise name them with --text and --label.
    """
    bank = model.open_bank()
    options, seeds = training.options(), data.seed_list()
    from promptpanda.bank.card import Card
    from promptpanda.cli.card_columns import task_to_continue

    begun = None if start is None else bank.resolve(start)
    card = None if begun is None else Card.read(begun)
    loaded = task.load() if card is None else task_to_continue(card, task)
    loaded.train()
    from promptpanda.transfers.transfer import train

    with output.TerminalProgress() as progress:
        record = None if log_to is None else recorder_of_cards(log_to, progress)
        backbone = model.load(card)
        trained = []
        for seed in seeds:
            one = train(
                loaded,
                backbone,
                bank=bank,
                options=options,
                protocol=data.protocol_name(),
                train_examples=data.train_examples,
                seed=seed,
                start=begun,
                progress=progress,
            )
            trained.append(one)
            if record is not None:
                record(one.card)
    cards = [one.card for one in trained]
    before = [None if card.before is None else card.before[loaded.spec.metric] for card in cards]
    if json:
        output.print_json(
            {
                "prompts": [str(one.path) for one in trained],
                "metric": loaded.spec.metric,
                "validation": [card.score for card in cards],
                "n_train": cards[0].n_train,
                "n_val": cards[0].n_val,
                "seconds": sum(card.seconds for card in cards),
                **({} if begun is None else {"from": begun.name, "before": before}),
            }
        )
        return
    rows = [[card.id, output.points(card.score), f"{card.seconds:.0f}"] for card in cards]
    columns = ["prompt", "validation", "seconds"]
    if begun is not None:
        columns.insert(1, "before")
        rows = [[row[0], output.points(value), *row[1:]] for row, value in zip(rows, before, strict=True)]
    title = (
        f"{loaded.name}: {loaded.spec.metric} on {cards[0].n_val} validation examples after training on "
        f"{cards[0].n_train} ({data.protocol} protocol)"
    )
    output.print_table(title, columns, rows, tuple(range(1, len(columns))))
    if any(value is not None and card.score < value for card, value in zip(cards, before, strict=True)):
        typer.echo(f"The score fell; {start} stays in the bank as it was, and a smaller --lr changes it less.")
    typer.echo(f"In the bank {model.bank}. Next: panda transfer TARGET --source {loaded.name}")


def recorder_of_cards(name: TrackerName, progress: Progress) -> Callable[[Card], None]:
    """Takes the cards of trained prompts to a tracker. Raises PandaError, before a training, if it cannot be used."""
    from promptpanda.tracking.record import Record
    from promptpanda.tracking.tracker import recorder

    record = recorder(name, "promptpanda", progress)
    return lambda card: record(Record.of_card(card))


def rank_command(
    target: TaskChoice,
    model: ModelChoice,
    data: DataChoice,
    training: TrainingChoice,
    metric: MetricChoice,
    with_target_prompt: Annotated[
        bool,
        typer.Option(
            "--with-target-prompt",
            help="Train a prompt on the target first, for estimators that need it.",
            rich_help_panel=SELECTION,
        ),
    ] = False,
    passes: Annotated[
        int | None,
        typer.Option(
            help="Prompts that the model is run under; of more, the nearest by their texts. By default 48.",
            rich_help_panel=SELECTION,
        ),
    ] = None,
    executor: Annotated[
        str,
        typer.Option(
            help="Where passes are carried out: in-process, processes:N, dask://HOST:PORT, slurm:N.",
            rich_help_panel=SELECTION,
        ),
    ] = "in-process",
    json: Json = False,
) -> None:
    """Rank the prompts of the bank for a target task, without training on it.

    Scores come from one forward pass of the target's examples under each prompt; some estimators use their labels.
    `panda estimators` explains them.
    """
    bank = model.open_bank()
    options, seeds = training.options(), data.seed_list()
    loaded = target.load()
    from promptpanda.names import SIGNATURE_EXAMPLES
    from promptpanda.sweep.executors import IN_PROCESS, workers_of
    from promptpanda.sweep.ranking import RankTarget, rank_by, scratch_of
    from promptpanda.tasks.protocol import partition
    from promptpanda.training.defaults import settled
    from promptpanda.transfers.estimators import TargetFeatures, estimates, estimators
    from promptpanda.transfers.overlap import TargetRows
    from promptpanda.transfers.ranking import rank
    from promptpanda.transfers.transfer import train

    part = partition(loaded, protocol=data.protocol_name(), train_examples=data.train_examples, seed=seeds[0])
    backbone = model.load()
    seen = settled(options, loaded.kind, part.train, backbone)
    cosine = metric.cosine()
    features = TargetFeatures.of(backbone, loaded, part, seen, examples=max(SIGNATURE_EXAMPLES, cosine.examples))
    with output.TerminalProgress() as progress:
        if with_target_prompt:
            features.own = train(
                loaded,
                backbone,
                bank=bank,
                options=options,
                protocol=data.protocol_name(),
                train_examples=data.train_examples,
                seed=seeds[0],
                progress=progress,
            ).signature
        rows = TargetRows.of([part], loaded.test())
        if executor == IN_PROCESS:
            ranking = rank(loaded, backbone, bank, features, cosine=cosine, rows=rows, passes=passes, progress=progress)
        else:
            shown = RankTarget.of(backbone, loaded, part, seen, cosine, features.own)
            with scratch_of(bank) as scratch:
                workers = workers_of(executor, scratch)
                ranking = rank_by(workers, shown, loaded, backbone, bank, rows, passes=passes, progress=progress)
        without = estimates(None, features, cosine)
    if json:
        ranked = [{"prompt": entry.prompt, "task": entry.task, "scores": entry.scores} for entry in ranking]
        left_out = [one.to_json() for one in ranking.left_out]
        found = {"target": loaded.name, "ranking": ranked, "no_transfer": without, "left_out": left_out}
        output.print_json(found)
        return
    names = [name for name in estimators() if any(name in entry.scores for entry in ranking)]
    lines = [
        [str(place), entry.prompt, entry.task, *(output.points(entry.scores.get(name)) for name in names)]
        for place, entry in enumerate(ranking, 1)
    ]
    if without:
        lines.append(["", "no transfer", "", *(output.points(without.get(name)) for name in names)])
    title = f"Predicted transferability to {loaded.name}"
    numeric = (0, *range(3, 3 + len(names)))
    output.print_table(title, ["", "prompt", "task", *names], lines, numeric)
    typer.echo(f"Next: panda transfer {loaded.name} --source {ranking[0].prompt}, or without --source")


def transfer_command(
    target: TaskChoice,
    model: ModelChoice,
    data: DataChoice,
    training: TrainingChoice,
    distillation: DistillationChoice,
    metric: MetricChoice,
    source: Annotated[
        str,
        typer.Option(
            help="Prompt to start from: id, path (also of a PEFT prefix), task name; several separated by commas, for "
            "fusions; best: the top of the ranking; auto: source and method are chosen, no transfer included.",
            rich_help_panel=SELECTION,
        ),
    ] = "auto",
    methods: Annotated[
        str | None,
        typer.Option(
            help=f"Methods to try, separated by commas: {', '.join(METHOD_NAMES)}; by default the first three, "
            "or with --source auto prompt_tuning, pot, probes and a contrastive one.",
            rich_help_panel=SELECTION,
        ),
    ] = None,
    effort: Annotated[
        Literal["full", "quick"],
        typer.Option(
            help="--source auto: full, or quick: the estimator decides, and one training on all labelled examples "
            "follows.",
            rich_help_panel=SELECTION,
        ),
    ] = "full",
    survivors: Annotated[
        int | None,
        typer.Option(
            help="--source auto: at most this many source prompts race; by default 4.", rich_help_panel=SELECTION
        ),
    ] = None,
    finalists: Annotated[
        int | None,
        typer.Option(
            help="--source auto: how many of them are trained to the end; by default 1.", rich_help_panel=SELECTION
        ),
    ] = None,
    refit: Annotated[
        bool | None,
        typer.Option(
            "--refit/--no-refit",
            help="--source auto: train the chosen method again on all labelled examples; on by default.",
            rich_help_panel=SELECTION,
        ),
    ] = None,
    unlabeled: Annotated[
        Path | None,
        typer.Option(
            help="Texts without labels that panda_unlabeled learns from: .txt with one per line, or rows with the "
            "task's text columns.",
            rich_help_panel=DATA,
        ),
    ] = None,
    ablate: Annotated[
        bool,
        typer.Option(
            "--ablate",
            help="Also train the controls around PANDA's defaults, and print their table.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    test_examples: Annotated[
        int | None,
        typer.Option(min=1, help="Use at most this many test examples, drawn with a fixed seed.", rich_help_panel=DATA),
    ] = None,
    json: Json = False,
) -> None:
    """Choose a source prompt for a target task and transfer it: prompt tuning, PoT, PANDA and others side by side.

    The method and the prompt to use are chosen on validation data; test data is used only for the final score.
    """
    bank = model.open_bank()
    options, seeds = training.options(), data.seed_list()
    names = None if methods is None else method_names(methods)
    check_sources(source, bank)
    loaded = target.load()
    loaded.train()
    from promptpanda.cli.ablation import print_ablation
    from promptpanda.cli.results import print_transfer
    from promptpanda.tasks.unlabeled import read_inputs, unlabeled_rows
    from promptpanda.transfers.request import TransferRequest
    from promptpanda.transfers.selection import SelectionOptions
    from promptpanda.transfers.transfer import run_transfer

    given: dict[str, Any] = {"survivors": survivors, "finalists": finalists, "refit": refit}
    given |= {"effort": None if effort == "full" else effort}
    selection = {name: value for name, value in given.items() if value is not None}
    rows = None
    if unlabeled is not None:
        rows = unlabeled_rows(unlabeled, loaded.spec)
        read_inputs(loaded.spec, rows, str(unlabeled))  # an error names the file, before the model is loaded
    request = TransferRequest(
        task=loaded,
        source=source,
        methods=names,
        options=options,
        distillation=distillation.options(training.coefficient()),
        cosine=metric.cosine(),
        selection=SelectionOptions(**selection) if selection else None,
        protocol=data.protocol_name(),
        train_examples=data.train_examples,
        test_examples=test_examples,
        seeds=seeds,
        unlabeled=rows,
        ablation=ablate,
    )
    backbone = model.load()
    with output.TerminalProgress() as progress:
        result = run_transfer(request, backbone, bank=bank, progress=progress)
    if json:
        output.print_json(result.to_json())
        return
    print_transfer(result)
    print_ablation(result)
    by = "by the estimator" if effort == "quick" else "on validation data"
    typer.echo(f"Chosen {by}: {result.chosen}. Prompt: {result.prompt.path}")
    if result.prompt.card.weights_kept:
        typer.echo(f"Next: panda predict {shlex.quote(str(result.prompt.path))} FILE")

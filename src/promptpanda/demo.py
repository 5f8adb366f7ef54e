"""The demonstration: a small study of prompt transfer that two cores finish in minutes, on material from PyPI."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank
from promptpanda.progress import Progress
from promptpanda.tasks.catalog import load_task
from promptpanda.tasks.protocol import partition
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.estimators import TargetFeatures
from promptpanda.transfers.overlap import TargetRows
from promptpanda.transfers.ranking import Ranked, rank
from promptpanda.transfers.result import TransferResult
from promptpanda.transfers.transfer import train, transfer


@dataclass(frozen=True)
class DemoPlan:
    """What a demonstration runs. The target is a part of 20 Newsgroups with its official split; no source shares a
    text with it.

    Attributes:
        source_examples, target_examples: budgets, train and validation together.
        test_examples: test rows, drawn with a fixed seed.
    """

    sources: tuple[str, ...]
    target: str
    source_examples: int
    target_examples: int
    test_examples: int
    source_epochs: int
    target_epochs: int
    seeds: tuple[int, ...]
    max_length: int = 32


FULL = DemoPlan(
    sources=("newsgroups_politics", "newsgroups_rec", "election_tweets"),
    target="newsgroups_religion",
    source_examples=300,
    target_examples=64,
    test_examples=300,
    source_epochs=3,
    target_epochs=10,
    seeds=(0, 1, 2),
)
QUICK = DemoPlan(
    sources=FULL.sources,
    target=FULL.target,
    source_examples=64,
    target_examples=32,
    test_examples=64,
    source_epochs=1,
    target_epochs=1,
    seeds=(0,),
)


@dataclass(frozen=True)
class DemoResult:
    """The ranking of the sources, and the transfer from the best of them."""

    ranking: list[Ranked]
    transfer: TransferResult

    def reading(self) -> str:
        """What the table says, in one or two sentences that follow from its numbers."""
        methods = self.transfer.methods
        plain = methods["prompt_tuning"]
        assert plain.scores is not None
        sentences = []
        for name, title in (("pot", "PoT"), ("panda", "PANDA")):
            scores = methods[name].scores
            assert scores is not None
            gains = [100 * (score - base) for score, base in zip(scores, plain.scores, strict=True)]
            mean = sum(gains) / len(gains)
            wins = sum(gain > 0 for gain in gains)
            sentences.append(f"{title} {mean:+.1f} points ({wins} of {len(gains)} seeds better)")
        return f"Against prompt tuning on test data: {'; '.join(sentences)}. Source: {self.transfer.source}."


def run_demo(plan: DemoPlan, backbone: Backbone, bank_folder: Path, progress: Progress) -> DemoResult:
    """Train the sources, rank them for the target, transfer from the best. What the bank has is not trained again."""
    bank = Bank(bank_folder)
    target = load_task(plan.target)
    target.train()
    source_options = TrainingOptions(epochs=plan.source_epochs, max_length=plan.max_length)
    trained = [
        train(
            load_task(name),
            backbone,
            bank=bank,
            options=source_options,
            train_examples=plan.source_examples,
            progress=progress,
        )
        for name in plan.sources
    ]
    options = TrainingOptions(epochs=plan.target_epochs, max_length=plan.max_length)
    part = partition(target, train_examples=plan.target_examples, seed=plan.seeds[0])
    features = TargetFeatures.of(backbone, target, part, options)
    # Others may have moved into the bank since; the demonstration is about its own sources.
    own = {source.card.id for source in trained}
    rows = TargetRows.of([part], target.test())
    ranking = [
        entry for entry in rank(target, backbone, bank, features, rows=rows, progress=progress) if entry.prompt in own
    ]
    result = transfer(
        target,
        ranking[0].prompt,
        backbone,
        bank=bank,
        options=options,
        train_examples=plan.target_examples,
        test_examples=plan.test_examples,
        seeds=plan.seeds,
        progress=progress,
    )
    return DemoResult(ranking, result)

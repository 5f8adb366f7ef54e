"""The target of a request as all its methods share it: every seed's parts, test data, texts, settled options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank
from promptpanda.bank.folder import SourcePrompt
from promptpanda.errors import PandaError
from promptpanda.names import SIGNATURE_EXAMPLES
from promptpanda.progress import Progress
from promptpanda.tasks.grouping import contradictions, known_texts
from promptpanda.tasks.inputs import Input, Split
from promptpanda.tasks.protocol import Partition, capped, partition
from promptpanda.tasks.unlabeled import read_inputs, without
from promptpanda.training.defaults import settled
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.estimators import TargetFeatures
from promptpanda.transfers.overlap import TargetRows
from promptpanda.transfers.request import TransferRequest
from promptpanda.transfers.sources import with_prompt_of
from promptpanda.transfers.trial import Trial


@dataclass(frozen=True)
class Setting:
    """What a request comes to on its data; every list has one entry a seed.

    Attributes:
        partitions: training and validation part.
        test: the examples that the final figure is taken on, or None.
        unlabeled: texts without labels, without those that scores are taken on; None where none were given.
        options: settled ones, before the source is known.
        targets: what estimators see of the target; of the first seed alone where no source is selected.
        rows: of all seeds and the whole test data, which no source should have seen.
    """

    request: TransferRequest
    backbone: Backbone
    bank: Bank | None
    progress: Progress
    partitions: tuple[Partition, ...]
    test: Split | None
    unlabeled: tuple[tuple[Input, ...], ...] | None
    options: TrainingOptions
    targets: tuple[TargetFeatures, ...]
    rows: TargetRows

    @classmethod
    def of(cls, request: TransferRequest, backbone: Backbone, bank: Bank | None, progress: Progress) -> Setting:
        """Read and carve the data, before anything is trained: a label that train lacks is found out here.

        Raises:
            PandaError: the data does not serve.
        """
        task, cosine = request.task, request.cosine
        partitions = tuple(
            partition(task, protocol=request.protocol, train_examples=request.train_examples, seed=seed)
            for seed in request.seeds
        )
        test = partitions[0].validation if request.protocol == "paper" else task.test()
        if request.protocol == "clean":
            whole = partitions[0].train.joined(partitions[0].validation)
            for sentence in (*known_texts(whole, test), *([] if task.own else contradictions(whole))):
                progress.note(sentence)
        unlabeled = None
        if request.unlabeled is not None:
            unlabeled = tuple(_unlabeled(request, partitions, test, progress))
        options = settled(request.options, task.kind, partitions[0].train, backbone)
        targets = tuple(
            TargetFeatures.of(backbone, task, part, options, examples=max(SIGNATURE_EXAMPLES, cosine.examples))
            for part in (partitions if request.selects else partitions[:1])
        )
        capped_test = None if test is None else capped(test, request.test_examples)
        rows = TargetRows.of(partitions, test)
        return cls(request, backbone, bank, progress, partitions, capped_test, unlabeled, options, targets, rows)

    def options_for(self, sources: Sequence[SourcePrompt]) -> TrainingOptions:
        """The settled options of a transfer from these sources, whose prompts' shape it takes."""
        requested = self.request.options
        options = with_prompt_of(requested, sources[0]) if sources else requested
        return settled(options, self.request.task.kind, self.partitions[0].train, self.backbone)

    def trial(self, place: int, sources: tuple[SourcePrompt, ...], options: TrainingOptions) -> Trial:
        """The trial of one seed.

        Args:
            place: of the seed among the request's.
            options: settled ones; the prompt's shape is that of the sources.
        """
        trial = Trial(
            self.backbone,
            self.request.task,
            self.partitions[place],
            with_prompt_of(options, sources[0]) if sources else options,
            self.request.seeds[place],
            sources,
            self.request.distillation,
            self.request.cosine,
            self.bank,
            self.progress,
            unlabeled=None if self.unlabeled is None else self.unlabeled[place],
        )
        if self.request.selects and options.max_length == self.options.max_length:
            trial.target = self.targets[place]  # which has seen the sources already
        return trial


def _unlabeled(
    request: TransferRequest, partitions: Sequence[Partition], test: Split | None, progress: Progress
) -> list[tuple[Input, ...]]:
    """The texts without labels for each seed, without those that scores are taken on."""
    assert request.unlabeled is not None
    given = read_inputs(request.task.spec, request.unlabeled, "the unlabelled text")
    kept = [without(given, test, part.validation) for part in partitions]
    fewest = min(map(len, kept))
    if fewest == 0:
        raise PandaError(
            f"All {len(given)} unlabelled texts are in the test or validation data of task '{request.task.name}'; "
            "give others."
        )
    if fewest < len(given):
        progress.note(
            f"{len(given) - fewest} of {len(given)} unlabelled texts are left out: they are in the test or validation "
            "data, or duplicates."
        )
    return kept

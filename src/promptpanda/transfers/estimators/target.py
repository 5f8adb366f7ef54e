"""The target as estimators see it: encoded once, and passed once under every source prompt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch

from promptpanda.backbone import Backbone
from promptpanda.bank.folder import SourcePrompt
from promptpanda.bank.signature import Signature, observe, word_embedding
from promptpanda.errors import PandaError
from promptpanda.names import SIGNATURE_EXAMPLES, HeadReadout, PromptKind
from promptpanda.progress import Progress, Silent
from promptpanda.prompts.prompt import Prompt
from promptpanda.tasks.encoding import Encoded, encode
from promptpanda.tasks.protocol import Partition
from promptpanda.tasks.spec import TaskSpec
from promptpanda.tasks.task import Task
from promptpanda.training.inference import Data, read_rows, read_rows_under
from promptpanda.training.objectives.kinds import objective_for
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.estimators.base import Side
from promptpanda.transfers.estimators.readings import MOST, Readings, readings_of

_LONGEST = 512  # virtual tokens; what stands behind more has positions much alike, and a stranger's card may claim any
_TOGETHER = 32  # prompts that go through the backbone in one series of mixed batches


@dataclass
class TargetFeatures:
    """The target, and what forward passes have shown of it so far.

    Attributes:
        texts: rows of the target; signatures are of the first of them.
        own: the signature of a prompt trained on the target, where there is one.
        spec: of the target's task, or None where texts are all that is known.
        readings: what a readout of the rows' features has to predict; None where labels are not known.
        readout: how a head of the target would read.
        signed: signatures are of at most so many rows: those of the training part.
    """

    backbone: Backbone
    texts: Encoded
    own: Signature | None = None
    spec: TaskSpec | None = None
    readings: Readings | None = None
    readout: HeadReadout = "mean"
    signed: int | None = None
    _under: dict[tuple[str, int], Signature] = field(default_factory=dict, repr=False)
    _vectors: dict[str | None, np.ndarray] = field(default_factory=dict, repr=False)
    _words: dict[tuple[str, int], np.ndarray] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        task: Task,
        partition: Partition,
        options: TrainingOptions,
        *,
        examples: int = SIGNATURE_EXAMPLES,
        own: Signature | None = None,
    ) -> TargetFeatures:
        """The target's budget as estimators may see it: test data is not touched.

        Signatures are of the training part's texts. Labels are those of training and validation part together, since
        cross-validation holds out its own; where the validation part is what is reported on (protocol `paper`), of the
        training part alone. At most 256 examples, drawn with a fixed seed.

        Args:
            options: settled ones (training/defaults.py), for max length and readout.
            examples: signatures are of at most so many texts.
        """
        train = partition.train
        whole = train if partition.protocol == "paper" else train.joined(partition.validation)
        first = min(examples, len(train))
        sample = np.sort(np.random.default_rng([0, 2]).permutation(len(whole))[:MOST])
        chosen = np.union1d(np.arange(first), sample)
        split = whole.take(chosen)
        readout = objective_for(task.spec, len(task.labels), train.labels).readout(backbone, options.readout)
        encoded = encode(backbone, split.texts, options.max_length, apart=readout == "compare")
        found = readings_of(Data(encoded, split, task.spec, task.labels), np.searchsorted(chosen, sample))
        signed = encoded.rows_of(first - 1).stop
        return cls(backbone, found.encoded, own, task.spec, found, readout, signed)

    def signature_under(self, side: Side, source: SourcePrompt, examples: int = SIGNATURE_EXAMPLES) -> Signature:
        """The target's texts under a source's prompt (one forward pass a prompt), or under a prompt of its own."""
        if side == "own":
            if self.own is None:
                raise PandaError("This estimator needs a prompt trained on the target; say --with-target-prompt.")
            return self.own
        self.observe([source], examples)
        return self._under[source.checksum, examples]

    def shows_finite(self, source: SourcePrompt) -> bool:
        """Whether all that was seen under a prompt is finite; huge values of a prompt overflow in the model."""
        found = [signature.embeddings for (one, _), signature in self._under.items() if one == source.checksum]
        finite = all(bool(torch.isfinite(embeddings).all()) for embeddings in found)
        return finite and bool(np.isfinite(self._vectors.get(source.checksum, np.zeros(0))).all())

    def vectors(self, source: SourcePrompt | None) -> np.ndarray:
        """The features that `readings` tells of, under a source's prompt, or of the bare backbone.

        *Shape:* (vectors, hidden), float64.
        """
        assert self.readings is not None
        key = None if source is None else source.checksum
        if source is not None and key not in self._vectors:
            self.read([source])
        elif key not in self._vectors:
            self._vectors[key] = self.readings.vectors(read_rows(self.backbone, self.texts, self.readout))
        return self._vectors[key]

    def word_embedding(self, kind: PromptKind, length: int) -> np.ndarray:
        """The mean embedding of the words of the texts that signatures are of, behind a prompt of this shape.

        *Shape:* (hidden,). Raises PandaError if the texts do not fit behind it.
        """
        length = min(length, _LONGEST)
        if (kind, length) not in self._words:
            count = SIGNATURE_EXAMPLES if self.signed is None else min(SIGNATURE_EXAMPLES, self.signed)
            empty = Prompt(kind, torch.zeros(self.backbone.shape.of(kind, length)))
            self._words[kind, length] = word_embedding(self.backbone, empty, self.texts.first(count))
        return self._words[kind, length]

    def read(self, sources: Sequence[SourcePrompt], progress: Progress | None = None) -> None:
        """Read what heads would under every prompt that this was not done for yet.

        Less than `observe`: no signatures are made, for which all layers have to be looked at.
        """
        if self.readings is None:
            self.observe(sources, progress=progress)
            return
        progress = progress or Silent()
        missing = {one.checksum: one for one in sources if one.checksum not in self._vectors}
        for part in _parts(missing.values()):
            found = read_rows_under(self.backbone, self.texts, self.readout, [one.prompt for one in part])
            for source, features in zip(part, found, strict=True):
                self._vectors[source.checksum] = self.readings.vectors(features)
            progress.advance(len(part))

    def halves(self) -> tuple[TargetFeatures, TargetFeatures]:
        """Half of the examples whose labels are known, drawn with a fixed seed, and the others."""
        assert self.readings is not None
        owners = np.unique(self.readings.owner)
        first = np.random.default_rng([0, 3]).permutation(owners)[: -(-len(owners) // 2)]
        within = np.isin(self.readings.owner, first)
        parts = [self.readings.of(chosen) for chosen in (within, ~within)]
        ours, theirs = (
            TargetFeatures(self.backbone, one.encoded, spec=self.spec, readings=one, readout=self.readout)
            for one in parts
        )
        return ours, theirs

    def join(self, halves: tuple[TargetFeatures, TargetFeatures], sources: Sequence[SourcePrompt]) -> None:
        """Take over what both of `halves` have read under these prompts."""
        assert self.readings is not None
        within = np.isin(self.readings.owner, halves[0].readings.owner if halves[0].readings is not None else [])
        for source in sources:
            parts = [half.vectors(source) for half in halves]
            whole = np.empty((len(within), parts[0].shape[1]))
            whole[within], whole[~within] = parts
            self._vectors[source.checksum] = whole

    def observe(
        self, sources: Sequence[SourcePrompt], examples: int = SIGNATURE_EXAMPLES, progress: Progress | None = None
    ) -> None:
        """Run the texts under every prompt that they were not seen under yet, prompts of one shape together."""
        progress = progress or Silent()
        missing = {one.checksum: one for one in sources if (one.checksum, examples) not in self._under}
        for part in _parts(missing.values()):
            self._observe(part, examples)
            progress.advance(len(part))

    def _observe(self, sources: Sequence[SourcePrompt], examples: int) -> None:
        count = examples if self.signed is None else min(examples, self.signed)
        # Features come from the same pass; a signature of other texts is a pass of its own.
        readings = None if all(one.checksum in self._vectors for one in sources) else self.readings
        texts = self.texts.first(count) if readings is None else self.texts
        observations = observe(
            self.backbone,
            [one.prompt for one in sources],
            texts,
            examples=count,
            readout=None if readings is None else self.readout,
        )
        for source, observation in zip(sources, observations, strict=True):
            self._under[source.checksum, examples] = observation.signature
            if readings is not None:
                self._vectors[source.checksum] = readings.vectors(observation.features)


def _parts(sources: Iterable[SourcePrompt]) -> Iterator[list[SourcePrompt]]:
    """Prompts of one shape each, and not too many at once."""
    for _, alike in groupby(sorted(sources, key=_shape), key=_shape):
        group = list(alike)
        for start in range(0, len(group), _TOGETHER):
            yield group[start : start + _TOGETHER]


def _shape(source: SourcePrompt) -> tuple[str, torch.Size]:
    return source.prompt.kind, source.prompt.tensor.shape

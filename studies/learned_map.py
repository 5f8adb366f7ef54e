"""Can a linear map stand for the passes of a ranking? (docs/log.md)

    python studies/learned_map.py --data-dir DATA --bank BANK --fit pool --targets cr,mpqa,trec --seeds 0,1,2

A ranking passes the target's texts through the model under every prompt. A map from the bare model's features to those
under a prompt, fitted once by ridge regression on other texts, would need one pass of the bare model for all prompts.
It is fitted on texts of many tasks (`--fit pool`, none of the target's own task) or on the training texts of the
prompt's own task (`--fit own`). `probe_shrunk` scores the prompts of the bank by their real features and by mapped
ones; compared are the first 4 and 8 by maps, and by nearness of the texts (transfers/shortlist.py), with the best by
passes: how often it is among them, and how much less the best of them explains. One JSON line a target and seed, and
the means.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from promptpanda import Backbone, Bank, TrainingOptions, load_task
from promptpanda.bank.catalogue import opened
from promptpanda.bank.folder import SourcePrompt
from promptpanda.progress import Silent
from promptpanda.quiet import quiet_libraries
from promptpanda.tasks.encoding import encode
from promptpanda.tasks.inputs import Text
from promptpanda.tasks.protocol import partition
from promptpanda.training.defaults import settled
from promptpanda.training.inference import read_rows
from promptpanda.transfers.estimators import TargetFeatures, estimators
from promptpanda.transfers.overlap import TargetRows
from promptpanda.transfers.ranking import fitting_cards, readable_sources
from promptpanda.transfers.shortlist import nearness

LENGTH = 64  # tokens
FIRST = (4, 8)


@dataclass(frozen=True)
class LinearMap:
    """From the bare model's features to those under a prompt."""

    mean: np.ndarray
    weight: np.ndarray
    shift: np.ndarray

    @classmethod
    def fitted(cls, bare: np.ndarray, under: np.ndarray, penalty: float) -> LinearMap:
        """Ridge regression; the penalty is relative to the mean variance of the bare features."""
        mean, shift = bare.mean(0), under.mean(0)
        gram = (bare - mean).T @ (bare - mean)
        gram += penalty * np.trace(gram) / len(gram) * np.eye(len(gram))
        return cls(mean, np.linalg.solve(gram, (bare - mean).T @ (under - shift)), shift)

    def __call__(self, bare: np.ndarray) -> np.ndarray:
        return (bare - self.mean) @ self.weight + self.shift


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--bank", type=Path, required=True)
    parser.add_argument("--targets", default="cr,mpqa,trec,subj,sst2,ag_news,snli,qqp,rte")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--fit", choices=("pool", "own"), default="pool")
    parser.add_argument(
        "--texts", type=int, default=50, help="of each task of the pool; six times as many of one's own"
    )
    parser.add_argument("--penalty", type=float, default=0.1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    quiet_libraries()
    backbone, bank = Backbone.load(), Bank(given.bank, others={})
    tasks = sorted({card.task.name for card in bank.cards()})
    texts = {name: some for name in tasks if (some := texts_of(name, given))}
    kept: dict[tuple[str, str], np.ndarray] = {}  # features by prompt (or none) and task of the texts

    def features(source: SourcePrompt | None, task: str) -> np.ndarray:
        key = "" if source is None else source.id, task
        if key not in kept:
            encoded = encode(backbone, texts[task], LENGTH)
            kept[key] = np.stack(read_rows(backbone, encoded, "mean", None if source is None else source.prompt))
        return kept[key].astype(np.float64)

    found = []
    for name in given.targets.split(","):
        for seed in map(int, given.seeds.split(",")):
            target, sources, near = candidates(name, seed, backbone, bank, given.data_dir)
            usable = [place for place, source in enumerate(sources) if source.task in texts]
            passes, mapped = [], []
            for place in usable:
                source = sources[place]
                read = [source.task] if given.fit == "own" else [task for task in texts if task != name]
                bare, under = (np.concatenate([features(one, task) for task in read]) for one in (None, source))
                passes.append(shrunk(target.vectors(source), target))
                mapped.append(shrunk(LinearMap.fitted(bare, under, given.penalty)(target.vectors(None)), target))
            row: dict[str, object] = {"target": name, "seed": seed, "sources": len(usable)}
            row |= {"correlation": round(float(spearmanr(passes, mapped)[0]), 3)}
            row |= compared("map", mapped, passes) | compared("nearness", near[usable], passes)
            found.append(row)
            print(json.dumps(row), flush=True)
    numbers = [name for name, value in found[0].items() if isinstance(value, (int, float)) and name != "seed"]
    print(json.dumps({name: round(float(np.mean([row[name] for row in found])), 3) for name in numbers}))


def texts_of(name: str, given: argparse.Namespace) -> tuple[Text, ...]:
    """Training texts of a task; none where it is not one of whole texts."""
    split = load_task(name, data_dir=given.data_dir).train()
    if type(split.texts[0]) is not tuple:
        return ()
    count = given.texts * (6 if given.fit == "own" else 1)
    chosen = np.sort(np.random.default_rng(7).permutation(len(split))[:count])
    return split.take(chosen).texts


def candidates(
    name: str, seed: int, backbone: Backbone, bank: Bank, data_dir: Path
) -> tuple[TargetFeatures, list[SourcePrompt], np.ndarray]:
    """A target with 64 labels, read under all prompts that did not see its rows, and how near their texts are."""
    task = load_task(name, data_dir=data_dir)
    part = partition(task, train_examples=64, seed=seed)
    options = settled(TrainingOptions(max_length=LENGTH, readout="mean"), task.kind, part.train, backbone)
    target = TargetFeatures.of(backbone, task, part, options)
    entries = fitting_cards(task, backbone, bank, TargetRows.of([part], task.test()), Silent()).cards
    sources = readable_sources(entries, backbone, bank, Silent())
    target.read(sources)
    with opened(bank) as catalogue:
        return target, sources, nearness(entries, catalogue.vectors(entries), target)


def shrunk(vectors: np.ndarray, target: TargetFeatures) -> float:
    """`probe_shrunk` of these features of the target's examples."""
    return estimators()["probe_shrunk"].score(None, WithFeatures.of(target, vectors))


class WithFeatures(TargetFeatures):
    """A target whose bare features are others."""

    @classmethod
    def of(cls, target: TargetFeatures, vectors: np.ndarray) -> WithFeatures:
        found = cls(target.backbone, target.texts, spec=target.spec, readings=target.readings, readout=target.readout)
        found._vectors[None] = vectors
        return found


def compared(by: str, scores: Sequence[float] | np.ndarray, passes: Sequence[float]) -> dict[str, float]:
    """Whether the best by passes is among the first, and how much less the best of these explains."""
    order, said = np.argsort(-np.asarray(scores), kind="stable"), np.asarray(passes)
    row = {}
    for count in FIRST:
        row[f"{by}: best in {count}"] = float(said.argmax() in order[:count])
        row[f"{by}: lost in {count}"] = round(float(said.max() - said[order[:count]].max()), 4)
    return row


if __name__ == "__main__":
    main()

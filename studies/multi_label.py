"""Several labels a text: which thresholds to give them, and prompt tuning beside scikit-learn (docs/log.md).

    python studies/multi_label.py thresholds --data-dir DATA --tasks conll03,wikigold,conll04
    python studies/multi_label.py compare --data-dir DATA --tasks gum_entities --budgets 64,500 --seeds 0,1,2

The labels of a sentence are the types of the entities in it: some sentences have several, some none. `thresholds` fits
one-vs-rest logistic regressions to frozen, mean-pooled features of the training part, chooses thresholds on the
validation part by several rules, and scores them on 1,000 test rows, over 20 draws: the rule and its strength were
chosen so, on other sets than the one that `compare` reports. `compare` trains on the same rows and scores on the same
test rows: prompt tuning; a head alone; scikit-learn's OneVsRestClassifier of logistic regressions on mean-pooled
features of unit length, C by five-fold cross-validation on all rows of the budget, with the threshold 1/2 and with
thresholds by our rule from cross-validated probabilities. One JSON line a result, then means over seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, cross_val_predict
from sklearn.multiclass import OneVsRestClassifier

from promptpanda import Backbone, TrainingOptions, load_task, transfer
from promptpanda.quiet import quiet_libraries
from promptpanda.tasks.encoding import encode
from promptpanda.tasks.inputs import Split, Words
from promptpanda.tasks.metrics import label_scores
from promptpanda.tasks.protocol import capped, partition
from promptpanda.tasks.spec import TaskSpec
from promptpanda.tasks.task import Task
from promptpanda.training.heads import features
from promptpanda.training.inference import forward
from promptpanda.training.objectives.thresholds import label_thresholds

Rule = Callable[[np.ndarray, np.ndarray], tuple[float, ...]]


def entity_types(name: str, data_dir: Path, folder: Path) -> Task:
    """A tagging task as one of several labels a sentence."""
    source = load_task(name, data_dir=data_dir)
    types = sorted({tag[2:] for tag in source.labels if tag != "O"})
    for part in ("train", "test"):
        split = source.split(part)
        assert split is not None
        rows = []
        for words, tags in zip(split.texts, split.labels, strict=True):
            assert isinstance(words, Words)
            found = {source.labels[tag][2:] for tag in tags if tag}
            rows.append({"text": " ".join(words.words), "labels": sorted(found)})
        (folder / name).mkdir(exist_ok=True)
        (folder / name / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    content = {"name": name, "kind": "multi_label", "segments": ["{text}"], "label": "labels", "labels": types}
    return Task(TaskSpec.parse(content | {"metrics": ["micro_f1", "macro_f1"]}, "the study"), folder)


def pooled(backbone: Backbone, split: Split) -> np.ndarray:
    """Frozen features of unit length, mean over tokens. *Shape:* (examples, hidden)."""
    rows = forward(
        backbone,
        [],
        encode(backbone, split.texts, 128),
        lambda batch, layout, stack: features(backbone, batch, layout, stack, "mean"),
    )
    found = np.stack(rows)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def with_strength(strength: float) -> Rule:
    return lambda probabilities, labels: label_thresholds(probabilities, labels, strength)


def one_for_all(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
    """The threshold with the best micro F1, the same for all labels."""
    return label_thresholds(probabilities.reshape(-1, 1), labels.reshape(-1, 1), 0.0) * labels.shape[1]


RULES: dict[str, Rule] = {
    "one half": lambda probabilities, labels: (0.5,) * labels.shape[1],
    "one for all": one_for_all,
    "best on validation": with_strength(0.0),
    **{f"with {strength} expected": with_strength(strength) for strength in (10, 20, 40, 80)},
}


def one_vs_rest(c: float) -> OneVsRestClassifier:
    return OneVsRestClassifier(LogisticRegression(C=c, max_iter=1000))


def rules_of(backbone: Backbone, task: Task, budgets: list[int], draws: int) -> None:
    pool, test = task.train(), capped(task.test(), 1000)
    vectors, seen = pooled(backbone, pool), pooled(backbone, test)
    for budget in budgets:
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in RULES}
        for draw in range(draws):
            rows = np.random.default_rng([draw, 9]).permutation(len(pool))[:budget]
            held_out, train = np.split(rows, [int(np.clip(round(0.2 * budget), 8, 500))])
            for c in (3.0, 30.0):
                model = one_vs_rest(c).fit(vectors[train], pool.labels[train])
                validation, said = model.predict_proba(vectors[held_out]), model.predict_proba(seen)
                for name, rule in RULES.items():
                    given = said >= np.asarray(rule(validation, pool.labels[held_out]))
                    scores = label_scores(test.labels, given.astype(int))
                    found[name].append((scores["micro_f1"], scores["macro_f1"]))
        for name, values in found.items():
            micro, macro = np.mean(values, axis=0).round(3).tolist()
            print(json.dumps({"task": task.name, "budget": budget, "rule": name, "micro": micro, "macro": macro}))


def scikit_learn(backbone: Backbone, whole: Split, test: Split) -> Iterator[tuple[str, dict[str, float], float]]:
    began = time.perf_counter()
    vectors, folds = pooled(backbone, whole), KFold(5, shuffle=True, random_state=0)
    grid = {"estimator__C": np.logspace(-2, 2, 9)}
    search = GridSearchCV(one_vs_rest(1.0), grid, scoring="f1_micro", cv=folds).fit(vectors, whole.labels)
    seconds, seen = time.perf_counter() - began, pooled(backbone, test)
    said = search.predict_proba(seen)
    yield "one-vs-rest", label_scores(test.labels, (said >= 0.5).astype(int)), seconds
    left_out = cross_val_predict(search.best_estimator_, vectors, whole.labels, cv=folds, method="predict_proba")
    chosen = np.asarray(label_thresholds(left_out, whole.labels))
    yield "one-vs-rest, thresholds", label_scores(test.labels, (said >= chosen).astype(int)), seconds


def ours(
    backbone: Backbone, task: Task, budget: int, seed: int, options: TrainingOptions
) -> Iterator[tuple[str, dict[str, float], float]]:
    assert task.data_dir is not None
    result = transfer(
        task,
        backbone=backbone,
        bank=task.data_dir / "bank",
        methods=["prompt_tuning", "head_only"],
        options=options,
        train_examples=budget,
        test_examples=1000,
        seeds=[seed],
    )
    for name, method in result.methods.items():
        card = method.outcomes[0].card
        assert card.test is not None
        yield name, card.test.scores, card.seconds


def compare(backbone: Backbone, task: Task, budgets: list[int], seeds: list[int], options: TrainingOptions) -> None:
    test = capped(task.test(), 1000)
    for budget in budgets:
        found: dict[str, list[tuple[float, float]]] = {}
        for seed in seeds:
            part = partition(task, train_examples=budget, seed=seed)
            whole = part.train.joined(part.validation)
            results = scikit_learn(backbone, whole, test), ours(backbone, task, budget, seed, options)
            for name, scores, seconds in chain(*results):
                pair = scores["micro_f1"], scores["macro_f1"]
                found.setdefault(name, []).append(pair)
                line = {"task": task.name, "budget": budget, "seed": seed, "method": name, "seconds": round(seconds, 1)}
                print(json.dumps(line | {"micro": round(pair[0], 3), "macro": round(pair[1], 3)}), flush=True)
        for name, values in found.items():
            mean, spread = np.mean(values, axis=0).round(3).tolist(), np.std(values, axis=0, ddof=1).round(3).tolist()
            line = {"task": task.name, "budget": budget, "method": name, "n_test": len(test)}
            print(json.dumps(line | {"micro": mean[0], "macro": mean[1], "std": spread}), flush=True)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("what", choices=["thresholds", "compare"])
parser.add_argument("--data-dir", type=Path, required=True)
parser.add_argument("--model")
parser.add_argument("--tasks", default="gum_entities")
parser.add_argument("--budgets", default="64,500")
parser.add_argument("--seeds", default="0,1,2")
parser.add_argument("--class-weights", choices=["balanced"])
arguments = parser.parse_args()

quiet_libraries()
warnings.filterwarnings("ignore", message="Label .* is present in all|Label not .* is present in all")
torch.set_num_threads(1)
backbone = Backbone.load(arguments.model)
asked = [int(budget) for budget in arguments.budgets.split(",")]
with tempfile.TemporaryDirectory() as scratch:
    for task_name in arguments.tasks.split(","):
        one = entity_types(task_name, arguments.data_dir, Path(scratch))
        if arguments.what == "thresholds":
            rules_of(backbone, one, asked, draws=20)
        else:
            given = TrainingOptions.of(class_weights=arguments.class_weights)
            compare(backbone, one, asked, [int(seed) for seed in arguments.seeds.split(",")], given)

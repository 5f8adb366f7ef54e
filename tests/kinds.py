"""Small tasks of every kind on the tiny models' vocabulary, which tests of the kinds share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from conftest import WORDS, sentiment_rows, write_jsonl

from promptpanda.backbone import Backbone
from promptpanda.tasks.encoding import encode
from promptpanda.tasks.inputs import Split
from promptpanda.tasks.spec import TaskSpec
from promptpanda.tasks.task import Task
from promptpanda.training.inference import Data

GOOD, BAD, FILLERS = WORDS[:5], WORDS[5:10], WORDS[17:29]
MARKER = "phone"
Rows = list[dict[str, Any]]


def pair_rows(count: int, seed: int = 0) -> Rows:
    return [
        {"first": row["text"], "second": f"w{number % 60} w{number % 7}", "label": row["label"]}
        for number, row in enumerate(sentiment_rows(count, seed))
    ]


def equal_pairs(count: int, seed: int = 0) -> Rows:
    """Whether two texts are equal: seen of their difference, and hardly of the pair read as one."""
    draws = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        first, other = (" ".join(f"w{word}" for word in draws.integers(0, 60, 5)) for _ in range(2))
        equal = number % 2
        rows.append({"first": first, "second": first if equal else other, "label": "good" if equal else "bad"})
    return rows


def value_rows(count: int, seed: int = 0) -> Rows:
    """How many good words there are."""
    draws = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        good = int(draws.integers(0, 7))
        words = [str(word) for word in (*draws.choice(GOOD, good), *draws.choice(BAD, 6 - good))]
        rows.append({"text": " ".join(draws.permutation(words)), "label": 10.0 + good})
    return rows


def label_set_rows(count: int, seed: int = 0) -> Rows:
    """`up` for a good word, `down` for a bad one: both, one or none of them."""
    draws = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        up, down = divmod(number % 4, 2)
        words = [*draws.choice(GOOD, up), *draws.choice(BAD, down), *draws.choice(FILLERS, 4)]
        labels = [name for name, there in (("up", up), ("down", down)) if there]
        rows.append({"text": " ".join(map(str, draws.permutation(words))), "label": labels})
    return [rows[index] for index in draws.permutation(count)]


def choice_rows(count: int, seed: int = 0, most: int = 4) -> Rows:
    """Two to `most` choices, of which the one with a good word is right."""
    draws = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        options = int(draws.integers(2, most + 1))
        right = int(draws.integers(0, options))
        texts = [
            " ".join([str(draws.choice(GOOD if place == right else BAD)), *map(str, draws.choice(FILLERS, place + 1))])
            for place in range(options)
        ]
        rows.append({"premise": f"the {draws.choice(FILLERS)}", "choices": texts, "label": right})
    return rows


def word_rows(count: int, seed: int = 0) -> Rows:
    """Good words are one type, bad words the other, some of them in a span of two."""
    draws = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        words: list[str] = []
        tags: list[str] = []
        for _ in range(int(draws.integers(2, 6))):
            kind = int(draws.integers(0, 3))
            if kind == 2:
                words.append(str(draws.choice(FILLERS)))
                tags.append("O")
            else:
                words += [str(draws.choice((GOOD, BAD)[kind])), str(draws.choice(FILLERS))]
                tags += [("B-UP", "B-DOWN")[kind], "O"]
        rows.append({"tokens": words, "tags": tags})
    rows[0] = {"tokens": ["good", "w1", "bad"], "tags": ["B-UP", "O", "B-DOWN"]}
    return rows


def question_rows(count: int, seed: int = 0, unanswerable: float = 0.0, length: int = 9) -> Rows:
    """The answer is the good word after the marker; where there is no marker, there is no answer."""
    draws = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        words = [str(word) for word in draws.choice(FILLERS, length)]
        place = int(draws.integers(1, length))
        none = number < unanswerable * count
        if not none:
            words[place - 1], words[place] = MARKER, str(draws.choice(GOOD))
        context = " ".join(words)
        start = len(" ".join(words[:place])) + 1
        answers = {"text": [], "answer_start": []} if none else {"text": [words[place]], "answer_start": [start]}
        rows.append({"question": f"a {draws.choice(FILLERS)}", "context": context, "answers": answers})
    order = draws.permutation(count)
    return [rows[index] for index in order]


ROWS = {
    "single_classification": sentiment_rows,
    "pair_classification": pair_rows,
    "multi_label": label_set_rows,
    "regression": value_rows,
    "multiple_choice": choice_rows,
    "token_classification": word_rows,
    "extractive_qa": question_rows,
}
SPECS: dict[str, dict[str, Any]] = {
    "single_classification": {"segments": ["{text}"], "labels": ["good", "bad"], "metrics": ["accuracy"]},
    "pair_classification": {"segments": ["{first}", "{second}"], "labels": ["good", "bad"], "metrics": ["accuracy"]},
    "multi_label": {"segments": ["{text}"], "labels": ["up", "down"], "metrics": ["micro_f1", "macro_f1"]},
    "regression": {"segments": ["{text}"], "metrics": ["pearson_spearman"]},
    "multiple_choice": {"segments": ["{premise}", "{choice}"], "choice_list": "choices", "metrics": ["accuracy"]},
    "token_classification": {
        "segments": ["{tokens}"],
        "label": "tags",
        "labels": ["UP", "DOWN"],
        "metrics": ["span_f1", "span_precision", "span_recall"],
    },
    "extractive_qa": {
        "segments": ["{question}", "{context}"],
        "label": "answers",
        "metrics": ["squad_f1", "squad_em"],
    },
}
KINDS = list(SPECS)
NEW = ["multiple_choice", "token_classification", "extractive_qa"]


def kind_task(
    kind: str,
    root: Path,
    name: str | None = None,
    *,
    train: int = 40,
    test: int | None = 24,
    seed: int = 0,
    rows: Rows | None = None,
    **changes: Any,
) -> Task:
    """A learnable task of a kind, with its files in a data root."""
    name = name or kind.replace("_", "-")
    unanswerable = {"unanswerable": 0.4} if changes.get("no_answer") else {}
    made = ROWS[kind](train, seed, **unanswerable) if rows is None else rows
    write_jsonl(root / name / "train.jsonl", made)
    if test is not None:
        write_jsonl(root / name / "test.jsonl", ROWS[kind](test, seed + 1000, **unanswerable))
    return Task(TaskSpec.parse({"name": name, "kind": kind} | SPECS[kind] | changes, "a test"), root)


def data_of(backbone: Backbone, task: Task, split: Split | None = None, max_length: int = 32) -> Data:
    """A split (train by default), encoded."""
    split = task.train() if split is None else split
    return Data(encode(backbone, split.texts, max_length), split, task.spec, task.labels)

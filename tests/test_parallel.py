"""Forward passes at once: the same results as one after the other, in order, and nothing left changed."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from conftest import save_tiny, sentiment_rows
from families import FAMILIES

from promptpanda.backbone import Backbone
from promptpanda.parallel import mapped
from promptpanda.prompts.prompt import Prompt
from promptpanda.tasks.encoding import encode
from promptpanda.training.inference import read_rows, read_rows_under

CPU = torch.device("cpu")


@pytest.fixture
def threads():
    """Sets torch's threads; they are what they were afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_results_come_in_order_and_threads_are_as_before(threads):
    threads(3)
    used = set()

    def work(number: int) -> tuple[int, int]:
        used.add(threading.get_ident())
        return number, torch.get_num_threads()

    assert list(mapped(work, range(20), CPU)) == [(number, 1) for number in range(20)]
    assert threading.get_ident() not in used
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("count", [0, 1])
def test_a_single_piece_has_all_threads(count, threads):
    threads(3)
    assert list(mapped(lambda _: torch.get_num_threads(), range(count), CPU)) == [3] * count


def test_one_thread_stays_one(threads):
    threads(1)
    assert list(mapped(lambda _: threading.get_ident(), range(3), CPU)) == [threading.get_ident()] * 3


def test_a_failure_is_raised_and_leaves_the_threads_alone(threads):
    threads(2)
    with pytest.raises(ZeroDivisionError):
        list(mapped(lambda number: 1 // (5 - number), range(10), CPU))
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_passes_at_once_equal_passes_in_turn(family, tmp_path, threads):
    backbone = Backbone.load(str(save_tiny(FAMILIES[family], tmp_path / "model")))
    texts = [(str(row["text"]),) for row in sentiment_rows(200, 3)]
    encoded = encode(backbone, texts, 24)
    generator = torch.Generator().manual_seed(0)
    prompts = [Prompt.fresh("prefix", backbone.shape, 3, 1.0, generator) for _ in range(3)]
    readout = backbone.auto_readout
    found = []
    for count in (1, 4):
        threads(count)
        found.append(
            (read_rows(backbone, encoded, readout, prompts[0]), read_rows_under(backbone, encoded, readout, prompts))
        )
    (alone, under), (at_once, under_at_once) = found
    assert np.array_equal(np.stack(alone), np.stack(at_once))
    assert np.array_equal(np.asarray(under), np.asarray(under_at_once))
    for number, prompt in enumerate(prompts):
        threads(1)
        np.testing.assert_allclose(
            np.stack(under[number]), np.stack(read_rows(backbone, encoded, readout, prompt)), atol=1e-5
        )

"""The queue before the model: which rows share a batch, and that nobody waits for ever."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kinds import kind_task
from serving import OPTIONS

from promptpanda.bank.bank import Bank
from promptpanda.serving.batching import Batcher, _narrowest
from promptpanda.serving.limits import RefusedError
from promptpanda.serving.mixing import Piece, Work, compute, prepared
from promptpanda.transfers.transfer import train


class Recorder:
    """Runs batches for real, and remembers which rows they had."""

    def __init__(self, backbone) -> None:
        self.backbone = backbone
        self.batches: list[list[Piece]] = []
        self.idled = 0
        self.hold = threading.Event()
        self.hold.set()

    def enter(self) -> None:
        pass

    def run(self, pieces) -> None:
        self.hold.wait(20)
        self.batches.append(list(pieces))
        compute(self.backbone, pieces)

    def idle(self) -> None:
        self.idled += 1


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_backbone):
    folder: Path = tmp_path_factory.mktemp("queue")
    task = kind_task("single_classification", folder / "data")
    return train(task, tiny_backbone, bank=Bank(folder / "bank", others={}), options=OPTIONS)


@pytest.fixture
def recorder(tiny_backbone):
    return Recorder(tiny_backbone)


@pytest.fixture
def queue(recorder):
    batcher = Batcher(recorder, max_batch=4, max_wait=0.05, max_queue=200)
    batcher.start()
    yield batcher
    recorder.hold.set()
    batcher.close()


class Waiting:
    """Works, and an event that tells when all are done."""

    def __init__(self, trained, backbone) -> None:
        self.trained, self.backbone = trained, backbone
        self.order: list[int] = []
        self.works: list[Work] = []
        self.changed = threading.Event()

    def work(self, *lengths: int) -> Work:
        number = len(self.works)
        texts = tuple((" ".join(["w1"] * length),) for length in lengths)
        self.works.append(prepared(self.backbone, self.trained, texts, lambda: self.done(number)))
        return self.works[-1]

    def done(self, number: int) -> None:
        self.order.append(number)
        self.changed.set()

    def all(self) -> None:
        end = time.monotonic() + 20
        while len(self.order) < len(self.works):
            assert self.changed.wait(end - time.monotonic())
            self.changed.clear()


@pytest.fixture
def waiting(trained, tiny_backbone):
    return Waiting(trained, tiny_backbone)


def begin(queue: Batcher, recorder: Recorder, works: list[Work]) -> None:
    """Queue all of them before the first batch is made."""
    recorder.hold.clear()
    held = threading.Event()

    def step():
        held.set()
        recorder.hold.wait(20)
        yield "held"

    queue.run(step())
    assert held.wait(20)
    for work in works:
        queue.submit(work)
    recorder.hold.set()


def test_rows_of_similar_length_share_a_batch(queue, recorder, waiting):
    works = [waiting.work(length) for length in (3, 20, 4, 19, 2, 21, 3, 20)]
    begin(queue, recorder, works)
    waiting.all()
    batches = [[work.encoded.row_lengths[row] for work, rows in batch for row in rows] for batch in recorder.batches]
    lengths = [sorted(map(int, batch)) for batch in batches]
    assert sorted(lengths) == [[4, 5, 5, 6], [21, 22, 22, 23]]


def test_small_requests_pass_a_large_one(queue, recorder, waiting):
    """The small one waits for one batch of the large one, not for all of its ten."""
    large, small = waiting.work(*[9] * 40), waiting.work(2)
    begin(queue, recorder, [large, small])
    waiting.all()
    assert waiting.order == [1, 0]
    assert any(work is small for batch in recorder.batches[:2] for work, _ in batch)


def test_no_row_waits_for_ever(queue, recorder, waiting):
    """A row that fits no batch has its turn, however many others come."""
    works = [waiting.work(25), *(waiting.work(3) for _ in range(40))]
    begin(queue, recorder, works)
    waiting.all()
    assert any(work is works[0] for work, _ in recorder.batches[0])


def test_a_cancelled_work_is_not_computed(queue, recorder, waiting):
    works = [waiting.work(3), waiting.work(3)]
    recorder.hold.clear()
    for work in works:
        queue.submit(work)
    waiting.works.pop()
    queue.cancel(works[1])
    recorder.hold.set()
    waiting.all()
    queue.close()
    assert waiting.order == [0]
    assert queue.waiting == 0


def test_what_was_queued_is_finished_and_nothing_more_is_taken(queue, recorder, waiting):
    works = [waiting.work(3, 9, 2), waiting.work(5)]
    begin(queue, recorder, works)
    queue.close()
    assert sorted(waiting.order) == [0, 1]
    with pytest.raises(RefusedError) as refused:
        queue.submit(waiting.work(1))
    assert refused.value.status == 503


def test_several_threads_share_the_rows_and_answer_once(recorder, waiting, tiny_backbone):
    queue = Batcher(recorder, max_batch=4, max_wait=0.001, max_queue=1000, workers=3)
    lengths = [[1 + (7 * number + place) % 19 for place in range(1 + number % 9)] for number in range(60)]
    works = [waiting.work(*own) for own in lengths]
    queue.start()
    for work in works:
        queue.submit(work)
    waiting.all()
    queue.close()
    assert sorted(waiting.order) == list(range(60))
    for work in works:
        alone = prepared(tiny_backbone, work.trained, work.inputs, lambda: None)
        compute(tiny_backbone, [(alone, tuple(range(alone.rows)))])
        for row in range(work.rows):
            np.testing.assert_allclose(work.outputs[row], alone.outputs[row], atol=1e-5)


def test_few_rows_are_shared_out_among_the_threads(recorder, waiting):
    queue = Batcher(recorder, max_batch=32, max_wait=0.2, max_queue=100, workers=2)
    queue.submit(waiting.work(3, 3, 3, 3, 3, 3))
    recorder.hold.clear()
    queue.start()
    time.sleep(0.5)
    recorder.hold.set()
    waiting.all()
    queue.close()
    assert [sum(len(rows) for _, rows in batch) for batch in recorder.batches] == [3, 3]


def test_a_job_has_the_model_for_itself(recorder, waiting):
    computing = 0
    lock = threading.Lock()

    class Watched(Recorder):
        def run(self, pieces) -> None:
            nonlocal computing
            with lock:
                computing += 1
            time.sleep(0.005)
            super().run(pieces)
            with lock:
                computing -= 1

    seen = []

    def job():
        for step in range(5):
            before = computing
            time.sleep(0.03)
            seen.append((before, computing))
            yield str(step)

    queue = Batcher(Watched(recorder.backbone), max_batch=2, max_wait=0.0, max_queue=1000, workers=3)
    queue.start()
    for _ in range(100):
        queue.submit(waiting.work(3, 4))
    queue.run(job())
    waiting.all()
    queue.close()
    assert seen == [(0, 0)] * 5


def test_idle_is_told_once_until_there_is_work_again(recorder, waiting):
    queue = Batcher(recorder, max_batch=4, max_wait=0.0, max_queue=10, idle_after=0.05)
    queue.start()
    for count in (1, 2):
        end = time.monotonic() + 20
        while recorder.idled < count and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.2)
        assert recorder.idled == count
        queue.submit(waiting.work(3))
        waiting.all()
    queue.close()


@given(st.lists(st.integers(0, 30), min_size=1, max_size=30), st.data())
def test_the_narrowest_window_around_a_row(lengths, data):
    rows = [(length, number, 0) for number, length in enumerate(sorted(lengths))]
    place, size = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.integers(1, 8))
    start, stop = _narrowest(rows, place, size)
    assert start <= place < stop
    assert stop - start == min(size, len(rows))
    width = stop - start
    every = [rows[at : at + width] for at in range(len(rows) - width + 1) if at <= place < at + width]
    assert rows[stop - 1][0] - rows[start][0] == min(window[-1][0] - window[0][0] for window in every)

"""What the server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters of one server. Prompts are told apart by id; names that are asked for in vain are not counted.

    Args:
        waiting: rows in the queue, when it is asked.
        served: prompts that are served.
        loaded: whether the model's weights are in memory.
    """

    def __init__(self, *, waiting: Callable[[], int], served: Callable[[], int], loaded: Callable[[], bool]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "panda_requests", "HTTP requests, by route and status.", ("route", "status"), registry=self.registry
        )
        self.rows = Counter("panda_rows", "Texts or rows that were answered.", ("prompt",), registry=self.registry)
        self.seconds = Histogram(
            "panda_request_seconds",
            "Seconds from a request's arrival to its predictions.",
            ("prompt",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batch_rows = Histogram(
            "panda_batch_rows", "Rows of a batch, as the model reads them.", buckets=_ROWS, registry=self.registry
        )
        self.batch_prompts = Histogram(
            "panda_batch_prompts", "Different prompts in a batch.", buckets=_ROWS, registry=self.registry
        )
        self.model_seconds = Counter("panda_model_seconds", "Seconds spent in the model.", registry=self.registry)
        for name, about, value in (
            ("panda_queue_rows", "Rows that wait for the model.", waiting),
            ("panda_prompts", "Prompts that are served.", served),
            ("panda_model_loaded", "1 while the model's weights are in memory.", loaded),
        ):
            Gauge(name, about, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self.registry)

"""MLflow: the experiment MLFLOW_EXPERIMENT_NAME, or the project, where MLFLOW_TRACKING_URI says, else here."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

from promptpanda.tracking.record import Record

_LONGEST = 500  # characters of a parameter, which older servers bound
_TOGETHER = 100  # parameters of one request; of metrics MLflow takes 1000
_WAIT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}  # its own add up to hours


@dataclass(frozen=True)
class _Experiment:
    client: Any
    id: str

    def record(self, record: Record) -> None:
        from mlflow.entities import Metric, Param

        run = self.client.create_run(self.id, run_name=record.name).info.run_id
        now = int(time.time() * 1000)
        numbers = [
            (name, value, epoch) for epoch, values in enumerate(record.curve, 1) for name, value in values.items()
        ]
        numbers += [(name, value, 0) for name, value in record.scores.items()]
        metrics = [Metric(name, value, now, step) for name, value, step in numbers]
        parameters = [Param(name, str(value)[:_LONGEST]) for name, value in record.parameters.items()]
        for start in range(0, max(len(metrics), len(parameters)), _TOGETHER):
            part = slice(start, start + _TOGETHER)
            self.client.log_batch(run, metrics=metrics[part], params=parameters[part])
        if record.failure is not None:
            self.client.set_tag(run, "failure", record.failure[:_LONGEST])
        self.client.set_terminated(run, "FINISHED" if record.failure is None else "FAILED")


def opened(project: str) -> _Experiment:
    """The experiment, made where there is none."""
    for name, value in _WAIT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    client = MlflowClient()
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", project)
    found = client.get_experiment_by_name(name)
    return _Experiment(client, client.create_experiment(name) if found is None else found.experiment_id)

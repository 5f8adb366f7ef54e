"""A bank behind LitServe: its batching before one mixed pass of our engine. benchmarks/serve.py starts it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import litserve
import torch

from promptpanda.backbone import Backbone
from promptpanda.bank.folder import read_folder
from promptpanda.serving.messages import response_prediction
from promptpanda.tasks.unlabeled import read_inputs
from promptpanda.transfers.predict import predict_pairs


class Bank(litserve.LitAPI):
    """As LitServe's documentation has it: decode, batch, predict, unbatch, encode."""

    def __init__(self, bank: Path, model: str, threads: int, **options: Any) -> None:
        super().__init__(**options)
        self._bank, self._model, self._threads = bank, model, threads

    def setup(self, device: str) -> None:
        torch.set_num_threads(self._threads)
        self.backbone = Backbone.load(self._model)
        found = (read_folder(path, self.backbone) for path in self._bank.iterdir() if path.is_dir())
        self.prompts = {one.card.id: one for one in found}

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # LitServe reads its annotations
        card = self.prompts[request["prompt"]].card
        return card.id, read_inputs(card.task, request["rows"], "the request")

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, asked: list[Any]) -> list[Any]:
        pairs = [(self.prompts[name], one) for name, inputs in asked for one in inputs]
        found = iter(predict_pairs(self.backbone, pairs))
        return [(name, [next(found) for _ in inputs]) for name, inputs in asked]

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output: Any) -> dict[str, Any]:
        name, found = output
        return {
            "prompt": name,
            "predictions": [response_prediction(one, probabilities=True, top=None) for one in found],
        }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--bank", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    given = parser.parse_args()
    api = Bank(given.bank, given.model, given.threads, max_batch_size=16, batch_timeout=0.004, api_path="/v1/predict")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=120)
    server.run(host="127.0.0.1", port=given.port, num_api_servers=1, generate_client_file=False, log_level="error")

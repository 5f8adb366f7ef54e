"""How large models are, where that can be told without a network."""

from __future__ import annotations

import os
from collections.abc import Iterable

from promptpanda.errors import PandaError
from promptpanda.footprint import estimate
from promptpanda.models import EMBEDDED, config_of, model_names


def model_sizes(names: Iterable[str]) -> dict[str, int]:
    """Parameters of the models of the catalogue, of the embedded one, and of folders that are there."""
    sizes = {}
    for name in dict.fromkeys(names):
        if name in (EMBEDDED, *model_names()) or os.path.isdir(name):
            try:
                sizes[name] = estimate(config_of(name), prompt_length=1, batch_size=1, length=4).parameters
            except PandaError:
                continue  # not installed, or no model: the report shows it without its size
    return sizes

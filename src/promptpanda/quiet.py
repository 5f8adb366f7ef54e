"""Libraries' warnings are kept off a user's terminal, without importing the libraries."""

from __future__ import annotations

import logging
import os


def quiet_loggers() -> None:
    """Let the libraries log errors only, and keep tokenizers from warning about forks."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for library in ("transformers", "huggingface_hub", "datasets"):
        logging.getLogger(library).setLevel(logging.ERROR)

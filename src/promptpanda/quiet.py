"""Libraries' warnings are kept off a user's terminal, without importing the libraries."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager


def quiet_loggers() -> None:
    """Let the libraries log errors only, and keep tokenizers from warning about forks."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for library in ("transformers", "huggingface_hub", "datasets"):
        logging.getLogger(library).setLevel(logging.ERROR)


@contextmanager
def no_bars() -> Iterator[None]:
    """The library prints nothing: transformers' bars are off while a model is loaded."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def quiet_libraries() -> None:
    """Keep the libraries' warnings and bars off a user's terminal, and tokenizers from warning about forks."""
    quiet_loggers()
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()

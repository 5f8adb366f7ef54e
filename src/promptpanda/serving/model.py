"""The one copy of the model, which can be let go while nobody asks."""

from __future__ import annotations

import threading
from collections.abc import Callable

from promptpanda.backbone import Backbone
from promptpanda.errors import PandaError


class Model:
    """A backbone whose weights are there when they are needed.

    What is known of the backbone (shapes, fingerprints, tokenizer) stays in memory while its weights are not, so that
    prompts are checked and texts are encoded all the same.

    Args:
        load: reads the backbone.

    Attributes:
        tokenizing: held by whoever encodes texts: a tokenizer serves one thread at a time.
    """

    def __init__(self, load: Callable[[], Backbone]) -> None:
        self._load = load
        self._backbone = load()
        self._loaded = True
        self.tokenizing = threading.Lock()
        self._reading = threading.Lock()

    @property
    def backbone(self) -> Backbone:
        """What is known of the backbone; it computes nothing where `loaded` is False."""
        return self._backbone

    @property
    def loaded(self) -> bool:
        return self._loaded

    def ready(self) -> Backbone:
        """The backbone with its weights. For the threads that run the model.

        Raises:
            PandaError: they were let go, and cannot be read again.
        """
        with self._reading:
            if not self._loaded:
                again = self._load()
                if again.fingerprint != self._backbone.fingerprint:
                    raise PandaError("The model was changed on the disk since the server was started; start it again.")
                self._backbone, self._loaded = again, True
            return self._backbone

    def release(self) -> None:
        """Let the weights go; nothing may be computed meanwhile."""
        self._backbone.model.to("meta")  # shapes and configuration stay
        self._loaded = False

"""Names that settings and cards keep, apart from the code that acts on them, which needs torch."""

from __future__ import annotations

from typing import Literal

PromptKind = Literal["prefix", "shallow"]
Readout = Literal["pooler", "cls", "mean", "last"]
HeadReadout = Readout | Literal["compare", "token"]

SIGNATURE_EXAMPLES = 100
"""Texts that a prompt's signature is made of, at most."""

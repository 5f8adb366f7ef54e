"""Names that settings and cards keep, apart from the code that acts on them, which needs torch."""

from __future__ import annotations

from typing import Literal

PromptKind = Literal["prefix", "shallow"]
Readout = Literal["pooler", "cls", "mean", "last"]
HeadReadout = Readout | Literal["compare", "token"]
NumberFormat = Literal["float32", "bfloat16", "float16", "int8", "nf4"]  # the last two of weights; computing in float32
Precision = Literal["auto", "float32", "bfloat16", "float16", "int8", "nf4"]

SIGNATURE_EXAMPLES = 100
"""Texts that a prompt's signature is made of, at most."""

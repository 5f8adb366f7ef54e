"""Resident memory of this process, as Linux tells it."""

from __future__ import annotations

from pathlib import Path


def resident_kb(field: str) -> float:
    """A field of /proc/self/status in KiB: `VmRSS` now, `VmHWM` at the peak."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return float(next(line for line in lines if line.startswith(field)).split()[1])

"""Prompts for the 6-layer MiniLM of all-MiniLM-L6-v2, one for each of many public tasks."""

from pathlib import Path

FOLDER = Path(__file__).parent / "bank"

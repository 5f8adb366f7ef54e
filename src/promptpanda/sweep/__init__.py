"""Sweeps: a recipe becomes a graph of runs, executors carry them out, a store keeps what came of each."""

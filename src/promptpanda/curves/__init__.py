"""Learning curves: how good a task gets with how many labels, and what more of them would give."""

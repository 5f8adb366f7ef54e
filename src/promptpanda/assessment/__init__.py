"""How good one prompt is on labelled rows: figures with intervals, by class, calibrated or not, and where it errs."""

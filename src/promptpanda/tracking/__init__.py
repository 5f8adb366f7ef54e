"""Trainings told to an experiment tracker: MLflow, Trackio or Weights & Biases."""

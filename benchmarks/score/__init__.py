"""Scoring a trained model: predictions of a split, metrics, the Result of a run."""

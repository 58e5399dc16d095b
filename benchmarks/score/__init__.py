"""Scoring a trained model: predictions of a split, metrics, the Result of a run. Knows nothing of training."""

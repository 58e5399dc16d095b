"""Gates: the contract of models, measured numbers and their baselines, and the dry run."""

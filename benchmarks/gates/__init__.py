"""Gates: what a change must keep. The contract of models, measured numbers and their baselines, the dry run."""

"""Training: the step (`step`), the loop (`loop`), what both act on (`state`), and starting or resuming it."""

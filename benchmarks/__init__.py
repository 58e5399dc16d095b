"""The paper's experiments as data, and the commands that run them. Run from the checkout, not installed."""

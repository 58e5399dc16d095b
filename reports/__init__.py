"""Tables, figures and a page from the results of runs. Run from the checkout, not installed."""

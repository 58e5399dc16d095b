"""Tables from the result store. Reads results only; trains nothing. Run from the checkout, not installed."""

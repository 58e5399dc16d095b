"""Commands that maintain the project: drawings, tables of the documentation, fuzzing. Not installed."""

"""The version. `actloc_core` and `evaluators`, which do not import each other, both take it from here."""

__version__ = "0.1.0"

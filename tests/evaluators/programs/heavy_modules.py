"""Imports the evaluators and prints the heavy modules that are then there, separated by spaces."""

import sys

import evaluators

assert evaluators.frame_map
heavy = {"torch", "pandas", "pyarrow", "scipy", "matplotlib", "seaborn"}
print(*sorted(heavy & sys.modules.keys()))

"""Readers of the benchmarks in their published formats, and makers of synthetic ones.

Run from the checkout (`python -m datasets make`); not installed, since the name is too common.
"""

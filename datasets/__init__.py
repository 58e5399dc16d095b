"""Readers of the benchmarks as they lie on people's disks, and the synthetic one made from a seed.

Run from the checkout (`python -m datasets make`); not installed: the name is too common for that.
"""

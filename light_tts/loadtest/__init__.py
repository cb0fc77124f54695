"""Measures a running server from outside; `test/benchmark.py` is its command."""

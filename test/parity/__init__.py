"""Recorded reference numbers, run through this project's code."""

"""Robust self-supervised representations: run a study, trust its numbers, beat them."""

__version__ = "0.1.0"

"""Provenance: the way from a cell of a table back to the bytes that made it, and what is wrong."""

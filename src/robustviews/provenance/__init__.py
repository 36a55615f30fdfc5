"""Provenance: from a cell of a table back to the bytes that made it, and the checks on the way."""

"""The version of the package, which pages and packaging read."""

__version__ = "0.2.0"

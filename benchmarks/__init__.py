"""Measurements of speed: our training step and its parts against how published scripts do them."""

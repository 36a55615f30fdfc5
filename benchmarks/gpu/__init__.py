"""A quarter of an hour on a rented GPU: checks, times and the paper's headline, part by part."""

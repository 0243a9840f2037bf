"""Measurements of the library against the published algorithm: `python -m benchmarks`."""

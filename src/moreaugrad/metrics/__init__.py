"""Metrics of maps: pure functions that return one number for each sample, NaN where undefined."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

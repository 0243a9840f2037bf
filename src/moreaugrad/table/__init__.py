"""Explanations of tables: a value for each column, by name, of what a network makes of a row."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

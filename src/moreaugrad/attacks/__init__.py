"""Attacks on explanations: inputs near x, of the same class, with another map."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

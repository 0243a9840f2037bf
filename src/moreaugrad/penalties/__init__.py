"""Convex penalties: what makes a map sparse, and a perturbation structured."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

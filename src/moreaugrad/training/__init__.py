"""Training whose networks have sparse gradients: the protocols that perturb a batch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

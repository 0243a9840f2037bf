"""How much of a map's largest entries stays under any perturbation of a given length.

Pure functions on maps and bounds, and `certify`, which runs an explainer.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

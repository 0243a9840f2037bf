"""Targets besides classes: numbers read off segmentations, detections, embeddings and sets.

Give one as `target=`. Any other function of the model's output, with one number for each sample, is
a target too.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Numbers about maps: pure functions, one number for each sample, NaN where undefined."""

from moreaugrad.metrics.localisation import auroc, average_precision, pointing_game
from moreaugrad.metrics.sparsity import gini, zeros

__all__ = ["auroc", "average_precision", "gini", "pointing_game", "zeros"]

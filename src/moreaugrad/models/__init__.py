"""Classifiers by name, with their preprocessing and labels."""

from moreaugrad.models.folding import fold_batchnorm
from moreaugrad.models.loaded import LoadedModel
from moreaugrad.models.loading import load_model
from moreaugrad.models.preprocess import Preprocess

__all__ = ["LoadedModel", "Preprocess", "fold_batchnorm", "load_model"]

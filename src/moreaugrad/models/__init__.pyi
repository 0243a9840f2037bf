from .arrays import ArrayInput as ArrayInput
from .fast import Optimised as Optimised, Step as Step, optimise as optimise
from .loaded import LoadedModel as LoadedModel, Preprocess as Preprocess
from .loading import load_model as load_model
from .weights import fold_batchnorm as fold_batchnorm

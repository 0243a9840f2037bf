"""Sparse, stable and checked gradient explanations of PyTorch models."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moreaugrad import training
    from moreaugrad.curvature.relu import ReLUHessian, relu_hessian
    from moreaugrad.explainers import METHODS, build
    from moreaugrad.explainers.captum import IntegratedGradients
    from moreaugrad.explainers.caso import CAFO, CASO, SmoothCAFO, SmoothCASO
    from moreaugrad.explainers.deeplift import DeepLift
    from moreaugrad.explainers.explanation import ConvergenceWarning, Explanation
    from moreaugrad.explainers.feature_visualisation import Ascent, activation_maximisation
    from moreaugrad.explainers.gradcam import GradCAM
    from moreaugrad.explainers.gradient import SimpleGradient, SmoothGrad
    from moreaugrad.explainers.moreau import GroupSparseMoreauGrad, MoreauGrad, SparseMoreauGrad
    from moreaugrad.explainers.published import PublishedMoreauGrad
    from moreaugrad.explainers.relex import RelEx
    from moreaugrad.explainers.rho import RhoGuidance, paper_rho, rho_guidance
    from moreaugrad.explainers.sparsified import SparsifiedSmoothGrad
    from moreaugrad.penalties import L1, Box, ElasticNet, GroupL2, SquaredL2, WeightedL2, Zero
    from moreaugrad.score.noise import Noise
    from moreaugrad.score.score import Score, Smoothed
    from moreaugrad.score.softplus import softplus_surrogate
    from moreaugrad.solvers import Status

__version__ = "0.1.0"

__all__ = [
    "CAFO",
    "CASO",
    "L1",
    "METHODS",
    "Ascent",
    "Box",
    "ConvergenceWarning",
    "DeepLift",
    "ElasticNet",
    "Explanation",
    "GradCAM",
    "GroupL2",
    "GroupSparseMoreauGrad",
    "IntegratedGradients",
    "MoreauGrad",
    "Noise",
    "PublishedMoreauGrad",
    "ReLUHessian",
    "RelEx",
    "RhoGuidance",
    "Score",
    "SimpleGradient",
    "SmoothCAFO",
    "SmoothCASO",
    "SmoothGrad",
    "Smoothed",
    "SparseMoreauGrad",
    "SparsifiedSmoothGrad",
    "SquaredL2",
    "Status",
    "WeightedL2",
    "Zero",
    "activation_maximisation",
    "build",
    "paper_rho",
    "relu_hessian",
    "rho_guidance",
    "softplus_surrogate",
    "training",
]

# What the imports above tell type checkers happens when a name is first used: the command line
# answers `--help` without loading torch.
_HOMES = {
    "explainers": ("METHODS", "build"),
    "explainers.captum": ("IntegratedGradients",),
    "explainers.caso": ("CAFO", "CASO", "SmoothCAFO", "SmoothCASO"),
    "explainers.deeplift": ("DeepLift",),
    "explainers.gradcam": ("GradCAM",),
    "explainers.gradient": ("SimpleGradient", "SmoothGrad"),
    "explainers.moreau": ("GroupSparseMoreauGrad", "MoreauGrad", "SparseMoreauGrad"),
    "explainers.published": ("PublishedMoreauGrad",),
    "explainers.relex": ("RelEx",),
    "explainers.rho": ("RhoGuidance", "paper_rho", "rho_guidance"),
    "explainers.sparsified": ("SparsifiedSmoothGrad",),
    "explainers.explanation": ("ConvergenceWarning", "Explanation"),
    "score.noise": ("Noise",),
    "penalties": ("L1", "Box", "ElasticNet", "GroupL2", "SquaredL2", "WeightedL2", "Zero"),
    "curvature.relu": ("ReLUHessian", "relu_hessian"),
    "score.score": ("Score", "Smoothed"),
    "solvers": ("Status",),
    "score.softplus": ("softplus_surrogate",),
    "explainers.feature_visualisation": ("Ascent", "activation_maximisation"),
}
_PARTS = ("training",)
_MODULES = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

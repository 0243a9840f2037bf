"""Sparse, stable and checked gradient explanations of PyTorch models."""

from moreaugrad.explainers import METHODS, build
from moreaugrad.explainers.captum import DeepLift, IntegratedGradients
from moreaugrad.explainers.gradcam import GradCAM
from moreaugrad.explainers.gradient import SimpleGradient, SmoothGrad
from moreaugrad.explainers.moreau import GroupSparseMoreauGrad, MoreauGrad, SparseMoreauGrad
from moreaugrad.explainers.published import PublishedMoreauGrad
from moreaugrad.explainers.rho import RhoGuidance, paper_rho, rho_guidance
from moreaugrad.explanation import ConvergenceWarning, Explanation
from moreaugrad.noise import Noise
from moreaugrad.penalties import L1, Box, ElasticNet, GroupL2, SquaredL2, WeightedL2, Zero
from moreaugrad.score import Score, Smoothed
from moreaugrad.solvers import Status

__version__ = "0.1.0"

__all__ = [
    "L1",
    "METHODS",
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
    "RhoGuidance",
    "Score",
    "SimpleGradient",
    "SmoothGrad",
    "Smoothed",
    "SparseMoreauGrad",
    "SquaredL2",
    "Status",
    "WeightedL2",
    "Zero",
    "build",
    "paper_rho",
    "rho_guidance",
]

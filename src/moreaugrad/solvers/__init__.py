"""Solvers of minimise_u h(u) + eta R(u), each sample by itself."""

from collections.abc import Mapping

from moreaugrad.solvers.descent import Accelerated, Descent, ProximalGradient, Spectral
from moreaugrad.solvers.problem import MoreauProblem, Problem, Solver
from moreaugrad.solvers.solution import Solution, Status
from moreaugrad.solvers.sparsity import ForSparsity
from moreaugrad.solvers.stochastic import StochasticFixedPoint

SOLVERS: Mapping[str, type[Descent]] = {
    "spectral": Spectral,
    "accelerated": Accelerated,
    "proximal-gradient": ProximalGradient,
}

__all__ = [
    "SOLVERS",
    "Accelerated",
    "Descent",
    "ForSparsity",
    "MoreauProblem",
    "Problem",
    "ProximalGradient",
    "Solution",
    "Solver",
    "Spectral",
    "Status",
    "StochasticFixedPoint",
]

"""Solvers of minimise_u h(u) + eta R(u), each sample by itself."""

from moreaugrad.solvers.descent import SOLVERS, Descent
from moreaugrad.solvers.solution import MoreauProblem, Solution, Status
from moreaugrad.solvers.stochastic import StochasticFixedPoint

__all__ = ["SOLVERS", "Descent", "MoreauProblem", "Solution", "Status", "StochasticFixedPoint"]

"""The step guard: noise alone cuts no step, curvature does."""

import pytest
import torch

from moreaugrad.solvers.step_guard import StepGuard
from moreaugrad.solvers.stochastic import damping

DRAWS, ENTRIES = 8, 4000


def cuts(curvature: float, signal: float, zeros: float, steps: int = 6) -> torch.Tensor:
    """How often each of 20 samples is cut, of y <- y + alpha (g - curvature P(y) + noise - y).

    The first two of `steps` are the ones of the first secant."""
    source = torch.Generator().manual_seed(3)
    noise = torch.randn(steps, 20, ENTRIES, generator=source, dtype=torch.float64)
    g = signal * torch.randn(20, ENTRIES, generator=source, dtype=torch.float64)
    y = torch.zeros_like(g)
    guard, found = StepGuard(y), torch.zeros(20)
    for step in range(steps):
        tau = y.abs().quantile(zeros, dim=1, keepdim=True)
        u = y.sign() * (y.abs() - tau).clamp_min(0)
        moved = g - curvature * u + noise[step]
        alpha, cut = guard.limit(damping(step * DRAWS), u, moved)
        y = y.lerp(moved, alpha[:, None])
        found += cut
    return found


@pytest.mark.parametrize("zeros", [0.0, 0.8, 0.9])
@pytest.mark.parametrize("signal", [0.0, 0.3, 1.0])
def test_noise_without_curvature_cuts_no_step(signal: float, zeros: float) -> None:
    """A cut step loses all terms before it, which a map of four steps cannot afford."""
    assert not cuts(0.0, signal, zeros).any()


@pytest.mark.parametrize("signal", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("steps", [2, 6])
def test_curvature_that_makes_steps_unstable_cuts_them(signal: float, steps: int) -> None:
    """At once: a step later a second chain can have left its solution."""
    assert bool((cuts(6.0, signal, 0.9, steps) >= 1).all())

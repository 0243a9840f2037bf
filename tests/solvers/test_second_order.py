"""The second-order problem against a literal slow solution, for every kind of Hessian."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from moreaugrad.solvers.second_order import (
    SecondOrderProblem,
    SecondOrderSolution,
    solve_second_order,
)
from toys import normal

B = 16
SPECTRA: dict[str, Callable[[Tensor], Tensor]] = {
    "indefinite": lambda h: h,
    "definite": lambda h: h @ h.mT,
    "negative": lambda h: -h @ h.mT,
    "of low rank": lambda h: h[:, :, :1] @ h[:, :, :1].mT,
    "negative, of low rank": lambda h: -h[:, :, :1] @ h[:, :, :1].mT,
    "zero": lambda h: 0 * h,
}


def drawn(kind: str, n: int, seed: int) -> tuple[Tensor, Tensor]:
    h = normal(B, n, n, seed=seed)
    return normal(B, n, seed=seed + 1), SPECTRA[kind](3 * (h + h.mT))


def solved(g: Tensor, h: Tensor, lambda1: Tensor | None, c1: float) -> SecondOrderSolution:
    problem = SecondOrderProblem(
        gradient=g,
        product=lambda v, rows: torch.einsum("bij,bj->bi", h[rows], v),
        probe=normal(1, g.shape[1], seed=9, dtype=g.dtype).expand_as(g),
        lambda1=None if lambda1 is None else (lambda _, __: lambda1),
        lambda2=None,
        c1=c1,
    )
    return solve_second_order(problem, 1e-6, 100)


def off(g: Tensor, h: Tensor, lambda1: Tensor, c1: float, delta: Tensor) -> Tensor:
    """Distance of 0 from the objective's derivatives, over ||g||."""
    twice = torch.linalg.eigvalsh(h)[:, -1:].clamp_min(0) + 2 * c1
    slope = g + torch.einsum("bij,bj->bi", h, delta) - twice * delta
    inside = (slope.abs() - lambda1[:, None]).clamp_min(0)
    outside = slope - lambda1[:, None] * delta.sign()
    return torch.where(delta == 0, inside, outside).norm(dim=1) / g.norm(dim=1)


@pytest.mark.parametrize("kind", SPECTRA)
@pytest.mark.parametrize("share", [1e-6, 0.3, 0.9])
@pytest.mark.parametrize("c1", [1e-3, 1.0])
def test_every_hessian_is_solved(kind: str, share: float, c1: float) -> None:
    for n in (2, 4, 10):
        for seed in range(4):
            g, h = drawn(kind, n, seed=100 * seed + n)
            lambda1 = share * g.abs().amax(1)
            found = solved(g, h, lambda1, c1)
            assert float(found.residual.max()) <= 1e-6
            # The problem is concave: what meets the conditions is the solution.
            assert float(off(g, h, lambda1, c1, found.delta).max()) <= 2e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("share", [None, 1e-6, 1e-5, 1e-4, 1e-2])
def test_a_sample_alone_is_solved_as_in_a_batch(dtype: torch.dtype, share: float | None) -> None:
    g, h = (part.to(dtype) for part in drawn("of low rank", 60, seed=3))
    h = h / h.norm(dim=(1, 2))[:, None, None]
    lambda1 = None if share is None else share * g.abs().amax(1)
    batch = solved(g, h, lambda1, c1=0.5)
    assert float(batch.residual.max()) <= 1e-6
    for i in range(B):
        rows = slice(i, i + 1)
        alone = solved(g[rows], h[rows], None if lambda1 is None else lambda1[rows], c1=0.5)
        assert int(alone.products) == int(batch.products[i])
        torch.testing.assert_close(alone.delta, batch.delta[rows], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("share", [None, 1e-9])
def test_what_is_not_read_is_exactly_zero(dtype: torch.dtype, share: float | None) -> None:
    g, h = (part.to(dtype) for part in drawn("indefinite", 20, seed=5))
    unread = torch.tensor([3, 8, 19])
    g[:, unread], h[:, unread], h[:, :, unread] = 0, 0, 0
    lambda1 = None if share is None else share * g.abs().amax(1)
    found = solved(g, h, lambda1, c1=0.5)
    assert (found.delta[:, unread] == 0).all()
    assert (found.delta != 0).sum() == B * 17

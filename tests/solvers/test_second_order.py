"""The second-order problem against a literal slow solution, for every kind of Hessian."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from moreaugrad.penalties import L1, Box, ElasticNet, GroupL2, Penalty, SquaredL2
from moreaugrad.solvers import Status
from moreaugrad.solvers.second_order import QuadraticProblem, QuadraticSolution
from toys import Length, normal

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


def solved(
    g: Tensor, h: Tensor, lambda1: Tensor | None, c1: float, penalty: Penalty | None = None
) -> QuadraticSolution:
    zeros = torch.zeros_like(g[:, 0])
    problem = QuadraticProblem(
        gradient=g,
        product=lambda v, rows: torch.einsum("bij,bj->bi", h[rows], v),
        probe=normal(1, g.shape[1], seed=9, dtype=g.dtype).expand_as(g),
        eta=zeros if lambda1 is None else lambda1,
        lambda2=zeros,
        penalty=penalty or L1(1.0),
        c1=c1,
    )
    return problem.solve(tolerance=1e-6, max_products=100)


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
            assert float(off(g, h, lambda1, c1, found.values).max()) <= 2e-6


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
        assert int(alone.steps) == int(batch.steps[i])
        torch.testing.assert_close(alone.values, batch.values[rows], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("share", [None, 1e-9])
def test_what_is_not_read_is_exactly_zero(dtype: torch.dtype, share: float | None) -> None:
    g, h = (part.to(dtype) for part in drawn("indefinite", 20, seed=5))
    unread = torch.tensor([3, 8, 19])
    g[:, unread], h[:, unread], h[:, :, unread] = 0, 0, 0
    lambda1 = None if share is None else share * g.abs().amax(1)
    found = solved(g, h, lambda1, c1=0.5)
    assert (found.values[:, unread] == 0).all()
    assert (found.values != 0).sum() == B * 17


def oracle(g: Tensor, h: Tensor, lambda1: Tensor, c1: float, penalty: Penalty) -> Tensor:
    """By the dense matrix: accelerated proximal gradient steps, to the last digit."""
    values = torch.linalg.eigvalsh(h)
    twice = values[:, -1].clamp_min(0) + 2 * c1
    steepest, least = twice - values[:, 0].clamp_max(0), twice - values[:, -1]
    root = (steepest / least).sqrt()
    momentum = ((root - 1) / (root + 1))[:, None]
    delta = ahead = torch.zeros_like(g)
    for _ in range(int(40 * root.max()) + 50):
        slope = g + torch.einsum("bij,bj->bi", h, ahead) - twice[:, None] * ahead
        found = penalty.prox(ahead + slope / steepest[:, None], lambda1 / steepest)
        delta, ahead = found, found + momentum * (found - delta)
    return delta


OTHERS: dict[str, Penalty] = {
    "group": GroupL2(1.0, size=2),
    "elastic net": ElasticNet(1.0, 0.3),
    "square": SquaredL2(0.4),
    "box": Box(-0.3, 0.2),
    "L1 of another weight": L1(2.0),
    "without a root": Length(1.0),
    "that autograd does not see": Length(1.0, opaque=True),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_penalty_is_solved_for(name: str, dtype: torch.dtype) -> None:
    penalty = OTHERS[name]
    for kind in SPECTRA:
        g, h = drawn(kind, 10, seed=7)
        h = 10 * h / h.norm(dim=(1, 2)).clamp_min(1.0)[:, None, None]
        lambda1 = 0.2 * g.abs().amax(1)
        exact = oracle(g, h, lambda1, 0.5, penalty)
        found = solved(g.to(dtype), h.to(dtype), lambda1.to(dtype), 0.5, penalty)
        off = (found.values.double() - exact).norm(dim=1)
        assert set(found.status) <= {Status.CONVERGED, Status.PRECISION}
        assert float(found.residual.max()) <= (1e-6 if dtype is torch.float64 else 1e-4)
        slack = 1e-9 if dtype is torch.float64 else 4e-5  # of slopes that single precision rounds
        bound = (found.error * 1.01 + slack) * exact.norm(dim=1)
        assert (off <= bound)[found.having(Status.CONVERGED)].all()
        rounding = 1e-6 if dtype is torch.float64 else 4e-4
        assert (off <= rounding * exact.norm(dim=1).clamp_min(1e-9)).all()


def test_a_given_lambda2_and_a_part_of_the_batch() -> None:
    g, h = drawn("indefinite", 10, seed=3)
    h = 10 * h / h.norm(dim=(1, 2))[:, None, None]
    lambda2 = torch.linalg.eigvalsh(h)[:, -1].clamp_min(0) / 2 + 0.5
    lambda1, penalty = 0.2 * g.abs().amax(1), GroupL2(1.0, size=2)

    def of(rows: Tensor) -> Tensor:
        problem = QuadraticProblem(
            gradient=g[rows],
            product=lambda v, at: torch.einsum("bij,bj->bi", h[rows][at], v),
            probe=normal(1, 10, seed=9).expand_as(g[rows]),
            eta=lambda1[rows],
            lambda2=lambda2[rows],
            penalty=penalty,
        )
        found = problem.solve(tolerance=1e-7, max_products=100)
        assert found.ok
        return found.values

    found, rows = of(torch.arange(B)), torch.tensor([3, 1])
    delta, step = torch.zeros_like(g), 0.5 / (lambda2 + h.norm(dim=(1, 2)))
    for _ in range(3000):
        slope = g + torch.einsum("bij,bj->bi", h, delta) - 2 * lambda2[:, None] * delta
        delta = penalty.prox(delta + step[:, None] * slope, step * lambda1)
    torch.testing.assert_close(found, delta, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(of(rows), found[rows])

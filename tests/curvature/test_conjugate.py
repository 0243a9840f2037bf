"""Conjugate gradients against dense solutions, each sample by itself."""

import pytest
import torch
from torch import Tensor

from moreaugrad.curvature.krylov import Product, shifted_solve
from toys import normal

N = 8
ROOT = torch.diag(torch.tensor([1.0, 1, 0, 0.5, 1, 0.2, 0, 1], dtype=torch.float64))
WEIGHT = torch.tensor([0.3, 2.0, 1.0], dtype=torch.float64)


def hessians(shift: float = 0.0) -> Tensor:
    """`[3, N, N]`, symmetric, with eigenvalues from `shift` on."""
    half = normal(3, N * N, seed=4).reshape(3, N, N)
    return half @ half.mT / N + shift * torch.eye(N, dtype=torch.float64)


def product_of(matrices: Tensor) -> Product:
    return lambda v, rows: torch.einsum("bij,bj->bi", matrices[rows], v)


def solve(
    matrices: Tensor, right: Tensor, weight: Tensor, tolerance: float = 1e-10, most: int = 50
) -> tuple[Tensor, Tensor]:
    return shifted_solve(product_of(matrices), lambda v: v @ ROOT, right, weight, tolerance, most)


def test_the_dense_solution_and_its_image() -> None:
    matrices, right = hessians(), normal(3, N, seed=5)
    z, image = solve(matrices, right, WEIGHT)
    system = torch.eye(N) + WEIGHT[:, None, None] * ROOT @ matrices @ ROOT
    expected = torch.linalg.solve(system, right @ ROOT)
    assert torch.allclose(z, expected, rtol=1e-8)
    assert torch.allclose(image, torch.einsum("bij,bj->bi", matrices @ ROOT, expected), rtol=1e-8)


@pytest.mark.parametrize("tolerance", [0.3, 0.05, 1e-3])
def test_no_sample_stops_for_another(tolerance: float) -> None:
    matrices = hessians()
    right = normal(3, N, seed=6) * torch.tensor([[1.0], [1e4], [1e-4]])
    together = solve(matrices, right, WEIGHT, tolerance)
    for row in range(3):
        one = slice(row, row + 1)
        alone = solve(matrices[one], right[one], WEIGHT[one], tolerance)
        for found, expected in zip(together, alone, strict=True):
            assert torch.allclose(found[one], expected, rtol=1e-12, atol=0)


def test_the_tolerance_is_kept_and_products_are_counted() -> None:
    matrices, right = hessians(), normal(3, N, seed=7)
    system = torch.eye(N) + WEIGHT[:, None, None] * ROOT @ matrices @ ROOT
    for tolerance in (0.3, 1e-2, 1e-5):
        z, _ = solve(matrices, right, WEIGHT, tolerance)
        rest = right @ ROOT - torch.einsum("bij,bj->bi", system, z)
        assert bool((rest.norm(dim=1) <= tolerance * (right @ ROOT).norm(dim=1) * 1.0001).all())
    made: list[Tensor] = []

    def counted(v: Tensor, rows: Tensor) -> Tensor:
        made.append(rows)
        return product_of(matrices)(v, rows)

    shifted_solve(counted, lambda v: v @ ROOT, right, WEIGHT, 1e-12, 2)
    assert len(made) == 2


def test_where_it_is_indefinite_the_first_step_is_taken_whole() -> None:
    matrices, right = hessians(-9.0), normal(3, N, seed=8)
    z, image = solve(matrices, right, torch.ones(3, dtype=torch.float64))
    assert torch.allclose(z, right @ ROOT)
    assert torch.allclose(image, torch.einsum("bij,bj->bi", matrices @ ROOT, z))


def test_nothing_to_solve() -> None:
    z, image = solve(hessians(), torch.zeros(3, N, dtype=torch.float64), WEIGHT)
    assert not bool(z.any())
    assert not bool(image.any())

"""Derivatives of maps against finite differences, unrolling, and each other."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import moreaugrad as mg
from moreaugrad.explainers.base import Explainer
from toys import network, normal

STEP = 1e-5
MODEL = network((6, 12, 3), nn.Softplus, gain=2.0)
X = normal(3, 6, seed=1)
C = normal(3, 6, seed=2)
TARGET = 1
TIGHT: dict[str, Any] = {"sigma": 0.0, "tolerance": 1e-9, "max_evaluations": 4000, "rho": 0.3}
FIXED: dict[str, Any] = {
    "sigma": 0.2, "sigma_mode": "absolute", "noise": "fixed", "samples": 6, "tolerance": 1e-9,
    "max_evaluations": 20000, "rho": 0.3,
}  # fmt: skip
GROUPS: dict[str, Any] = {"index": torch.tensor([0, 0, 1, 1, 2, 2])}


def differences(explainer: Explainer, x: Tensor, c: Tensor) -> Tensor:
    """J' c by central differences of c'A(x)."""
    found = torch.zeros_like(x)
    for i in range(x.shape[1]):
        shift = torch.zeros_like(x)
        shift[:, i] = STEP
        ahead = explainer.explain(x + shift, TARGET).maps
        behind = explainer.explain(x - shift, TARGET).maps
        found[:, i] = ((ahead - behind) * c).sum(1) / (2 * STEP)
    return found


EXACT: dict[str, Callable[[], Explainer]] = {
    "simple": lambda: mg.SimpleGradient(MODEL),
    "times input": lambda: mg.SimpleGradient(MODEL, times_input=True),
    "kept": lambda: mg.SimpleGradient(MODEL, keep=0.5),
    "probability": lambda: mg.SimpleGradient(MODEL, score="probability"),
    "smoothgrad": lambda: mg.SmoothGrad(MODEL, sigma=0.2, sigma_mode="absolute", samples=6),
    "relaxed": lambda: mg.SparsifiedSmoothGrad(
        MODEL, sigma=0.05, sigma_mode="absolute", samples=6, tau=0.7, gamma=0.2
    ),
    "scaled": lambda: mg.SparsifiedSmoothGrad(
        MODEL, sigma=0.05, sigma_mode="absolute", samples=6, variant="scaled"
    ),
    "integrated": lambda: mg.IntegratedGradients(MODEL, steps=9, baseline=0.3),
    "integrated, local": lambda: mg.IntegratedGradients(MODEL, steps=9, times_input=False),
    "integrated, trapezoid": lambda: mg.IntegratedGradients(
        MODEL, steps=9, quadrature="riemann_trapezoid"
    ),
    "expected": lambda: mg.ExpectedGradients(MODEL, samples=9, baselines=normal(4, 6, seed=3)),
    "expected, local": lambda: mg.ExpectedGradients(
        MODEL, samples=9, baselines=normal(4, 6, seed=3), times_input=False
    ),
    "cafo": lambda: mg.CAFO(MODEL, lambda1=0.05, std=0.5),
    "smooth cafo": lambda: mg.SmoothCAFO(
        MODEL, lambda1=0.05, sigma=0.2, sigma_mode="absolute", samples=6
    ),
    "caso": lambda: mg.CASO(MODEL, lambda1=0.05, lambda2=9.0, std=0.5, tolerance=1e-10),
    "caso, dense": lambda: mg.CASO(MODEL, lambda1=0.0, lambda2=2.0, tolerance=1e-10),
    "smooth caso": lambda: mg.SmoothCASO(
        MODEL, lambda1=0.05, lambda2=2.0, sigma=0.2, sigma_mode="absolute", samples=6,
        tolerance=1e-10,
    ),
    "moreau": lambda: mg.MoreauGrad(MODEL, **TIGHT),
    "sparse moreau": lambda: mg.SparseMoreauGrad(MODEL, eta=0.1, **TIGHT),
    "group moreau": lambda: mg.GroupSparseMoreauGrad(MODEL, eta=0.8, **GROUPS, **TIGHT),
    "moreau, fixed noise": lambda: mg.MoreauGrad(MODEL, **FIXED),
    "sparse moreau, fixed noise": lambda: mg.SparseMoreauGrad(MODEL, eta=0.1, **FIXED),
    "group moreau, fixed noise": lambda: mg.GroupSparseMoreauGrad(
        MODEL, eta=0.8, **GROUPS, **FIXED
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_the_implicit_derivative_is_that_of_finite_differences(name: str) -> None:
    explainer = EXACT[name]()
    explanation = explainer.explain(X, TARGET)
    assert float(explanation.maps.abs().sum(1).min()) > 0
    found = explainer.vjp(explanation, C, through="implicit")
    expected = differences(explainer, X, C)
    assert float(expected.norm()) > 1e-3
    assert float((found - expected).norm() / expected.norm()) < 1e-4


@pytest.mark.parametrize("name", [name for name in EXACT if "moreau" in name])
def test_unrolling_agrees(name: str) -> None:
    explainer = EXACT[name]()
    explanation = explainer.explain(X, TARGET)
    implicit = explainer.vjp(explanation, C)
    unrolled = explainer.vjp(explanation, C, through="unrolled")
    assert float((implicit - unrolled).norm() / implicit.norm()) < 1e-4


@pytest.mark.parametrize("name", ["sparse moreau", "group moreau"])
def test_a_map_has_zeros_and_its_derivative_knows(name: str) -> None:
    """The cotangent of entries that are zero does not matter."""
    explainer = EXACT[name]()
    explanation = explainer.explain(X, TARGET)
    zero = explanation.maps == 0
    assert 0 < int(zero.sum()) < zero.numel()
    other = torch.where(zero, 100.0, C)
    for way in explainer.derivatives[:3]:
        assert torch.allclose(
            explainer.vjp(explanation, C, through=way),
            explainer.vjp(explanation, other, through=way),
        )


def test_straight_through_is_another_derivative() -> None:
    """It leaves out that u moves: H D c."""
    explainer = mg.SparseMoreauGrad(MODEL, eta=0.1, **(TIGHT | {"rho": 2.0}))
    explanation = explainer.explain(X, TARGET)
    straight = explainer.vjp(explanation, C, through="straight-through")
    implicit = explainer.vjp(explanation, C)
    assert float((straight - implicit).norm() / implicit.norm()) > 0.1

    def score(point: Tensor) -> Tensor:
        return MODEL(point[None])[0, TARGET]

    for row in range(len(X)):
        there = X[row] - 2.0 * explanation.maps[row]
        hessian = torch.autograd.functional.hessian(score, there)  # type: ignore[no-untyped-call]
        expected = hessian @ torch.where(explanation.maps[row] != 0, C[row], 0.0)
        assert torch.allclose(straight[row], expected, atol=1e-9)


@pytest.mark.parametrize(
    "explainer",
    [
        mg.SmoothGrad(MODEL, sigma=0.5, sigma_mode="absolute", samples=20000),
        mg.MoreauGrad(MODEL, **(FIXED | {"sigma": 0.5, "samples": 20000, "tolerance": 1e-2})),
        mg.SparsifiedSmoothGrad(
            MODEL, sigma=0.5, sigma_mode="absolute", samples=20000, variant="scaled"
        ),
    ],
)
def test_stein_agrees_where_draws_are_many(explainer: Explainer) -> None:
    if isinstance(explainer, mg.MoreauGrad):
        explanation = dataclasses.replace(explainer, samples=64).explain(X, TARGET)
        expected = explainer.vjp(explanation, C, through="straight-through")
    else:
        explanation = explainer.explain(X, TARGET)
        expected = explainer.vjp(explanation, C, through="implicit")
    found = explainer.vjp(explanation, C, through="stein")
    assert float((found - expected).norm() / expected.norm()) < 0.15


def test_stein_reports_a_map_that_only_jumps() -> None:
    explainer = mg.SparsifiedSmoothGrad(
        MODEL, sigma=0.5, sigma_mode="absolute", samples=20000, variant="sparsified", tau=0.5
    )
    explanation = explainer.explain(X, TARGET)
    with pytest.raises(ValueError, match="stein"):  # implicit would be zero
        explainer.vjp(explanation, C, through="implicit")
    found = explainer.vjp(explanation, C)
    shift = 0.3 * found / found.norm(dim=1, keepdim=True)
    ahead, behind = (explainer.explain(X + s, TARGET).maps for s in (shift, -shift))
    assert bool((((ahead - behind) * C).sum(1) > 0).all())


@pytest.mark.parametrize("name", ["smoothgrad", "caso", "group moreau, fixed noise", "integrated"])
def test_a_batch_gives_what_its_samples_give(name: str) -> None:
    explainer = EXACT[name]()
    whole = explainer.vjp(explainer.explain(X, TARGET), C)
    for row in range(len(X)):
        alone = explainer.explain(X[row : row + 1], TARGET)
        assert torch.allclose(explainer.vjp(alone, C[row : row + 1])[0], whole[row], atol=1e-9)
    small = dataclasses.replace(explainer, batch_size=2)
    assert torch.allclose(small.vjp(small.explain(X, TARGET), C), whole, atol=1e-9)


RELU = network((6, 12, 3), nn.ReLU, gain=2.0)


@pytest.mark.parametrize(
    "explainer",
    [
        mg.SimpleGradient(RELU),
        mg.SmoothGrad(RELU, samples=4),
        mg.SparseMoreauGrad(RELU, eta=0.05, noise="fixed", samples=4, tolerance=0.5),
    ],
)
def test_logits_of_a_piecewise_linear_network_have_a_zero_derivative(explainer: Explainer) -> None:
    explanation = explainer.explain(X, TARGET)
    assert bool(explanation.maps.any())
    assert not bool(explainer.vjp(explanation, C).any())
    smooth = dataclasses.replace(explainer, forward_func=mg.softplus_surrogate(RELU, 5.0))
    assert bool(smooth.vjp(smooth.explain(X, TARGET), C).any())


def test_the_conjugate_gradients_stop_where_rho_is_too_large() -> None:
    """No longer positive definite: what it gives is finite, and starts from straight-through."""
    concave = nn.Sequential(nn.Linear(2, 1, dtype=torch.float64)).eval()

    def score(x: Tensor) -> Tensor:
        return concave(x) - 3 * x.square().sum(1, keepdim=True)

    explainer = mg.MoreauGrad(
        score, task="regression", rho=1.0, sigma=0.0, max_evaluations=20, tolerance=1e-3
    )
    x = normal(2, 2, seed=5)
    explanation = explainer.explain(x)
    sane = dataclasses.replace(explanation, maps=torch.ones_like(x))
    found = explainer.vjp(sane, torch.ones_like(x))
    assert torch.allclose(
        found, explainer.vjp(sane, torch.ones_like(x), through="straight-through")
    )


def test_steps_of_an_attack_are_deterministic_and_warm() -> None:
    explainer = mg.SparseMoreauGrad(MODEL, sigma=0.2, sigma_mode="absolute", rho=0.3, sparsity=0.5)
    cheap = explainer.fixed(6)
    assert (cheap.noise, cheap.samples) == ("fixed", 6)
    bound = cheap.bind(X, TARGET)
    maps = cheap._maps(bound)
    again = cheap._near(bound, maps.values)
    assert int(again.evaluations.max()) < int(maps.evaluations.min())
    assert float((again.values - maps.values).norm() / maps.values.norm()) < 0.1
    assert mg.SmoothGrad(MODEL, samples=64).fixed(8).samples == 8
    assert mg.IntegratedGradients(MODEL, steps=64).fixed(8).steps == 8
    caso = mg.SmoothCASO(MODEL, samples=64, tolerance=1e-6).fixed(8)
    assert (caso.samples, caso.tolerance) == (8, 1e-2)


def test_the_map_of_an_attack_is_solved_whatever_its_method_may_spend() -> None:
    # Fresh noise needs a few evaluations in all; a fixed set needs a few for each noise sample.
    explainer = mg.SparseMoreauGrad(
        MODEL, sigma=0.2, sigma_mode="absolute", rho=0.3, sparsity=0.5, max_evaluations=34
    )
    cheap = explainer.fixed(32)
    found = cheap._maps(cheap.bind(X, TARGET))
    assert bool(found.having(mg.Status.CONVERGED).all())
    assert bool((found.values != 0).any(1).all())


def test_what_does_not_fit_is_reported() -> None:
    explainer = mg.SimpleGradient(MODEL)
    explanation = explainer.explain(X, TARGET)
    with pytest.raises(ValueError, match="through: expected one of implicit, which simple-gradie"):
        explainer.vjp(explanation, C, through="unrolled")
    with pytest.raises(ValueError, match=r"cotangent: expected \[\(3, 6\)\], like the maps"):
        explainer.vjp(explanation, C[:, :5])
    relex = mg.RelEx(MODEL)
    with pytest.raises(ValueError, match="through: expected one of none, which relex has"):
        relex.vjp(explanation, C)
    plain = mg.MoreauGrad(MODEL, sigma=0.0, rho=0.3)
    explanation = plain.explain(X, TARGET)
    with pytest.raises(ValueError, match="'stein' needs Gaussian noise"):
        plain.vjp(explanation, C, through="stein")


def test_several_inputs() -> None:
    class Two(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            out: Tensor = MODEL(torch.cat([a, b], dim=1))
            return out

    parts, cotangents = (X[:, :2], X[:, 2:]), (C[:, :2], C[:, 2:])
    explainer = mg.SparseMoreauGrad(Two().eval(), eta=0.1, **TIGHT)
    found = explainer.vjp(explainer.explain(parts, TARGET), cotangents)
    single = mg.SparseMoreauGrad(MODEL, eta=0.1, **TIGHT)
    expected = single.vjp(single.explain(X, TARGET), C)
    assert isinstance(found, tuple)
    assert torch.allclose(torch.cat(found, dim=1), expected)


def test_a_target_with_a_position() -> None:
    class Tokens(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = torch.stack([MODEL(x), MODEL(2 * x)], dim=2)
            return out

    explainer = mg.SimpleGradient(Tokens())
    explanation = explainer.explain(X, [(1, 0), (1, 1), (2, 0)])
    assert explanation.position is not None
    assert explanation[1:].position.tolist() == [[1], [0]]  # type: ignore[union-attr]
    found = explainer.vjp(explanation, C)
    alone = mg.SimpleGradient(MODEL)
    expected = alone.vjp(alone.explain(X, [1, 1, 2]), C)
    torch.testing.assert_close(found[[0, 2]], expected[[0, 2]])
    doubled = alone.vjp(alone.explain(2 * X, [1, 1, 2]), C)
    torch.testing.assert_close(found[1], 4 * doubled[1])

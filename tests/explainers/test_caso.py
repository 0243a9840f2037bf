"""CAFO and CASO against dense Hessians, literal slow solutions and each other."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moreaugrad import CAFO, CASO, SmoothCAFO, SmoothCASO, Status, relu_hessian
from moreaugrad.score.noise import Noise
from moreaugrad.solvers.sparsity import LEAST_ZEROS
from toys import network, normal

SMOOTH = network([12, 20, 5], nn.Tanh, gain=2.5).requires_grad_(False)
PIECEWISE = network([12, 20, 16, 5], nn.ReLU, gain=2.5).requires_grad_(False)
X = normal(6, 12, seed=3)
MODELS = pytest.mark.parametrize("model", [SMOOTH, PIECEWISE], ids=["smooth", "piecewise"])


def loss_at(model: nn.Module, x: Tensor, target: int) -> Tensor:
    return F.cross_entropy(model(x[None]), torch.tensor([target]))


def taylor(model: nn.Module, x: Tensor, target: int) -> tuple[Tensor, Tensor]:
    """Gradient and dense Hessian of the cross-entropy."""
    at = x.detach()
    return torch.autograd.functional.jacobian(
        lambda v: loss_at(model, v, target), at
    ), torch.autograd.functional.hessian(lambda v: loss_at(model, v, target), at)


def slow(g: Tensor, h: Tensor, lambda1: float, lambda2: float, steps: int = 200_000) -> Tensor:
    """Plain proximal gradient with the safe step, until nothing moves."""
    step = 1 / (2 * lambda2 + float(torch.linalg.eigvalsh(h)[0].clamp_max(0).abs()))
    delta = torch.zeros_like(g)
    for _ in range(steps):
        moved = delta + step * (g + h @ delta - 2 * lambda2 * delta)
        following = moved.sign() * (moved.abs() - step * lambda1).clamp_min(0)
        if float((following - delta).norm()) <= 1e-13 * float(following.norm() + 1e-300):
            return following
        delta = following
    return delta


def of(model: nn.Module, **settings: Any) -> Any:
    result = CASO(model, **({"tolerance": 1e-9, "c1": 0.1} | settings)).explain(X)
    assert all(status is Status.CONVERGED for status in result.status)
    return result


@MODELS
def test_caso_without_lambda1_is_the_dense_solution(model: nn.Module) -> None:
    result = of(model, lambda1=0.0)
    for i, x in enumerate(X):
        g, h = taylor(model, x, int(result.prediction[i]))
        top = float(torch.linalg.eigvalsh(h)[-1].clamp_min(0))
        assert float(result.details["top_eigenvalue"][i]) == pytest.approx(top, rel=1e-7)
        lambda2 = top / 2 + 0.1
        assert float(result.details["lambda2"][i]) == pytest.approx(lambda2, rel=1e-7)
        delta = torch.linalg.solve(2 * lambda2 * torch.eye(12) - h, g)
        torch.testing.assert_close(result.maps[i], -delta, rtol=1e-5, atol=1e-8)
        surrogate = g @ delta + delta @ h @ delta / 2
        assert float(result.details["surrogate"][i]) == pytest.approx(float(surrogate), rel=1e-5)
        target = int(result.prediction[i])
        increase = loss_at(model, x + delta, target) - loss_at(model, x, target)
        assert float(result.details["increase"][i]) == pytest.approx(float(increase), rel=1e-4)


@MODELS
@pytest.mark.parametrize("share", [0.05, 0.3, 0.7])
def test_caso_with_lambda1_is_the_slow_solution(model: nn.Module, share: float) -> None:
    for i, x in enumerate(X):
        prediction = int(model(x[None]).argmax())
        g, h = taylor(model, x, prediction)
        lambda1 = share * float(g.abs().max())
        result = CASO(model, lambda1=lambda1, c1=0.1, tolerance=1e-9).explain(X)
        lambda2 = float(torch.linalg.eigvalsh(h)[-1].clamp_min(0)) / 2 + 0.1
        expected = slow(g, h, lambda1, lambda2)
        torch.testing.assert_close(result.maps[i], -expected, rtol=1e-5, atol=1e-8)
        assert torch.equal(result.maps[i] == 0, expected == 0)


@MODELS
def test_the_stated_error_bounds_the_true_one(model: nn.Module) -> None:
    rough = CASO(model, lambda1=0.01, c1=0.05, tolerance=0.05).explain(X)
    exact = CASO(model, lambda1=0.01, c1=0.05, tolerance=1e-10).explain(X)
    off = ((rough.maps - exact.maps).norm(dim=1) / rough.maps.norm(dim=1)).nan_to_num()
    assert (off <= rough.error * (1 + 1e-9)).all()
    assert (rough.residual <= 0.05).all()
    assert (rough.steps <= exact.steps).all()


def test_the_residual_is_that_of_the_optimality_conditions() -> None:
    lambda1 = 0.02
    result = CASO(SMOOTH, lambda1=lambda1, c1=0.05, tolerance=0.1).explain(X)
    assert (result.residual > 0).any()
    for i, x in enumerate(X):
        g, h = taylor(SMOOTH, x, int(result.prediction[i]))
        delta = -result.maps[i]
        slope = g + h @ delta - 2 * float(result.details["lambda2"][i]) * delta
        off = torch.where(
            delta == 0, (slope.abs() - lambda1).clamp_min(0), slope - lambda1 * delta.sign()
        )
        assert float(result.residual[i]) == pytest.approx(float(off.norm() / g.norm()), abs=1e-9)


def test_exact_and_gauss_newton_agree_on_piecewise_linear_networks_only() -> None:
    same = [of(PIECEWISE, hessian=kind, lambda1=0.0).maps for kind in ("exact", "gauss-newton")]
    torch.testing.assert_close(*same, rtol=1e-7, atol=1e-10)
    other = [of(SMOOTH, hessian="exact", lambda1=0.0).maps]
    with pytest.warns(UserWarning, match="not the Hessian"):
        other.append(of(SMOOTH, hessian="gauss-newton", lambda1=0.0).maps)
    assert float((other[0] - other[1]).norm() / other[0].norm()) > 1e-3


def test_all_routes_give_one_solution() -> None:
    hessian = relu_hessian(PIECEWISE, X)
    (closed,), lambda2 = hessian.displacement(c1=0.1)
    result = of(PIECEWISE, lambda1=0.0)
    torch.testing.assert_close(result.maps, -closed, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(result.details["lambda2"], lambda2, rtol=1e-7, atol=1e-9)


def test_cafo_is_its_closed_form() -> None:
    result = CAFO(SMOOTH, lambda1=0.02, c1=3.0).explain(X)
    for i, x in enumerate(X):
        g, _ = taylor(SMOOTH, x, int(result.prediction[i]))
        expected = slow(g, torch.zeros(12, 12, dtype=torch.float64), 0.02, 3.0)
        torch.testing.assert_close(result.maps[i], -expected)
        rise = float(g @ expected)
        assert float(result.details["surrogate"][i]) == pytest.approx(rise)


@pytest.mark.parametrize("method", [CAFO, CASO])
def test_the_map_is_empty_from_the_largest_gradient_on(method: type[CAFO]) -> None:
    largest = max(float(taylor(SMOOTH, x, int(SMOOTH(x[None]).argmax()))[0].abs().max()) for x in X)
    assert (method(SMOOTH, lambda1=largest * 1.0001).explain(X).zeros == 1).all()
    some = method(SMOOTH, lambda1=largest * 0.9999).explain(X).zeros
    assert (some < 1).any()


@pytest.mark.parametrize("method", [CAFO, CASO, SmoothCAFO, SmoothCASO])
@pytest.mark.parametrize("sparsity", [0.5, 0.75, 11 / 12, 1.0])
def test_a_wanted_share_of_zeros(method: type[CAFO], sparsity: float) -> None:
    result = method(PIECEWISE, sparsity=sparsity, c1=0.1).explain(X)
    assert result.ok
    assert ((result.zeros - sparsity).abs() <= 1 / 12 + 1e-9).all()


def test_the_search_takes_the_last_of_the_grid_with_enough_zeros() -> None:
    result = CASO(PIECEWISE, lambda1="search", c1=0.1).explain(X)
    assert ((result.zeros >= LEAST_ZEROS - 1e-9) & (result.zeros < 1)).all()
    for i, x in enumerate(X):
        g, _ = taylor(PIECEWISE, x, int(result.prediction[i]))
        halvings = math.log2(float(g.abs().max() / result.eta[i]))
        if abs(halvings - round(halvings)) < 1e-6:  # else the grid has none with enough zeros
            denser = CASO(PIECEWISE, lambda1=float(result.eta[i]) / 2, c1=0.1).explain(x[None])
            assert float(denser.zeros) < LEAST_ZEROS


def test_units_of_pixels_are_those_of_a_network_that_normalises() -> None:
    std = (0.5, 2.0, 0.25)
    scale = torch.tensor(std, dtype=torch.float64)[:, None]
    pixels = normal(4, 3, 4, seed=9)

    class Normalising(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = SMOOTH((x / scale).flatten(1))
            return out

    class Plain(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = SMOOTH(x.flatten(1))
            return out

    settings: dict[str, Any] = {"c1": 0.7, "lambda1": 0.01, "tolerance": 1e-9}
    for method in (CAFO, CASO):
        within = method(Normalising(), **_known(method, settings)).explain(pixels)
        outside = method(Plain(), std=std, **_known(method, settings)).explain(pixels / scale)
        torch.testing.assert_close(within.maps, outside.maps)
        torch.testing.assert_close(within.details["increase"], outside.details["increase"])


def _known(method: type[CAFO], settings: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in settings.items() if k != "tolerance" or method is CASO}


@pytest.mark.parametrize("method", [CAFO, CASO, SmoothCAFO, SmoothCASO])
def test_the_loss_is_the_cross_entropy_by_default(method: type[CAFO]) -> None:
    assert method(SMOOTH).score == "log-probability"


def test_the_smooth_ones_solve_one_joint_problem() -> None:
    sigma, samples, x = 0.3, 6, X[:1]
    result = SmoothCASO(
        SMOOTH, sigma=sigma, samples=samples, sigma_mode="absolute", lambda1=0.01, c1=0.1,
        tolerance=1e-9, seed=4,
    ).explain(x)  # fmt: skip
    target = int(result.prediction[0])
    noise = Noise(4)
    parts = [taylor(SMOOTH, (x + sigma * noise.draw([0], k, x))[0], target) for k in range(samples)]
    g, h = (torch.stack(each).mean(0) for each in zip(*parts, strict=True))
    lambda2 = float(torch.linalg.eigvalsh(h)[-1].clamp_min(0)) / 2 + 0.1
    torch.testing.assert_close(-result.maps[0], slow(g, h, 0.01, lambda2), rtol=1e-5, atol=1e-8)
    assert result.status == (Status.FIXED_BUDGET,)
    first = SmoothCAFO(
        SMOOTH, sigma=sigma, samples=samples, sigma_mode="absolute", lambda1=0.01, c1=0.1, seed=4
    ).explain(x)
    zero = torch.zeros(12, 12, dtype=torch.float64)
    torch.testing.assert_close(-first.maps[0], slow(g, zero, 0.01, 0.1))


@pytest.mark.parametrize("hessian", ["exact", "gauss-newton"])
@pytest.mark.filterwarnings("ignore:.*not the Hessian")
def test_chunks_and_kept_graphs_do_not_matter(hessian: str) -> None:
    for method, more in ((CASO, {}), (SmoothCASO, {"samples": 4})):
        results = [
            method(SMOOTH, hessian=hessian, c1=0.1, batch_size=size, **more).explain(X)
            for size in (1, 5, 64)
        ]
        for other in results[1:]:
            torch.testing.assert_close(results[0].maps, other.maps, rtol=1e-6, atol=1e-9)
            assert torch.equal(results[0].steps, other.steps)


class _Doubled(torch.autograd.Function):
    """An operator without forward mode."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return 2 * grads[0]


class WithoutForwardMode(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = PIECEWISE(_Doubled.apply(x) / 2)
        return out


def test_a_network_without_forward_mode_falls_back_and_says_so() -> None:
    settings: dict[str, Any] = {"hessian": "gauss-newton", "samples": 4, "batch_size": 2}
    with pytest.warns(UserWarning, match="without forward mode"):
        found = SmoothCASO(WithoutForwardMode(), **settings).explain(X)
    expected = SmoothCASO(PIECEWISE, **settings).explain(X)
    torch.testing.assert_close(found.maps, expected.maps)


def test_a_hidden_eigenvalue_is_found() -> None:
    """The gradient has no share of the direction in which the loss is most curved."""

    class Hidden(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            # Two logits: x_0 tells the first class, and x_1 enters by an even function.
            score = x[:, 0] + 8 * x[:, 1].square()
            return torch.stack([torch.zeros_like(score), score], dim=1)

    x = torch.zeros(1, 5, dtype=torch.float64)
    result = CASO(Hidden(), lambda1=0.0, tolerance=1e-9).explain(x, target=0)
    _, h = taylor(Hidden(), x[0], 0)
    top = float(torch.linalg.eigvalsh(h)[-1])
    assert top > 5 * float(h[0, 0])
    assert float(result.details["top_eigenvalue"][0]) == pytest.approx(top, rel=1e-6)


def test_a_lambda2_without_a_maximum_is_refused_with_the_smallest_that_has_one() -> None:
    tops = CASO(PIECEWISE, lambda1=0.0).explain(X).details["top_eigenvalue"]
    least = float(tops.max()) / 2
    with pytest.raises(ValueError, match=rf"lambda2: .* more than {least:.6g} for sample \d, got"):
        CASO(PIECEWISE, lambda1=0.0, lambda2=0.99 * least).explain(X)
    assert CASO(PIECEWISE, lambda1=0.0, lambda2=1.01 * least).explain(X).ok


def test_a_gradient_of_zero_has_an_empty_map() -> None:
    model = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 3)).double().eval()
    with torch.no_grad():
        model[0].weight.zero_()
    for method in (CAFO, CASO, SmoothCASO):
        result = method(model).explain(X)
        assert result.ok
        assert (result.maps == 0).all()
        assert (result.residual.nan_to_num() == 0).all()


def test_a_score_without_curvature_makes_them_equal() -> None:
    first = CAFO(PIECEWISE, score="logit", c1=0.5).explain(X)
    second = CASO(PIECEWISE, score="logit", c1=0.5).explain(X)
    torch.testing.assert_close(first.maps, second.maps)
    assert (second.details["top_eigenvalue"] == 0).all()


def test_evaluations_are_what_was_done() -> None:
    spent = 0

    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            nonlocal spent
            spent += len(x) * torch.is_grad_enabled()
            out: Tensor = SMOOTH(x)
            return out

    result = CASO(Counting(), check=False).explain(X)
    assert spent == len(X)  # the graph is kept
    assert torch.equal(result.evaluations, 1 + 2 * result.steps)
    checked = CASO(PIECEWISE, hessian="gauss-newton").explain(X)
    assert torch.equal(checked.evaluations, 3 + 2 * checked.steps)
    limited = CASO(SMOOTH, max_evaluations=5, tolerance=1e-9).explain(X)
    assert (limited.evaluations <= 5).all()
    assert set(limited.status) == {Status.BUDGET_USED}


def test_an_accuracy_below_rounding_is_reported() -> None:
    single = copy.deepcopy(SMOOTH).float()
    result = CASO(single, lambda1=0.01, c1=0.1, tolerance=1e-12).explain(X.float())
    assert set(result.status) == {Status.PRECISION}
    assert (result.steps < 40).all()
    exact = CASO(SMOOTH, lambda1=0.01, c1=0.1, tolerance=1e-10).explain(X)
    torch.testing.assert_close(result.maps.double(), exact.maps, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("lambda1", [0.0, 1e-6, 1e-5, 1e-4])
def test_a_small_lambda1_converges_for_each_sample_alone(lambda1: float) -> None:
    model = network([200, 64, 30], nn.ReLU, gain=3.0, dtype=torch.float32)
    x = normal(4, 200, seed=21, dtype=torch.float32)
    explainer = CASO(model, lambda1=lambda1, c1=0.5)
    batch = explainer.explain(x)
    assert batch.ok
    for i in range(4):
        alone = explainer.explain(x[i : i + 1])
        assert alone.status == (Status.CONVERGED,)
        torch.testing.assert_close(alone.maps[0], batch.maps[i], rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("method", [CASO, SmoothCASO])
def test_entries_that_the_network_does_not_read_are_exactly_zero(method: type[CASO]) -> None:
    model = nn.Sequential(nn.Unflatten(1, (1, 12)), nn.AvgPool1d(5), nn.Flatten(), nn.Linear(2, 3))
    maps = method(model.double().eval(), lambda1=0.0, c1=0.1).explain(X).maps
    assert (maps[:, 10:] == 0).all()
    assert (maps[:, :10] != 0).all()


@pytest.mark.parametrize("method", [CAFO, CASO, SmoothCASO])
def test_the_default_dtype_does_not_matter(method: type[CAFO]) -> None:
    single, x = copy.deepcopy(SMOOTH).float(), X.float()
    expected = method(single).explain(x).maps
    torch.set_default_dtype(torch.float64)
    try:
        found = method(single).explain(x)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found.maps, expected)


@pytest.mark.parametrize("method", [CASO, SmoothCASO])
@pytest.mark.parametrize("hessian", ["exact", "gauss-newton"])
@pytest.mark.filterwarnings("ignore:.*not the Hessian", "ignore::moreaugrad.ConvergenceWarning")
def test_inside_autocast_the_network_alone_is_in_reduced_precision(
    method: type[CASO], hessian: str
) -> None:
    single, x = copy.deepcopy(SMOOTH).float(), X.float()
    explainer = method(single, hessian=hessian, lambda1=0.01)
    expected = explainer.explain(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = explainer.explain(x)
        pulled = explainer.vjp(found, x)
        assert torch.is_autocast_enabled("cpu")
    off = (found.maps - expected.maps).norm(dim=1) / expected.maps.norm(dim=1)
    assert 1e-4 < float(off.max()) < 0.2
    assert found.maps.dtype == pulled.dtype == torch.float32
    exact = explainer.vjp(expected, x)
    assert float((pulled - exact).norm() / exact.norm()) < 0.2


BAD: list[tuple[dict[str, Any], str]] = [
    ({"lambda1": -1.0}, "lambda1: expected a number >= 0, 'auto' or 'search', got -1"),
    ({"lambda1": "serch"}, "lambda1.*search"),
    ({"c1": 0.0}, "c1: expected a number > 0"),
    ({"lambda2": -2.0}, "lambda2: expected a number > 0"),
    ({"sparsity": 1.5}, "sparsity: expected"),
    ({"hessian": "diagonal"}, "hessian"),
    ({"tolerance": 0.0}, "tolerance"),
    ({"max_evaluations": 0}, "max_evaluations"),
]


@pytest.mark.parametrize(("settings", "message"), BAD)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CASO(SMOOTH, **settings)


@pytest.mark.parametrize("std", [(1.0, 2.0), 0.0, (1.0, -1.0, 2.0)])
def test_bad_units(std: Any) -> None:
    with pytest.raises(ValueError, match="std: expected"):
        CASO(lambda x: SMOOTH(x.flatten(1)), std=std).explain(normal(2, 3, 4, seed=1))

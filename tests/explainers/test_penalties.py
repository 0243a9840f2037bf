"""Methods with penalties that no class was written for."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import moreaugrad as mg
import toys
from moreaugrad.attacks import TopKAttack
from moreaugrad.explainers.relex import loss_and_slope
from moreaugrad.penalties import Penalty
from moreaugrad.penalties.catalogue import read
from toys import Length

F64 = torch.float64


class Quadratic(nn.Module):
    """f(x) = b'x + x'Hx / 2, a regression."""

    def __init__(self, n: int) -> None:
        super().__init__()
        h = toys.normal(n, n, seed=4)
        self.h, self.b = (h @ h.T) / n, toys.normal(n, seed=5)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.b + ((x @ self.h) * x).sum(1) / 2


N = 12
MODEL = Quadratic(N)
X = toys.normal(3, N, seed=6)


def moreau(**settings: Any) -> mg.Moreau:
    return mg.Moreau(MODEL, task="regression", **settings)


def optimal(penalty: Penalty, rho: float, u: Tensor) -> Tensor:
    """||u - P(-rho grad f(x + u))|| / ||u||."""
    slope = MODEL.b + (X + u) @ MODEL.h
    return toys.relative(penalty.prox(-rho * slope, rho), u)


@pytest.mark.parametrize(
    "penalty",
    [
        *(mg.ElasticNet(0.2, 0.4), mg.SquaredL2(0.3), mg.Box(-0.1, 0.2), mg.GroupL2(0.4, size=3)),
        *(Length(0.5), Length(0.5, opaque=True)),
    ],
    ids=str,
)
def test_any_penalty_is_solved_for(penalty: Penalty) -> None:
    explainer = moreau(rho=0.7, sigma=0.0, tolerance=1e-8, penalty=penalty)
    result = explainer.explain(X)
    assert result.ok
    assert float(optimal(penalty, 0.7, -0.7 * result.maps).max()) < 1e-7
    assert toys.relative(explainer.explain(X[1:2]).maps, result.maps[1:2]) < 1e-7
    noisy = moreau(rho=0.7, sigma=0.1, tolerance=0.02, penalty=penalty)
    # The gradient of a quadratic is linear: noise does not move its mean.
    assert float(toys.relative(noisy.explain(X).maps, result.maps).max()) < 0.06


def test_the_named_classes_are_presets() -> None:
    model, x = toys.network((12, 8, 3)), X
    for penalty in (mg.L1(1.0), mg.L1(2.5)):
        general = mg.Moreau(model, penalty=penalty, eta="auto", sparsity=0.7).explain(x)
        preset = mg.SparseMoreauGrad(model, sparsity=0.7).explain(x)
        torch.testing.assert_close(general.maps, preset.maps)
        torch.testing.assert_close(general.eta * float(penalty.eta), preset.eta)
    assert torch.equal(mg.Moreau(model).explain(x).maps, mg.MoreauGrad(model).explain(x).maps)
    for preset in (mg.MoreauGrad, mg.SparseMoreauGrad, mg.GroupSparseMoreauGrad):
        assert issubclass(preset, mg.Moreau)
        assert "penalty" not in preset(model).settings()
        with pytest.raises(TypeError, match="penalty"):
            preset(model, penalty=mg.L1(0.1))
    with pytest.raises(TypeError, match="eta"):
        mg.MoreauGrad(model, eta=0.1)


def test_settings_name_the_penalty() -> None:
    settings = moreau(penalty=mg.GroupL2(0.5, size=[2, 3])).settings()
    expected = {"name": "group", "eta": 0.5, "size": [2, 3], "channels": "joint"}
    assert settings["penalty"] == expected


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            {"penalty": mg.ElasticNet(0.1, 0.1), "eta": "auto"},
            TypeError,
            "auto.*magnitudes",
        ),
        ({"penalty": mg.L1}, TypeError, "penalty.*L1"),
        ({"penalty": nn.ReLU()}, TypeError, "penalty.*ReLU"),
        ({"penalty": "l1"}, ValueError, "penalty.*Penalty"),
        ({"penalty": mg.L1(0.1), "eta": -1.0}, ValueError, "eta"),
        ({"penalty": mg.L1(0.1), "eta": float("inf")}, ValueError, "eta"),
    ],
)
def test_bad_penalties(settings: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        mg.Moreau(MODEL, **settings)


def test_weights_of_one_batch_are_refused() -> None:
    explainer = mg.Moreau(MODEL, penalty=mg.L1(torch.tensor([0.1, 0.2, 0.3])))
    with pytest.raises(ValueError, match="penalty: expected weights for all samples"):
        explainer.explain(X)


@pytest.mark.filterwarnings("ignore:.*differentiated by")
@pytest.mark.parametrize("opaque", [False, True])
def test_a_penalty_without_a_root_is_differentiated_straight_through(opaque: bool) -> None:
    penalty, rho = Length(0.5, opaque=opaque), 0.7
    explainer = moreau(rho=rho, sigma=0.0, tolerance=1e-9, penalty=penalty)
    assert explainer.derivatives == ("straight-through", "unrolled", "stein")
    assert mg.Moreau(MODEL, penalty=mg.Box(-1.0, 1.0)).derivatives[0] == "implicit"
    result, c = explainer.explain(X), toys.normal(3, N, seed=8)
    v = -rho * (MODEL.b + (X - rho * result.maps) @ MODEL.h)
    step = 1e-6
    through = c if opaque else (
        penalty.prox(v + step * c, rho) - penalty.prox(v - step * c, rho)
    ) / (2 * step)  # fmt: skip
    torch.testing.assert_close(explainer.vjp(result, c), through @ MODEL.h, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("opaque", [False, True])
def test_a_penalty_without_a_root_is_attacked_and_says_by_what(opaque: bool) -> None:
    model = toys.network((N, 8, 3))
    x = X.clone()
    explainer = mg.Moreau(model, sigma=0.0, penalty=Length(0.01, opaque=opaque))
    with pytest.warns(UserWarning, match=r"straight-through.*prox_root"):
        result = TopKAttack(explainer, epsilon=0.5, steps=3).attack(x)
    assert result.settings["through"] == "straight-through"
    assert (result.after < result.before).all()
    chosen = TopKAttack(explainer, epsilon=0.5, steps=1, through="straight-through")
    assert chosen.attack(x).settings["through"] == "straight-through"
    exact = TopKAttack(mg.Moreau(model, penalty=mg.ElasticNet(0.01, 0.1)), epsilon=0.5, steps=1)
    assert "through" not in exact.settings()


def test_a_penalty_with_the_four_methods_trains() -> None:
    model, x = toys.network((N, 8, 3)), X
    found = mg.training.Fast(Length(0.5)).perturb(model, x, model(x).argmax(1))
    torch.testing.assert_close(found.norm, torch.full_like(found.norm, 0.5))


SMOOTH = toys.network([N, 16, 4], nn.Tanh, gain=2.5).requires_grad_(False)
PENALTIES = {
    "group": mg.GroupL2(1.0, size=3),
    "elastic net": mg.ElasticNet(1.0, 0.5),
    "without a root": Length(1.0),
    "that autograd does not see": Length(1.0, opaque=True),
}


def taylor(x: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient and dense Hessian of the cross-entropy of the prediction."""

    def loss(at: Tensor) -> Tensor:
        return -SMOOTH(at[None]).log_softmax(1).max()

    return (
        torch.autograd.functional.jacobian(loss, x),
        torch.autograd.functional.hessian(loss, x),
    )


@pytest.mark.parametrize("name", PENALTIES)
def test_caso_with_any_penalty_is_the_dense_solution(name: str) -> None:
    penalty, lambda1, c1 = PENALTIES[name], 0.05, 0.2
    settings = {"penalty": penalty, "lambda1": lambda1, "c1": c1, "tolerance": 1e-8}
    result = mg.CASO(SMOOTH, **settings).explain(X)
    assert result.ok
    first = mg.CAFO(SMOOTH, penalty=penalty, lambda1=lambda1, c1=c1).explain(X)
    for i, x in enumerate(X):
        g, h = taylor(x)
        values = torch.linalg.eigvalsh(h)
        twice = float(values[-1].clamp_min(0)) + 2 * c1
        assert float(result.details["lambda2"][i]) == pytest.approx(twice / 2, rel=1e-6)
        step, delta = 1 / (twice - float(values[0].clamp_max(0))), torch.zeros_like(g)[None]
        for _ in range(4000):
            slope = g + delta @ h - twice * delta
            delta = penalty.prox(delta + step * slope, step * lambda1)
        torch.testing.assert_close(result.maps[i], -delta[0], rtol=1e-6, atol=1e-8)
        assert float(toys.relative(-delta, result.maps[i : i + 1])) <= float(result.error[i]) + 1e-9
        closed = penalty.prox(g[None] / (2 * c1), lambda1 / (2 * c1))[0]
        torch.testing.assert_close(first.maps[i], -closed, rtol=1e-6, atol=1e-9)


def test_a_group_caso_by_brute_force() -> None:
    """Two groups of one entry and two, on a grid of displacements."""

    class Wave(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (torch.sin(2 * x[:, 0]) - x[:, 1] * x[:, 2] + x[:, 1])[:, None]

    penalty, x = mg.GroupL2(1.0, index=[0, 1, 1]), torch.tensor([[0.4, -0.2, 0.7]], dtype=F64)
    lambda2, lambda1 = 2.0, 0.3
    result = mg.CASO(
        Wave(), score="logit", task="regression", penalty=penalty, lambda1=lambda1,
        lambda2=lambda2, c1=1.0, tolerance=1e-9,
    ).explain(x, 0)  # fmt: skip
    g, h = (
        -f(lambda at: Wave()(at[None]).sum(), x[0])
        for f in (torch.autograd.functional.jacobian, torch.autograd.functional.hessian)
    )
    centre, width = torch.zeros(3, dtype=F64), 1.0
    for _ in range(12):
        axis = torch.linspace(-width, width, 21, dtype=F64)
        grid = centre + torch.cartesian_prod(axis, axis, axis)
        value = grid @ g + ((grid @ h) * grid).sum(1) / 2 - lambda2 * grid.square().sum(1)
        centre = grid[(value - lambda1 * penalty.value(grid)).argmax()]
        width *= 0.4
    torch.testing.assert_close(result.maps[0], -centre, rtol=0, atol=1e-4)
    assert float(centre.abs().max()) > 0.1


def test_caso_chooses_the_weight_of_groups_by_sparsity() -> None:
    penalty = mg.GroupL2(1.0, size=2)
    for method in (mg.CAFO, mg.CASO, mg.SmoothCASO):
        result = method(SMOOTH, penalty=penalty, sparsity=0.5, c1=0.1).explain(X)
        zeros = (result.maps.reshape(3, 6, 2) == 0).all(2).double().mean(1)
        assert ((zeros - 0.5).abs() <= 1 / 6 + 1e-9).all(), method
    searched = mg.CASO(SMOOTH, penalty=penalty, lambda1="search", c1=0.1).explain(X)
    # The weight is the pull of a group at the threshold, which rounding may leave a rest of.
    norms = searched.maps.reshape(3, 6, 2).norm(dim=2)
    assert ((norms < 1e-6 * norms.amax()).double().mean(1) >= 0.75).all()
    for weight in ("auto", "search"):
        with pytest.raises(TypeError, match=r"lambda1.*magnitudes.*ElasticNet"):
            mg.CASO(SMOOTH, penalty=mg.ElasticNet(0.1, 0.1), lambda1=weight)


@pytest.mark.parametrize("method", [mg.CAFO, mg.CASO])
@pytest.mark.parametrize("penalty", [mg.GroupL2(1.0, size=3), mg.ElasticNet(1.0, 0.5)], ids=str)
def test_the_derivative_of_caso_with_a_penalty(method: type[mg.CAFO], penalty: Penalty) -> None:
    """By differences of maps, lambda2 given so that it stays."""
    more = {"tolerance": 1e-10} if method is mg.CASO else {}
    explainer = method(SMOOTH, penalty=penalty, lambda1=0.03, lambda2=12.0, **more)
    result, c = explainer.explain(X, 1), toys.normal(3, N, seed=11)
    found, step = explainer.vjp(result, c), 1e-5
    for place in (0, 5, 11):
        change = torch.zeros(N, dtype=F64)
        change[place] = step
        rise = explainer.explain(X + change, 1).maps - explainer.explain(X - change, 1).maps
        expected = (rise * c).sum(1) / (2 * step)
        torch.testing.assert_close(found[:, place], expected, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("method", [mg.CAFO, mg.CASO])
def test_caso_with_a_penalty_without_a_root_is_attacked(method: type[mg.CAFO]) -> None:
    explainer = method(SMOOTH, penalty=Length(1.0), lambda1=0.01, c1=0.5)
    assert explainer.derivatives == ("straight-through",)
    with pytest.warns(UserWarning, match=r"straight-through.*prox_root"):
        result = TopKAttack(explainer, epsilon=0.5, steps=3).attack(X)
    assert (result.after < result.before).all()


def test_relex_takes_any_penalty() -> None:
    settings = {"steps": 5, "draws": 4, "rate": 0.3}
    sum_of = mg.RelEx(SMOOTH, lambda1=0.4, **settings).explain(X).maps
    for penalty, lambda1 in ((mg.L1(2.0), 0.2), (mg.GroupL2(1.0, size=1), 0.4)):
        same = mg.RelEx(SMOOTH, penalty=penalty, lambda1=lambda1, **settings).explain(X)
        torch.testing.assert_close(same.maps, sum_of)
    stranger = mg.RelEx(SMOOTH, penalty=Length(1.0), lambda1=0.4, **settings).explain(X)
    assert stranger.ok
    assert float(toys.relative(stranger.maps, sum_of).max()) > 1e-3


def test_the_gradient_of_relex_s_loss_is_that_of_its_value() -> None:
    bound = mg.Score(SMOOTH, kind="log-probability", sigma=0.1, samples=4).bind(X)
    mask = toys.normal(3, N, seed=9).sigmoid()
    slope, step = loss_and_slope(bound, mask, 0.7)[1], 1e-6
    for place in (0, 7):
        change = torch.zeros(N, dtype=F64)
        change[place] = step
        ahead, behind = (loss_and_slope(bound, mask + d, 0.7)[0] for d in (change, -change))
        rise = (ahead - behind) / (2 * step)
        torch.testing.assert_close(slope[:, place], rise, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("penalty", [mg.L1(1.0), mg.L1(0.3), mg.GroupL2(0.7, size=3)], ids=str)
def test_an_automatic_weight_leaves_no_entry_of_rounding(penalty: Penalty) -> None:
    x = toys.normal(200, N, seed=7)
    maps = mg.CAFO(MODEL, task="regression", score="logit", penalty=penalty).attribute(x)
    size = maps.abs()
    assert not bool(((size > 0) & (size < 1e-12 * size.amax(1, keepdim=True))).any())


def test_integer_weights_for_the_samples_of_a_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="penalty: expected weights for all samples"):
        moreau(penalty=mg.L1(torch.tensor([1, 2, 3]))).explain(X)
    assert moreau(penalty=mg.L1(torch.tensor(1))).explain(X).maps.isfinite().all()


@pytest.mark.parametrize(
    "table", [{"name": "weighted-l2", "weight": [0.5] * N}, "box -0.1 0.2"], ids=str
)
def test_a_configuration_names_any_penalty(table: Any) -> None:
    made = moreau(penalty=read(table), sigma=0.0, rho=0.7)
    assert made.explain(X).ok
    again = read(made.settings()["penalty"])
    assert type(again) is type(made.penalty)
    assert ":" not in made.settings()["penalty"]["name"]

"""Methods with penalties that no class was written for."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import moreaugrad as mg
import toys
from moreaugrad.attacks import TopKAttack
from moreaugrad.penalties import Penalty, Weight
from moreaugrad.score.inputs import per_sample

F64 = torch.float64


@dataclass(frozen=True, eq=False)
class Length(Penalty):
    """R(u) = weight ||u||_2, with the four methods that every penalty has and no more."""

    weight: Weight
    opaque: bool = False
    """Whether autograd sees nothing of the prox."""

    def value(self, u: Tensor) -> Tensor:
        length = u.flatten(1).norm(dim=1)
        return per_sample(self.weight, length) * length

    def prox(self, u: Tensor, tau: Weight) -> Tensor:
        u = torch.as_tensor(u.numpy()) if self.opaque else u
        length = per_sample(u.flatten(1).norm(dim=1), u)
        shorter = (length - per_sample(self.weight, u) * per_sample(tau, u)).clamp_min(0)
        return u * (shorter / length.clamp_min(torch.finfo(u.dtype).tiny))

    def conjugate(self, d: Tensor) -> Tensor:
        length = d.flatten(1).norm(dim=1)
        inside = length <= per_sample(self.weight, length) * (1 + 1e-6)
        return torch.zeros_like(length).masked_fill(~inside, torch.inf)

    def maximiser(self, g: Tensor) -> Tensor:
        length = per_sample(g.flatten(1).norm(dim=1), g).clamp_min(torch.finfo(g.dtype).tiny)
        return per_sample(self.weight, g) * (g / length)


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

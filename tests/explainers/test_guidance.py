"""Guided settings: the level at which a map stays faithful, and a rho below its limit."""

import math

import pytest
import torch
from torch import Tensor, nn

import moreaugrad as mg
from moreaugrad.attacks import TopKAttack
from moreaugrad.certificates import certify
from moreaugrad.explainers.guidance import SIGMAS, best_rho, best_sigma, rho_cost, sigma_cost
from moreaugrad.score.score import Score
from toys import network, normal

NAN = math.nan


def images(batch: int = 3) -> Tensor:
    return normal(batch, 1, 8, 8, seed=3)


def on_images() -> nn.Module:
    return nn.Sequential(nn.Flatten(), network((64, 20, 20, 3), nn.ReLU, gain=2.0)).eval()


@pytest.mark.parametrize(
    ("faithful", "chosen"),
    [
        ([0.5, 0.6, 0.55, 0.2], 0.3),  # 0.55 is above nine tenths of 0.6
        ([0.5, 0.6, 0.2, 0.6], 0.2),  # not beyond a level that is not faithful
        ([0.6, 0.1, 0.1, 0.1], 0.1),
        ([0.1, 0.2, 0.3, 0.4], 0.4),
        ([0.4, 0.4, 0.4, 0.4], 0.4),
        ([NAN, 0.3, NAN, 0.3], 0.2),
        ([NAN, NAN, NAN, NAN], 0.1),
        ([-0.5, -0.1, -0.105, -0.2], 0.1),  # nowhere faithful: nothing speaks for more noise
        ([0.0, 0.0, -0.1, 0.0], 0.1),
    ],
)
def test_the_largest_level_up_to_which_a_map_stays_faithful(
    faithful: list[float], chosen: float
) -> None:
    found = best_sigma(torch.tensor([faithful], dtype=torch.float64), (0.1, 0.2, 0.3, 0.4))
    assert found.tolist() == [chosen]


def test_faithfulness_is_that_of_smoothgrad_over_the_inputs_own_range() -> None:
    model, x = on_images(), images()
    found = mg.guidance(model, x, ids=[4, 1, 7])
    for row, key in enumerate((4, 1, 7)):
        one = x[row : row + 1]
        space = mg.InputSpace(low=float(one.min()), high=float(one.max()))
        how = mg.metrics.Replacement(size=1, draws=3)
        for place, sigma in enumerate(SIGMAS):
            maps = mg.SmoothGrad(model, sigma=sigma, samples=64).explain(one, ids=[key]).maps
            bound = mg.Score(model).bind(one, ids=[key])
            expected = mg.metrics.aopc(bound, maps, space, steps=10, how=how)
            assert found.faithfulness[row, place].item() == pytest.approx(expected.item())
    assert torch.equal(found.sigma, best_sigma(found.faithfulness, SIGMAS))
    assert len(set(found.sigma.tolist())) > 1


def test_survival_is_the_fraction_of_noisy_inputs_of_the_class() -> None:
    """Of a linear network: Phi(margin / (sigma |w|))."""
    w = normal(64, seed=5)
    model = nn.Linear(64, 2, bias=False).double()
    model.weight.data = torch.stack([w, -w])
    x = normal(2, 64, seed=6)
    x = torch.where((x @ w > 0)[:, None], x, -x)
    found = mg.guidance(model, x, 0, sigmas=(0.2, 0.5), samples=512)
    width = x.amax(1) - x.amin(1)
    for place, sigma in enumerate((0.2, 0.5)):
        exact = torch.special.ndtr((x @ w) / (sigma * width * w.norm()))
        assert torch.allclose(found.survival[:, place], exact, atol=0.06)


@pytest.mark.parametrize("sigma", [0.0, 0.3])
def test_rho_is_half_of_the_limit_of_a_quadratic(sigma: float) -> None:
    curvature = torch.tensor([-4.0, 1.0, 2.0, 0.5], dtype=torch.float64)

    class Quadratic(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 0.01 * x.sum(1, keepdim=True) + (0.5 * curvature * x * x).sum(1, keepdim=True)

    x = torch.tensor([[0.01, 0.3, 0.2, -0.1], [0.5, 0.1, -0.1, 0.0]]).double()
    explainer = mg.SparseMoreauGrad(
        Quadratic(), task="regression", rho="auto", sigma=sigma, sigma_mode="absolute", eta=0.001
    )
    found = explainer.explain(x)
    slope = 0.01 + curvature * x
    noise = sigma or 0.1 * (x.amax(1) - x.amin(1))  # of the usual level
    reach = noise * 2 / slope.norm(dim=1)
    expected = torch.minimum(reach, torch.tensor(0.125).double())
    assert torch.allclose(found.details["rho"], expected, rtol=1e-6)
    assert bool((expected == 0.125).any())


def test_the_envelope_of_a_convex_score_reaches_no_farther_than_the_noise() -> None:
    model = nn.Linear(6, 1, bias=False).double()
    x = normal(3, 6, seed=0)
    bound = Score(model, sigma=0.2, sigma_mode="absolute", task="regression").bind(x)
    reach = best_rho(bound, 0) * model.weight.norm().detach()
    assert torch.allclose(reach, torch.tensor(0.2 * 6**0.5).double(), rtol=1e-6)


@pytest.mark.parametrize("sigma", [0.0, 0.1])
def test_rho_of_a_constant_input_stays_below_its_limit(sigma: float) -> None:
    """Relative noise of an input without a range is none, and bounds nothing."""

    def concave(x: Tensor) -> Tensor:
        return (x - 50 * x * x).sum(1, keepdim=True)

    explainer = mg.SparseMoreauGrad(
        concave, task="regression", rho="auto", sigma=sigma, eta=0.001, check=False
    )
    found = explainer.explain(torch.full((2, 4), 0.5, dtype=torch.float64))
    assert torch.allclose(found.details["rho"], torch.tensor(0.005).double(), rtol=1e-6)


METHODS = {
    "smoothgrad": {},
    "sparsified-smoothgrad": {},
    "smooth-cafo": {},
    "sparse-moreaugrad": {"rho": "auto", "tolerance": 0.3},
    "group-sparse-moreaugrad": {"group": 2, "rho": "auto", "tolerance": 0.3},
    "moreaugrad": {"noise": "fixed", "samples": 8, "rho": "auto"},
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore::moreaugrad.ConvergenceWarning")
def test_settings_are_chosen_for_each_sample_alone(name: str) -> None:
    explainer = mg.build(name, on_images(), sigma="auto", **METHODS[name])
    x, ids = images(), [4, 1, 7]
    together = explainer.explain(x, ids=ids)
    assert len(set(together.details["sigma"].tolist()) | {0.0}) > 1
    assert set(together.details["sigma"].tolist()) <= set(SIGMAS)
    for row in range(3):
        alone = explainer.explain(x[row : row + 1], ids=ids[row : row + 1])
        assert alone.details["sigma"] == together.details["sigma"][row]
        assert torch.allclose(alone.maps, together.maps[row : row + 1], rtol=0, atol=1e-9)
        assert alone.evaluations == together.evaluations[row]
    if name.startswith("smooth"):
        fixed = mg.build(name, on_images(), sigma=float(together.details["sigma"][0]),
                         **METHODS[name]).explain(x[:1], ids=ids[:1])  # fmt: skip
        assert torch.allclose(fixed.maps, together.maps[:1], rtol=0, atol=1e-12)
        assert together.evaluations[0] == fixed.evaluations[0] + sigma_cost()


def test_the_choices_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the passes of the network, forward or with a gradient."""
    rows = [0]

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = on_images()

        def forward(self, x: Tensor) -> Tensor:
            rows[0] += len(x)
            found: Tensor = self.inner(x)
            return found

    explainer = mg.SparseMoreauGrad(Counting(), sigma="auto", rho="auto", check=False)
    explainer.bind(images(1))
    # The network is followed once for each level's centre, and the clean output is read once.
    assert rows[0] == pytest.approx(sigma_cost() + rho_cost(64), abs=2 * len(SIGMAS) + 2)


@pytest.mark.parametrize("sigma", [0.2, "auto"])
def test_the_budget_of_smooth_caso_counts_all_noise_samples_together(sigma: float | str) -> None:
    explainer = mg.SmoothCASO(
        on_images(), sigma=sigma, samples=4, tolerance=1e-30, max_evaluations=100
    )
    chosen = sigma_cost() if sigma == "auto" else 0
    assert explainer.budget() == 100 + chosen
    assert 80 < int(explainer.explain(images(1)).evaluations) - chosen <= 100


def test_an_attack_keeps_the_choice_at_the_clean_input() -> None:
    explainer = mg.SmoothGrad(
        nn.Sequential(nn.Flatten(), network((64, 20, 3), nn.Softplus, gain=2.0)).eval(),
        sigma="auto", samples=8,
    )  # fmt: skip
    found = TopKAttack(explainer, epsilon=0.5, steps=2, draws=4).attack(images())
    assert found.ok


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"sigma": "much"}, "sigma: expected a number.*auto"),
        ({"rho": "much"}, "rho: expected a finite number.*auto"),
        ({"sigma": "auto", "sigma_mode": "absolute"}, "sigma_mode: expected 'relative'"),
    ],
)
def test_bad_settings(settings: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        mg.SparseMoreauGrad(on_images(), **settings)


def test_bad_calls() -> None:
    model, x = on_images(), images()
    with pytest.raises(ValueError, match=r"sigmas: expected finite numbers > 0"):
        mg.guidance(model, x, sigmas=(0.0, 0.1))
    with pytest.raises(ValueError, match=r"kept: expected"):
        mg.guidance(model, x, kept=0.0)
    tokens = nn.Sequential(nn.Flatten(), network((12, 5, 3), nn.ReLU))
    with pytest.raises(ValueError, match=r"sigma: expected a number.*one image"):
        mg.SmoothGrad(tokens, sigma="auto").explain(normal(2, 3, 4, seed=0))
    for name in ("sigma", "rho"):
        explainer = mg.SparseMoreauGrad(
            model, score="probability", **{"sigma": 0.1, name: "auto"},
            **({"sigma_mode": "absolute"} if name == "rho" else {}),
        )  # fmt: skip
        with pytest.raises(ValueError, match=rf"{name}: expected a number"):
            certify(explainer, x, radii=[0.1])


def test_a_regression_predicts_no_class() -> None:
    model = nn.Sequential(nn.Flatten(), network((64, 20, 1), nn.ReLU, gain=2.0)).eval()
    found = mg.guidance(model, images(), task="regression")
    assert bool(found.survival.isnan().all())
    assert not bool(found.faithfulness.isnan().any())
    assert torch.equal(found.sigma, best_sigma(found.faithfulness, SIGMAS))


def test_a_constant_input_has_the_least_level() -> None:
    x = images(2)
    x[0] = 0.5
    found = mg.guidance(on_images(), x)
    assert found.sigma[0] == SIGMAS[0]
    assert bool(found.faithfulness[0].isnan().all())


class _Root(nn.Module):
    """The gradient at inputs whose first entry is negative is NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network([6, 8, 3], nn.Tanh)

    def forward(self, x: Tensor) -> Tensor:
        first = x[:, :1]
        root = torch.where(first > 0, first, 0 * first).sqrt()
        found: Tensor = self.body(x) + root * torch.tensor([1.0, 0, 0])
        return found


def test_a_gradient_that_is_not_finite_ends_its_own_sample_alone() -> None:
    x = normal(3, 6, seed=1)
    x[:, 0] = torch.tensor([20.0, -3.0, 20.0])
    explainer = mg.MoreauGrad(_Root(), sigma=0, rho="auto")
    found = explainer.explain(x, 0)
    assert [status is mg.Status.NON_FINITE for status in found.status] == [False, True, False]
    assert found.maps.isnan().all(1).tolist() == [False, True, False]
    torch.testing.assert_close(found.maps[::2], explainer.explain(x[::2], 0).maps)
    limits = mg.rho_guidance(explainer, x, 0)
    assert limits.limit.isnan().tolist() == [False, True, False]
    values = mg.relu_hessian(_Root(), x, 0).eigenvalues
    assert values.isnan().any(1).tolist() == [False, True, False]

"""Manipulation, Gaussian noise and random search."""

import math
from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from moreaugrad import GradCAM, SimpleGradient
from moreaugrad.attacks import (
    AttackStatus,
    GaussianNoiseAttack,
    ManipulationAttack,
    RandomSearch,
    TopKAttack,
    manipulation,
)
from moreaugrad.curvature.second_derivatives import softplus_surrogate
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.inputs import InputSpace
from moreaugrad.score.noise import Noise
from toys import network, normal


def on_images(activation: type[nn.Module] = nn.Softplus) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), network((12, 20, 20, 3), activation, gain=2.0)).eval()


def pictures(batch: int = 4) -> Tensor:
    return normal(batch, 1, 3, 4, seed=3)


# Manipulation


def shares(maps: Tensor) -> Tensor:
    magnitude = maps.abs().sum(1).flatten(1)
    return magnitude / magnitude.sum(1, keepdim=True)


def test_a_map_is_drawn_to_a_given_one_while_the_output_stays() -> None:
    model, x = on_images(), pictures()
    wanted = normal(1, 3, 4, seed=8)
    attack = ManipulationAttack(SimpleGradient(model), target_map=wanted, steps=60, rate=0.02)
    found = attack.attack(x)
    assert set(found.status) == {AttackStatus.IMPROVED}
    assert bool((found.after < found.before).all())
    target = shares(wanted[None])
    before, after = (
        (shares(maps) - target).norm(dim=1) for maps in (found.clean.maps, found.attacked.maps)
    )
    assert bool((after < before).all())
    with torch.no_grad():
        change = (model(found.inputs).softmax(1) - model(x).softmax(1)).abs().amax(1)
        assert bool((change < 0.2).all())
        free = replace(attack, output_weight=0.0).attack(x)
        loose = (model(free.inputs).softmax(1) - model(x).softmax(1)).abs().amax(1)
    assert float(loose.mean()) > 2 * float(change.mean())
    assert torch.equal(found.attacked.prediction, found.clean.prediction)


def test_the_loss_is_the_published_one() -> None:
    model, x = on_images(), pictures(1)
    wanted = normal(1, 3, 4, seed=8)
    attack = ManipulationAttack(SimpleGradient(model), target_map=wanted, steps=1, rate=0.01)
    found = attack.attack(x)
    moved = x - 0.01 * loss_slope(model, x, wanted)[1].sign()  # Adam's first step
    assert found.objective[0].tolist() == pytest.approx(
        [loss_slope(model, at, wanted, x)[0] for at in (x, moved)], rel=1e-5
    )


def loss_slope(
    model: nn.Module, at: Tensor, wanted: Tensor, clean: Tensor | None = None
) -> tuple[float, Tensor]:
    at = at.clone().requires_grad_()
    clean = at.detach() if clean is None else clean
    target = int(model(clean).argmax())
    (gradient,) = torch.autograd.grad(model(at)[0, target], at, create_graph=True)
    h, t = shares(gradient), shares(wanted[None])
    # 1e11 and 1e6 at 224 x 224 pixels and 1000 classes; here 12 and 3.
    loss = 1e11 * (12 / 224**2) ** 2 * (h - t).square().mean()
    loss = (
        loss + 1e6 * (3 / 1000) * (model(at).softmax(1) - model(clean).softmax(1)).square().mean()
    )
    (slope,) = torch.autograd.grad(loss, at)
    return float(loss.detach()), slope


def test_manipulation_keeps_to_a_budget_and_the_box() -> None:
    space = InputSpace(mean=0.5, std=0.25, low=-1, high=2)
    attack = ManipulationAttack(
        SimpleGradient(on_images()), steps=20, rate=0.05, epsilon=0.05, units="pixel", space=space
    )
    found = attack.attack(pictures())
    assert bool((found.distance <= 0.05 + 1e-12).all())
    assert float(found.distance.max()) > 0.04


def test_manipulation_of_relu_logits_fails() -> None:
    found = ManipulationAttack(SimpleGradient(on_images(nn.ReLU)), steps=3).attack(pictures())
    assert set(found.status) == {AttackStatus.NO_GRADIENT}
    assert torch.equal(found.inputs, pictures())


def test_a_surrogate_that_sharpens_manipulates_a_relu_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used: list[float] = []

    def noted(model: nn.Module, beta: float) -> nn.Module:
        used.append(beta)
        return softplus_surrogate(model, beta)

    monkeypatch.setattr(manipulation, "softplus_surrogate", noted)
    model, x = on_images(nn.ReLU), pictures()
    explainer = SimpleGradient(model)
    attack = ManipulationAttack(
        explainer, steps=60, rate=0.02, betas=(5.0, 50.0), output_weight=0.0
    )
    found = attack.attack(x)
    grown = list(dict.fromkeys(used))
    assert grown == pytest.approx([5 * 10 ** (step / 60) for step in range(61)])
    seen = found.objective.nan_to_num(nan=math.inf).amin(1)
    assert seen.tolist() == pytest.approx(found.after.tolist())
    assert AttackStatus.IMPROVED in found.status
    assert found.ok
    assert bool((found.after <= found.before).all())
    # The ReLU network itself is what is judged.
    again = explainer.explain(found.inputs, found.clean.target)
    assert torch.equal(found.attacked.maps, again.maps)
    for settings in ({"source": explainer}, {"measured": False}):
        with pytest.raises(ValueError, match="betas: expected no source, and measured=True"):
            replace(attack, **settings)
    with pytest.raises(ValueError, match="betas: expected two numbers > 0"):
        replace(attack, betas=(0.0, 1.0))


def test_the_output_s_change_is_that_of_one_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the surrogate with a larger beta changes is no change by the attack."""
    real, x, off = ManipulationAttack._change, pictures(), list[float]()

    def noted(
        self: ManipulationAttack, score: BoundScore, at: Tensor, clean: Tensor
    ) -> tuple[Tensor, Tensor]:
        here = score.model(x).detach().softmax(1)
        off.append(float((here - clean).abs().max()))
        return real(self, score, at, clean)

    monkeypatch.setattr(ManipulationAttack, "_change", noted)
    explainer = SimpleGradient(on_images(nn.ReLU))
    ManipulationAttack(explainer, steps=5, rate=0.01, betas=(1.0, 50.0)).attack(x)
    assert len(off) == 10
    assert max(off) < 1e-6


# Gaussian noise


def test_noise_is_a_share_of_each_range() -> None:
    x = normal(2, 1, 64, 64, seed=0) * torch.tensor([1.0, 5.0])[:, None, None, None]
    model = lambda x: x.flatten(1)[:, :3]  # noqa: E731
    attack = GaussianNoiseAttack(SimpleGradient(model), sigma=0.05, preserve_class=False)
    found = attack.attack(x, ids=[3, 4])
    spread = x.flatten(1).amax(1) - x.flatten(1).amin(1)
    z = (found.inputs - x).flatten(1) / (0.05 * spread[:, None])
    for row in z:
        assert stats.kstest(row.numpy(), "norm").pvalue > 1e-3
    assert found.distance.tolist() == pytest.approx(
        (found.inputs - x).flatten(1).norm(dim=1).tolist()
    )
    assert found.status == (AttackStatus.DRAWN,) * 2
    assert found.before.isnan().all()
    # Not the draws that a smoothed explainer with the same seed and ids sees.
    assert not torch.allclose(z[0].float(), Noise(0).normal(3, 0, 4096), atol=1e-3)
    absolute = GaussianNoiseAttack(
        SimpleGradient(model), sigma=0.05, sigma_mode="absolute", preserve_class=False
    ).attack(x, ids=[3, 4])
    assert torch.allclose((absolute.inputs - x).flatten(1) / 0.05, z)


def edgy(x: Tensor) -> Tensor:
    """Class 1 where the first entry is positive."""
    return torch.stack((-x[:, 0], x[:, 0]), dim=1) * (2 + x.square().sum(1, keepdim=True))


def test_noise_may_keep_the_class() -> None:
    x = torch.full((40, 2), 0.02, dtype=torch.float64)
    settings = {"sigma": 0.1, "sigma_mode": "absolute"}
    explainer, ids = SimpleGradient(edgy), list(range(40))
    free = GaussianNoiseAttack.published(explainer, **settings).attack(x, ids=ids)
    assert 5 < int((free.attacked.prediction == 0).sum()) < 35
    assert free.feasible.tolist() == (free.attacked.prediction == 1).tolist()
    kept = GaussianNoiseAttack(explainer, **settings).attack(x, ids=ids)
    assert bool((kept.attacked.prediction == 1).all())
    assert kept.ok
    assert bool(kept.feasible.all())
    same = free.feasible
    assert torch.equal(kept.inputs[same], free.inputs[same])
    assert bool((kept.evaluations[~same] > 1).all())


def test_noise_that_never_keeps_the_class_is_reported() -> None:
    def cliff(x: Tensor) -> Tensor:
        score = x.sum(1) + x.square().sum(1)
        return torch.stack((score, score - 1e-9 + 1e9 * x.square().sum(1)), dim=1)

    x = torch.zeros(1, 3, dtype=torch.float64)
    found = GaussianNoiseAttack(SimpleGradient(cliff), sigma=0.1, sigma_mode="absolute").attack(x)
    assert found.status == (AttackStatus.NO_FEASIBLE_STEP,)
    assert torch.equal(found.inputs, x)


def test_noise_stays_in_the_box_and_the_ball() -> None:
    space = InputSpace()
    x = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    model = lambda x: x.flatten(1)[:, :3]  # noqa: E731
    found = GaussianNoiseAttack(
        SimpleGradient(model), sigma=1.0, space=space, epsilon=0.5, preserve_class=False
    ).attack(x)
    assert float(found.inputs.min()) >= 0
    assert float(found.inputs.max()) <= 1
    assert bool((found.distance <= 0.5 + 1e-6).all())


# Random search


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_random_search_is_never_worse_than_the_input(norm: str) -> None:
    explainer, x = SimpleGradient(on_images()), pictures(6)
    for seed in range(3):
        found = RandomSearch(explainer, epsilon=0.3, norm=norm, steps=15, seed=seed).attack(x)
        assert bool((found.after <= found.before).all())
        assert found.objective.shape == (6, 16)
        assert set(found.status) <= {AttackStatus.IMPROVED, AttackStatus.HELD}
        improved = torch.tensor([s is AttackStatus.IMPROVED for s in found.status])
        least = found.objective.nan_to_num(nan=torch.inf).amin(1)
        assert torch.equal(least < found.objective[:, 0], improved)
        assert torch.equal(found.after, least.mul(100).round() / 100)  # of four entries
        assert found.distance[improved].tolist() == pytest.approx([0.3] * int(improved.sum()))
        assert found.distance[~improved].tolist() == [0.0] * int((~improved).sum())


def test_more_points_find_more() -> None:
    explainer, x = SimpleGradient(on_images()), pictures(6)
    few, many = (
        RandomSearch(explainer, epsilon=0.5, steps=steps).attack(x).after for steps in (5, 200)
    )
    assert bool((many <= few).all())
    assert float((few - many).mean()) > 0.02


def test_random_search_needs_no_derivative() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3)).double()
    x = pictures()
    found = RandomSearch(SimpleGradient(model.eval()), epsilon=1.0, steps=30).attack(x)
    assert AttackStatus.IMPROVED in found.status
    cam = GradCAM(model)
    assert RandomSearch(cam, epsilon=1.0, steps=5).attack(x).ok
    with pytest.raises(ValueError, match=r"grad-cam.*source=.*random-search"):
        TopKAttack(cam, epsilon=1.0)

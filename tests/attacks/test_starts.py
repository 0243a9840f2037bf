"""Where an attack begins, and what it is given: near and far starts, one label, a known map."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import moreaugrad as mg
from moreaugrad.attacks import (
    AttackStatus,
    ManipulationAttack,
    MassCentreAttack,
    MatchedAttack,
    RandomSearch,
    TopKAttack,
)
from moreaugrad.attacks.base import Attack
from toys import network, normal

IMPROVED = AttackStatus.IMPROVED


def _narrow(x: Tensor) -> Tensor:
    """A class of radius 1.2, of a map that curves."""
    first = 1.5 - x.square().sum(1) + 0.1 * (3 * x).sin().sum(1)
    return torch.stack((first, torch.zeros_like(first)), dim=1)


@pytest.mark.parametrize("metric", ["ssim", "cosine", "mass-centre"])
def test_starts_come_nearer_where_far_ones_change_the_class(metric: str) -> None:
    """The gradient of these is zero at the input itself."""
    x = 0.1 * normal(2, 1, 6, 6, seed=1)
    explainer = mg.SimpleGradient(lambda x: _narrow(x.flatten(1)), check=False)
    for epsilon in (0.2, 3.0):
        how: dict[str, Any] = {"epsilon": epsilon, "steps": 4}
        attack: Attack = (
            MassCentreAttack(explainer, **how)
            if metric == "mass-centre"
            else MatchedAttack(explainer, metric=metric, **how)
        )
        assert set(attack.attack(x).status) == {IMPROVED}, epsilon
    found = RandomSearch(explainer, metric="cosine", epsilon=3.0, steps=20).attack(x)
    assert found.ok


@pytest.mark.parametrize("bias", [-3.0, 3.0])
def test_a_single_label_of_several_can_be_attacked(bias: float) -> None:
    """With one output no class can change."""

    def model(x: Tensor) -> Tensor:
        return (x.tanh().sum(1, keepdim=True) + x.square().sum(1, keepdim=True)) + bias

    x = 0.3 * normal(3, 8, seed=2)
    attack = TopKAttack(mg.SimpleGradient(model, task="multilabel", check=False), epsilon=0.5)
    assert set(attack.attack(x).status) == {IMPROVED}


def test_a_clean_map_of_other_settings_is_refused() -> None:
    model, x = network((12, 20, 3)), normal(2, 12, seed=3)
    clean = mg.SmoothGrad(model, sigma=0.5, samples=4).explain(x)
    for other in ({"sigma": 0.1}, {"score": "probability"}):
        explainer = mg.SmoothGrad(model, **{"sigma": 0.5, "samples": 4} | other)
        with pytest.raises(ValueError, match=rf"clean.*{next(iter(other))}"):
            TopKAttack(explainer, epsilon=0.5).attack(x, clean=clean)
    # The same map with other noise samples, or computed otherwise.
    same = mg.SmoothGrad(model, sigma=0.5, samples=8, seed=1, batch_size=1)
    assert TopKAttack(same, epsilon=0.5, steps=2).attack(x, clean=clean).ok


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_manipulation_moves_in_half_precision(dtype: torch.dtype) -> None:
    """Each of its steps is smaller than the rounding of the input."""
    model = nn.Sequential(nn.Flatten(), network((12, 20, 3), nn.Softplus, gain=2.0)).eval()
    x = normal(2, 1, 3, 4, seed=3).to(dtype)
    moved = []
    for kind in (torch.float64, dtype):
        explainer = mg.SimpleGradient(model.to(kind))
        attack = ManipulationAttack(
            explainer, target_map=normal(1, 3, 4, seed=8), steps=40, rate=2e-4
        )
        found = attack.attack(x.to(kind))
        assert found.inputs.dtype == kind
        moved.append(found.distance)
    assert bool((moved[1] > 0.5 * moved[0]).all())

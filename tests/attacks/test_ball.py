"""No point that an attack proposes leaves the ball or the box."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from moreaugrad.attacks.problem import Ball
from moreaugrad.score.inputs import InputSpace
from moreaugrad.score.score import Score
from toys import normal

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
SPACE = InputSpace(mean=MEAN, std=STD)


def uniform(*shape: int, seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pictures(seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Two of 3 x 2 x 2 pixels, with some at the ends of their range."""
    pixels = (1.4 * uniform(2, 3, 2, 2, seed=seed) - 0.2).clamp(0, 1)
    return ((pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]).to(
        dtype
    )


def ball(x: Tensor, radius: float, norm: str, units: str, space: InputSpace | None = SPACE) -> Ball:
    bound = Score(lambda x: x.flatten(1), task="regression").bind(x, 0)
    return Ball.around(bound, radius, norm, units, space)


@given(
    seed=st.integers(0, 10**6),
    radius=st.floats(1e-3, 10),
    spread=st.floats(0, 100),
    norm=st.sampled_from(["l2", "linf"]),
    units=st.sampled_from(["input", "pixel"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=200, deadline=None)
def test_points_stay_in_ball_and_box(
    seed: int, radius: float, spread: float, norm: str, units: str, dtype: torch.dtype
) -> None:
    x = pictures(seed, dtype)
    around = ball(x, radius, norm, units)
    found = around.at(spread * normal(2, 12, seed=seed).to(dtype))
    rounding = 40 * torch.finfo(dtype).eps
    assert bool((around.distance(found) <= radius + rounding * 10).all())
    pixels = SPACE.pixels(found, around.layout)
    assert bool((pixels >= -rounding).all() and (pixels <= 1 + rounding).all())
    # In pixels by hand.
    shift = (found - x.flatten(1)).double() * torch.tensor(STD).repeat_interleave(4)
    if units == "input":
        shift = (found - x.flatten(1)).double()
    length = shift.abs().amax(1) if norm == "linf" else shift.norm(dim=1)
    assert length.tolist() == pytest.approx(around.distance(found).tolist(), abs=1e-5)


def test_the_projection_is_the_nearest_point_of_the_ball() -> None:
    x = normal(1, 3, seed=0)
    around = ball(x, 0.5, "l2", "input", None)
    w = torch.tensor([[3.0, 4.0, 0.0]], dtype=torch.float64)
    assert (around.at(w) - x)[0].tolist() == pytest.approx([0.3, 0.4, 0.0])
    assert (around.at(w / 20) - x)[0].tolist() == pytest.approx([0.15, 0.2, 0.0])
    cube = ball(x, 0.5, "linf", "input", None)
    assert (cube.at(w) - x)[0].tolist() == pytest.approx([0.5, 0.5, 0.0])


def test_samples_are_projected_one_by_one() -> None:
    x, w = pictures(3), 5 * normal(2, 12, seed=1)
    together = ball(x, 0.7, "l2", "pixel").at(w)
    alone = [ball(x[i : i + 1], 0.7, "l2", "pixel").at(w[i : i + 1]) for i in range(2)]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_starts_lie_on_the_sphere(norm: str) -> None:
    around = ball(normal(3, 4, seed=0), 0.3, norm, "input", None)
    w = around.on_sphere(normal(3, 4, seed=1))
    assert around.length(w).tolist() == pytest.approx([0.3] * 3)
    assert around.distance(around.at(w)).tolist() == pytest.approx([0.3] * 3)


def test_reduced_precision_is_judged_as_it_is_returned() -> None:
    x = pictures(5, torch.bfloat16)
    around = ball(x, 0.5, "l2", "pixel")
    found = around.at(normal(2, 12, seed=1).float())
    assert torch.equal(found, around.layout.restore(found)[0].flatten(1).float())


def test_inputs_outside_of_the_box_are_refused() -> None:
    x = pictures(0)
    x[1, 0, 0, 0] = 9.0
    with pytest.raises(ValueError, match=r"space: expected pixels in \[0, 1\].*sample\(s\) \[1\]"):
        ball(x, 0.5, "l2", "pixel")
    # But not for the rounding of a normalisation.
    x[1, 0, 0, 0] = (1 + 1e-6 - MEAN[0]) / STD[0]
    assert math.isfinite(float(ball(x, 0.5, "l2", "pixel").distance(x.flatten(1)).sum()))

"""Activation maximisation where the answer is known: linear scores, and literal loops."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from moreaugrad.explainers.feature_visualisation import Ascent, activation_maximisation
from moreaugrad.score.inputs import InputSpace
from toys import network, normal

SHAPE = (2, 7, 6)
W = normal(3, *SHAPE, seed=0, dtype=torch.float32)
SPACE = InputSpace(mean=(0.4, 0.6), std=(0.2, 0.5))


def linear(x: Tensor) -> Tensor:
    return (x[:, None] * W).sum((2, 3, 4))


def test_a_linear_score_is_climbed_along_its_weights() -> None:
    how = Ascent(steps=20, step=0.02, clip=False)
    found = activation_maximisation(linear, [2, 0], SHAPE, space=SPACE, ascent=how)
    std = torch.tensor(SPACE.std)[:, None, None]
    for row, label in enumerate((2, 0)):
        slope = W[label] / std  # with respect to pixels
        way = 20 * 0.02 * slope / slope.square().mean().sqrt()
        begun = found.pixels[row] - way
        # The noise around the middle has the deviation that was asked for.
        assert (begun - 0.5).std().item() == pytest.approx(0.05, rel=0.3)
        rise = (way / std * W[label]).sum()
        assert (found.after - found.before)[row].item() == pytest.approx(rise.item(), rel=1e-4)
    mean = torch.tensor(SPACE.mean)[:, None, None]
    assert found.inputs == pytest.approx((found.pixels - mean) / std, abs=1e-5)
    assert found.prediction.tolist() == [2, 0]


def test_the_box_ends_a_linear_climb_in_a_corner() -> None:
    how = Ascent(steps=400, step=0.1)
    found = activation_maximisation(linear, 1, SHAPE, space=SPACE, ascent=how)
    assert torch.equal(found.pixels[0], (W[1] > 0).float())


def test_decay_has_its_fixed_point() -> None:
    how = Ascent(steps=200, step=0.2, normalise=False, decay=2.0, clip=False)
    found = activation_maximisation(linear, [0, 1, 2], SHAPE, ascent=how)
    assert found.pixels == pytest.approx(0.5 + W / 2, abs=1e-5)


def test_roughness_is_its_own_derivative() -> None:
    start = normal(1, *SHAPE, seed=4, dtype=torch.float32)
    how = Ascent(steps=1, step=1.0, normalise=False, tv=0.3, clip=False)
    found = activation_maximisation(linear, [0], SHAPE, ascent=how, start=start)
    x = start.clone().requires_grad_()
    rough = (x.diff(dim=2).square().sum() + x.diff(dim=3).square().sum()) / 2
    (linear(x)[0, 0] - 0.3 * rough).backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert found.pixels == pytest.approx(start + x.grad, abs=1e-5)


def test_jitter_rolls_what_is_seen_and_back() -> None:
    how = Ascent(steps=3, step=0.1, jitter=2, normalise=False, clip=False)
    found = activation_maximisation(linear, [0, 0], SHAPE, ascent=how, start=torch.zeros(2, *SHAPE))
    steps = [W[0].roll((-a, -b), (1, 2)) for a in range(-2, 3) for b in range(-2, 3)]
    for row in range(2):
        # Three of the rolls, in any order.
        left = found.pixels[row] / 0.1
        fits = [
            (a, b, c)
            for a in range(25)
            for b in range(a, 25)
            for c in range(b, 25)
            if torch.allclose(steps[a] + steps[b] + steps[c], left, atol=1e-4)
        ]
        assert len(fits) >= 1
    assert not torch.allclose(found.pixels[0], found.pixels[1])


def test_blur_is_a_gaussian_filter() -> None:
    start = normal(1, *SHAPE, seed=4, dtype=torch.float64)
    how = Ascent(steps=2, step=1e-9, blur=0.8, every=2, clip=False)
    model = network([84, 3])
    found = activation_maximisation(
        lambda x: model(x.flatten(1)), 0, SHAPE, ascent=how, start=start
    )
    expected = ndimage.gaussian_filter(start[0].numpy(), 0.8, axes=(1, 2), mode="nearest", radius=4)
    assert found.pixels[0].numpy() == pytest.approx(np.asarray(expected), abs=1e-6)


def test_a_batch_is_its_samples(
    untouched_generators: Callable[[], AbstractContextManager[None]],
) -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(80, 3)).eval()
    for number, weight in enumerate(model.parameters()):
        weight.data = normal(*weight.shape, seed=number, dtype=torch.float32) / 5
    how = Ascent(steps=5, jitter=2, blur=0.5, every=2, tv=0.1, decay=0.1, seed=3)
    with untouched_generators():
        found = activation_maximisation(model, [0, 2, 2], SHAPE, ascent=how)
    for row, label in enumerate((0, 2, 2)):
        alone = activation_maximisation(model, label, SHAPE, ascent=how, ids=[row])
        assert found.pixels[row] == pytest.approx(alone.pixels[0], abs=1e-5)
    assert not torch.allclose(found.pixels[1], found.pixels[2])
    assert all(weight.grad is None for weight in model.parameters())


def test_a_score_that_does_not_change_gives_no_nan() -> None:
    def flat(x: Tensor) -> Tensor:
        return (0 * x).flatten(1)[:, :3]

    found = activation_maximisation(flat, 1, SHAPE, ascent=Ascent(steps=3))
    assert found.pixels.isfinite().all()


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"need images \(C, H, W\), got shape \(5,\)"):
        activation_maximisation(linear, 0, (5,), ascent=Ascent(jitter=1))
    with pytest.raises(ValueError, match=r"start: expected inputs \[1, 2, 7, 6\]"):
        activation_maximisation(linear, 0, SHAPE, start=torch.zeros(2, *SHAPE))
    with pytest.raises(ValueError, match="target: expected numbers from 0 to 2"):
        activation_maximisation(linear, 7, SHAPE)
    with pytest.raises(ValueError, match="the gradient: expected finite numbers"):
        activation_maximisation(lambda x: (x - x).abs().sqrt().flatten(1)[:, :3], 0, SHAPE)
    for name, value in (("steps", 0), ("step", 0.0), ("jitter", -1), ("blur", -1.0), ("seed", -1)):
        with pytest.raises(ValueError, match=name):
            Ascent(**{name: value})  # type: ignore[arg-type]


def test_progress_is_reported_as_by_other_functions(capfd: pytest.CaptureFixture[str]) -> None:
    how, seen = Ascent(steps=3), []
    activation_maximisation(
        linear, 0, SHAPE, ascent=how, progress=lambda done, of: seen.append((done, of))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    activation_maximisation(linear, 0, SHAPE, ascent=how, progress=True)
    assert capfd.readouterr().out == ""
    with pytest.raises(TypeError, match="progress: expected True for a bar"):
        activation_maximisation(linear, 0, SHAPE, ascent=how, progress="bar")  # type: ignore[arg-type]

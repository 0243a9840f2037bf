"""Infidelity and maximum sensitivity: known values, Captum itself, and what it would get wrong."""

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from captum import metrics as captum_metrics
from torch import Tensor, nn

from moreaugrad import SimpleGradient, SmoothGrad
from moreaugrad.metrics import Near, infidelity, max_sensitivity
from moreaugrad.score.inputs import InputSpace, Layout
from moreaugrad.score.noise import Stream
from moreaugrad.score.score import Score
from tiny_models import smooth
from toys import normal

X = normal(3, 3, 16, 16, seed=0, dtype=torch.float32)
SPACE = InputSpace(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
NEAR = Near(radius=0.1, draws=6)
LAYOUT = Layout.of([X])
Untouched = Callable[[], AbstractContextManager[None]]


def drawn(keys: list[int], draw: int, stream: Stream, near: Near = NEAR) -> Tensor:
    return near.perturbations(keys, draw, stream, SPACE, LAYOUT).reshape(-1, 3, 16, 16).float()


def test_a_linear_score_is_its_gradient() -> None:
    weight = normal(1, 6, seed=0)
    bound = Score(lambda x: (weight * x).sum(1), task="regression").bind(normal(2, 6, seed=1), 0)
    exact = weight.expand(2, 6)
    assert infidelity(bound, exact, near=NEAR).tolist() == pytest.approx([0, 0], abs=1e-12)
    # (z'(cw) - z'w)^2 has the mean (c - 1)^2 r^2 |w|^2.
    many = Near(radius=0.1, draws=4000)
    expected = 0.25 * 0.01 * float((weight**2).sum())
    assert infidelity(bound, 0.5 * exact, near=many)[0].item() == pytest.approx(expected, rel=0.1)
    scaled = infidelity(bound, 0.5 * exact, normalize=True, near=NEAR)
    assert scaled.tolist() == pytest.approx([0, 0], abs=1e-12)


@pytest.mark.parametrize("normalize", [False, True])
def test_infidelity_is_captums(normalize: bool) -> None:
    explainer = SimpleGradient(smooth().module)
    maps = explainer.attribute(X)
    target = explainer.forward_func(X).argmax(1)
    numbers = itertools.count()

    def perturb(inputs: Tensor) -> tuple[Tensor, Tensor]:
        z = drawn([5, 6, 7], next(numbers), Stream.NORMAL)
        return z, inputs - z

    expected = captum_metrics.infidelity(
        explainer.forward_func, perturb, X, maps, target=target, n_perturb_samples=6,
        max_examples_per_batch=3, normalize=normalize,
    )  # fmt: skip
    bound = explainer.bind(X, ids=[5, 6, 7])
    found = infidelity(bound, maps, SPACE, normalize=normalize, near=NEAR)
    assert found == pytest.approx(expected.double(), rel=1e-4)


def test_max_sensitivity_is_captums(untouched_generators: Untouched) -> None:
    explainer = SimpleGradient(smooth().module)
    clean = explainer.explain(X, ids=[5, 6, 7])
    numbers = itertools.count()

    def perturb(inputs: Tensor) -> Tensor:
        return inputs + drawn([5, 6, 7], next(numbers), Stream.BOX)

    expected = captum_metrics.sensitivity_max(
        explainer.attribute, X, perturb, n_perturb_samples=6, max_examples_per_batch=3,
        target=clean.target,
    )  # fmt: skip
    with untouched_generators():
        found = max_sensitivity(explainer, clean, SPACE, ids=[5, 6, 7], near=NEAR)
    assert found == pytest.approx(expected.double(), rel=1e-5)
    assert found.dtype == torch.float64


def test_a_batch_is_its_samples() -> None:
    explainer = SmoothGrad(smooth().module, sigma=0.1, samples=4)
    clean = explainer.explain(X, ids=[5, 6, 7])
    together = max_sensitivity(explainer, clean, ids=[5, 6, 7], near=NEAR)
    for row in range(3):
        alone = max_sensitivity(explainer, clean[row], ids=[5 + row], near=NEAR)
        assert alone.item() == pytest.approx(together[row].item(), rel=1e-4)


def test_the_target_stays_that_of_the_clean_input() -> None:
    """Near the edge between two classes Captum would explain another class at each draw."""
    model = nn.Linear(4, 2, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]]))
    x = torch.tensor([[1.0, 1.0 - 1e-6, 0, 0]], dtype=torch.float64)
    explainer = SimpleGradient(model)
    clean = explainer.explain(x)
    assert max_sensitivity(explainer, clean, near=NEAR).item() == 0
    wrong = captum_metrics.sensitivity_max(explainer.attribute, x, perturb_radius=0.1)
    assert wrong.item() > 1


def test_the_change_is_over_the_clean_maps_length() -> None:
    """f = |x|^2 / 2: A = x, so ||A' - A|| / ||A|| = ||z|| / ||x||."""
    x = normal(2, 768, seed=0).reshape(2, 3, 16, 16)
    explainer = SimpleGradient(lambda x: (x**2).flatten(1).sum(1) / 2, task="regression")
    clean = explainer.explain(x, 0)
    pixels = Near(radius=0.1, draws=5, units="pixel")
    for near in (NEAR, pixels):
        z = torch.stack(
            [near.perturbations([0, 0], i, Stream.BOX, SPACE, LAYOUT) for i in range(5)]
        )
        z = z[: near.draws]
        expected = z.norm(dim=2).amax(0) / x.flatten(1).norm(dim=1)
        found = max_sensitivity(explainer, clean, SPACE, near=Near(
            radius=near.radius, draws=5, units=near.units))  # fmt: skip
        assert found == pytest.approx(expected)


def test_radii_are_in_the_stated_units() -> None:
    box = drawn([0], 0, Stream.BOX, Near(radius=0.1))
    assert 0.098 < box.abs().max() <= 0.1
    pixels = drawn([0], 0, Stream.BOX, Near(radius=0.1, units="pixel"))
    scale = torch.tensor(SPACE.std)[:, None, None]
    assert pixels * scale == pytest.approx(box, abs=1e-7)
    noise = drawn([0], 0, Stream.NORMAL, Near(radius=0.1))
    assert noise.std().item() == pytest.approx(0.1, rel=0.1)
    assert noise.abs().max() > 0.2


def test_zero_and_broken_maps_are_undefined() -> None:
    explainer = SimpleGradient(smooth().module)
    bound, maps = explainer.bind(X), explainer.attribute(X)
    broken = maps.clone()
    broken[0], broken[2, 0, 0, 0] = 0, torch.nan
    found = infidelity(bound, broken, near=NEAR)
    assert found.isnan().tolist() == [True, False, True]
    assert found[1].item() == pytest.approx(infidelity(bound, maps, near=NEAR)[1].item(), rel=1e-3)
    assert infidelity(bound, 0 * maps, near=NEAR).isnan().all()
    flat = SimpleGradient(lambda x: 0 * x.flatten(1).sum(1), task="regression")
    assert max_sensitivity(flat, flat.explain(X, 0), near=NEAR).isnan().all()


def test_a_perturbed_map_that_is_not_finite_is_undefined() -> None:
    """Below zero the gradient is zero times NaN, although the score is finite."""
    explainer = SimpleGradient(lambda x: torch.where(x > 0, x.sqrt(), 0).sum(1), task="regression")
    x = torch.tensor([[1.0, 1.0], [1.0, 1e-4]])
    found = max_sensitivity(explainer, explainer.explain(x, 0), near=NEAR)
    assert found.isnan().tolist() == [False, True]


def test_what_cannot_be_perturbed_is_refused() -> None:
    model = smooth().module
    explainer = SimpleGradient(model, layer=model[0])
    clean = explainer.explain(X)
    with pytest.raises(ValueError, match="expected an explainer of the inputs"):
        max_sensitivity(explainer, clean)
    with pytest.raises(ValueError, match="of the inputs' shape"):
        infidelity(SimpleGradient(model).bind(X), X.sum(1))
    for settings in ({"radius": 0.0}, {"radius": 1, "draws": 0}, {"radius": 1, "units": "bits"}):
        with pytest.raises(ValueError, match="expected"):
            Near(**settings)


def test_maps_of_half_precision_do_not_overflow() -> None:
    """Whose squares are beyond float16."""

    class Steep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            total = nn.functional.softplus(1000 * self.weight * x).flatten(1).sum(1)
            return torch.stack([total, -total], 1)

    x, found = 1e-3 * X[:1], []
    for dtype in (torch.float32, torch.float16):
        explainer = SimpleGradient(Steep().to(dtype))
        clean = explainer.explain(x.to(dtype), 0)
        found.append(max_sensitivity(explainer, clean, near=Near(radius=1e-4, draws=4)))
    assert float(found[0]) > 1e-3
    torch.testing.assert_close(found[1], found[0], rtol=0.2, atol=0)

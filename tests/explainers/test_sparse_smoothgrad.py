"""SmoothGrad that keeps its largest entries: the baseline of sparse maps that average noise."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import moreaugrad as mg
from toys import network, normal


def on_rows() -> nn.Module:
    return network((40, 20, 20, 3), nn.Softplus, gain=2.0).eval()


@pytest.mark.parametrize("centre", [True, False])
def test_the_largest_entries_of_smoothgrad_are_kept_as_they_are(centre: bool) -> None:
    model, x = on_rows(), normal(3, 40, seed=1)
    settings = {"sigma": 0.2, "samples": 16, "centre": centre}
    whole = mg.SmoothGrad(model, **settings).explain(x)
    found = mg.build("sparse-smoothgrad", model, **settings).explain(x)
    for row in range(3):
        places = whole.maps[row].abs().topk(4).indices
        expected = torch.zeros(40, dtype=torch.float64)
        expected[places] = whole.maps[row][places]
        assert torch.equal(found.maps[row], expected)
    assert found.zeros.tolist() == [0.9] * 3
    assert torch.equal(found.evaluations, whole.evaluations)


class WithoutGradient(nn.Module):
    """Its gradient is NaN at the first three entries."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([(0 * x[:, :3].sum(1)).sqrt() + x.sum(1), x[:, 0]], 1)


@pytest.mark.parametrize("keep", [0.05, 0.5])
@pytest.mark.parametrize("make", [mg.SimpleGradient, mg.SmoothGrad])
def test_a_gradient_that_is_not_finite_does_not_become_zeros(make: Any, keep: float) -> None:
    found = make(WithoutGradient(), keep=keep).explain(normal(2, 40, seed=1), 0)
    assert found.status == (mg.Status.NON_FINITE,) * 2


@pytest.mark.parametrize(
    ("size", "samples", "most"), [(40, 32, 2.0), (400, 16, 1.35), (400, 128, 1.35)]
)
def test_the_error_counts_entries_that_may_be_others(size: int, samples: int, most: float) -> None:
    """Over 48 seeds: the stated error is that of the kept map, not of its entries alone. Where four
    entries are kept, Student's factor makes it cautious."""
    model = network((size, 20, 20, 3), nn.Softplus, gain=2.0).eval()
    x, settings = normal(1, size, seed=1), {"sigma": 0.3, "keep": 0.1, "centre": False}
    explainer = mg.SmoothGrad(model, samples=samples, **settings)
    true = mg.SmoothGrad(model, samples=2**13, **settings).explain(x).maps
    ids = torch.arange(48)
    found = explainer.explain(x.expand(48, -1), ids=ids)
    apart = (found.maps - true).norm(dim=1) / found.maps.norm(dim=1)
    ratio = found.error.square().mean().sqrt() / apart.square().mean().sqrt()
    assert 0.75 < float(ratio) < most


def test_what_is_certain_is_mostly_right() -> None:
    """Over 48 seeds: of the entries that are certainly kept or zero, hardly any is not."""
    model = network((400, 20, 20, 3), nn.Softplus, gain=2.0).eval()
    x, settings = normal(1, 400, seed=1), {"sigma": 0.3, "keep": 0.1, "centre": False}
    true = mg.SmoothGrad(model, samples=2**13, **settings).explain(x).maps.sign()
    explainer = mg.SmoothGrad(model, samples=16, **settings)
    found = explainer.explain(x.expand(48, -1), ids=torch.arange(48))
    sure, wrong = found.certain(), found.maps.sign() != true
    for kind in (found.maps == 0, found.maps != 0):
        assert float((sure & kind).double().mean()) > 0.02
        assert float((wrong & sure & kind).sum() / (sure & kind).sum()) < 0.08
    assert float(wrong.double().mean()) > 0.015


def test_the_derivative_is_that_of_the_entries_that_are_kept() -> None:
    model, x = on_rows(), normal(2, 40, seed=1)
    explainer = mg.SmoothGrad(model, sigma=0.2, samples=8, keep=0.1, centre=False)
    found, cotangent = explainer.explain(x), normal(2, 40, seed=2)
    pulled, step = explainer.vjp(found, cotangent), 1e-5
    direction = normal(2, 40, seed=3)
    # The noise level follows the input's range, and is held constant by the derivative.
    fixed = [explainer.bind(x).moved(x + sign * step * direction) for sign in (1, -1)]
    ahead, behind = (explainer._maps(bound).values for bound in fixed)
    change = ((ahead - behind) / (2 * step) * cotangent).sum(1)
    assert torch.allclose((pulled * direction).sum(1), change, rtol=1e-5)


def test_bad_fractions() -> None:
    for keep in (0.0, 1.5):
        with pytest.raises(ValueError, match="keep: expected a fraction"):
            mg.SmoothGrad(on_rows(), keep=keep)

"""Relative noise where an input has one entry or is constant: every noisy method says so."""

import pytest
import torch
from torch import Tensor, nn

from contracts.networks import Joint, Picture, assert_same, cheap, columns, pictures
from moreaugrad import METHODS, ConvergenceWarning, SparsifiedSmoothGrad, Status, rho_guidance
from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.moreau import Moreau

NOISY = sorted(name for name, method in METHODS.items() if method.defaults().get("sigma", 0.0) > 0)
SOLE = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 3)).double().eval()


def noisy(name: str, model: nn.Module, **settings: object) -> Explainer:
    """The method at a small budget; groups of one entry, which any input has."""
    group = {"group": 1} if "group" in METHODS[name].defaults() else {}
    return cheap(name, model, **group, **settings)


def holed() -> Tensor:
    """Three pictures, the second of which is constant."""
    x = pictures(3)
    x[1] = 0.7
    return x


@pytest.mark.parametrize("name", NOISY)
def test_a_constant_sample_is_reported_alone(name: str) -> None:
    explainer = noisy(name, Picture())
    found = explainer.explain(holed(), 1)
    assert [status is Status.NO_NOISE for status in found.status] == [False, True, False]
    assert found.error[1].isnan()
    assert found.z_scores is None or found.z_scores[1].isnan().all()
    assert "sigma_mode" in Status.NO_NOISE.remedy
    with pytest.raises(RuntimeError, match="sample 1: not smoothed"):
        found.raise_if_failed()
    alone = explainer.explain(holed()[1:2], 1)
    assert alone.status == (Status.NO_NOISE,)
    assert_same(alone.maps, found.maps[1:2])


@pytest.mark.parametrize("name", NOISY)
def test_inputs_of_one_entry_are_reported(name: str) -> None:
    x = torch.linspace(-1, 1, 4, dtype=torch.float64)[:, None]
    explainer = noisy(name, SOLE)
    assert set(explainer.explain(x, 1).status) == {Status.NO_NOISE}
    with pytest.warns(ConvergenceWarning, match="one entry"):
        explainer.attribute(x, target=1)


@pytest.mark.parametrize("name", NOISY)
def test_one_of_several_inputs_without_noise_is_reported(name: str) -> None:
    table = columns(2)
    table[0] = 1.0
    found = noisy(name, Joint()).explain((pictures(2), table), 1)
    assert [status is Status.NO_NOISE for status in found.status] == [True, False]


@pytest.mark.parametrize("name", [n for n in NOISY if "sigma_mode" in METHODS[n].defaults()])
def test_absolute_noise_has_a_size(name: str) -> None:
    found = noisy(name, Picture(), sigma_mode="absolute").explain(holed(), 1)
    assert Status.NO_NOISE not in found.status


@pytest.mark.parametrize("name", NOISY)
def test_no_noise_that_was_asked_for_is_fine(name: str) -> None:
    assert Status.NO_NOISE not in noisy(name, Picture(), sigma=0.0).explain(holed(), 1).status


def test_moments_without_noise_are_refused() -> None:
    with pytest.raises(ValueError, match="sigma_mode"):
        SparsifiedSmoothGrad(Picture(), samples=8).moments(holed(), 1)


def test_the_guidance_for_rho_needs_no_noise() -> None:
    explainer = cheap("moreaugrad", Picture())
    assert isinstance(explainer, Moreau)
    assert not rho_guidance(explainer, holed(), 1).rho.isnan().any()

"""Single precision states the map of double precision, for sure and unsure predictions alike."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts.networks import ONE_IMAGE, cheap, default_score, pictures
from moreaugrad.solvers.solution import Status

pytestmark = pytest.mark.filterwarnings("ignore::moreaugrad.ConvergenceWarning")
DOUBTS = [0.5, 0.1, 1e-3, 1e-6, 1e-9, 1e-24]
SCORES = ["log-probability", "probability", "cross-entropy"]


class Sure(nn.Module):
    """Three classes with smooth logits around ones at which the first has probability 1 - doubt."""

    def __init__(self, doubt: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(144, 3)
        )
        generator = torch.Generator().manual_seed(5)
        for parameter in self.parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            # The same numbers in single and in double precision.
            parameter.data = (0.3 * drawn / max(1, parameter[0].numel()) ** 0.5).float().double()
        self.offset = math.log(2 * (1 - doubt) / doubt)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x) + x.new_tensor([self.offset, 0.0, 0.0])
        return out


def maps_of(method: str, model: nn.Module, x: Tensor, **settings: Any) -> Any:
    return cheap(method, model, **settings).explain(x, 0)


@pytest.mark.parametrize("doubt", DOUBTS)
@pytest.mark.parametrize("score", SCORES)
def test_single_precision_is_within_its_stated_error_of_double(
    method: str, score: str, doubt: float
) -> None:
    if method == "relex" and score != default_score(method):
        pytest.skip(f"{method} explains {default_score(method)} only")
    settings = {"score": score, **({"cam_layer": "body.0"} if method in ONE_IMAGE else {})}
    double = Sure(doubt)
    single = copy.deepcopy(double).float()
    x = pictures(2, dtype=torch.float32)
    found = maps_of(method, single, x, **settings)
    exact = maps_of(method, double, x.double(), **settings)
    off = (found.maps.double() - exact.maps).flatten(1).norm(dim=1)
    length = exact.maps.flatten(1).norm(dim=1)
    # A map that is not finished may differ by what it states for both.
    stated = torch.nan_to_num(found.error.double()) + torch.nan_to_num(exact.error)
    assert Status.NON_FINITE not in found.status
    assert (off <= (0.01 + stated) * length + 1e-300).all(), (off / length, stated)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_map_that_its_dtype_cannot_hold_says_so(method: str, dtype: torch.dtype) -> None:
    """Gradients of such a log-probability are below the smallest number of float16."""
    if method == "relex":
        pytest.skip("relex's mask is of size 1")
    settings = {"score": "log-probability"} | (
        {"cam_layer": "body.0"} if method in ONE_IMAGE else {}
    )
    double, x = Sure(1e-9), pictures(2, dtype=dtype)
    found = maps_of(method, copy.deepcopy(double).to(dtype), x, **settings)
    exact = maps_of(method, double, x.double(), **settings)
    off = (found.maps.double() - exact.maps).flatten(1).norm(dim=1)
    length = exact.maps.flatten(1).norm(dim=1)
    for row, status in enumerate(found.status):
        stated = float(found.error[row].nan_to_num()) + float(exact.error[row].nan_to_num())
        # A network in reduced precision is off by a few units in its last place.
        assert status.failed or off[row] <= (0.2 + stated) * length[row], (status, off, length)


class Halved(nn.Module):
    """A model that computes in float16, in which the gradient of a small probability is zero."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.half()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x.half())
        return out


def test_small_probabilities_of_a_network_in_half_precision(method: str) -> None:
    if method == "relex":
        pytest.skip("relex explains the log-probability only")
    # Images whose 7th and 8th largest gradients differ by more than half precision rounds: an
    # automatic eta lies between them.
    double, x = Sure(1e-8), pictures(8, dtype=torch.float32)[3:6]
    settings = {"score": "probability"} | ({"cam_layer": "body.0"} if method in ONE_IMAGE else {})
    exact = cheap(method, double, **settings).explain(x.double(), 1)
    if method in ONE_IMAGE:
        settings["cam_layer"] = "model.body.0"
    found = cheap(method, Halved(copy.deepcopy(double)), **settings).explain(x, 1)
    off = (found.maps.double() - exact.maps).flatten(1).norm(dim=1)
    # That contributions do not add up is no error that allows for another map.
    noisy = ~found.having(Status.INCOMPLETE)
    stated = torch.nan_to_num(found.error.double() * noisy) + torch.nan_to_num(exact.error)
    assert (off <= (0.1 + stated) * exact.maps.flatten(1).norm(dim=1)).all()

"""Deterministic maps of networks in less than single precision."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from moreaugrad import MoreauGrad, SparseMoreauGrad, Status
from toys import network, normal

pytestmark = pytest.mark.filterwarnings("ignore::moreaugrad.ConvergenceWarning")
MODEL, X = network([12, 20, 5], nn.Softplus, gain=2.5), normal(4, 12, seed=3)
TYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])


def off(maps: Tensor, exact: Tensor) -> Tensor:
    return (maps.double() - exact).norm(dim=1) / exact.norm(dim=1)


@TYPES
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (MoreauGrad, {}),
        (MoreauGrad, {"solver": "accelerated"}),
        (MoreauGrad, {"sigma": 0.1, "noise": "fixed", "samples": 4}),
        (SparseMoreauGrad, {"sparsity": 0.5}),
    ],
)
def test_the_error_includes_the_rounding(
    method: Any, settings: dict[str, Any], dtype: torch.dtype
) -> None:
    low, x = copy.deepcopy(MODEL).to(dtype), X.to(dtype)
    settings = {"sigma": 0, "rho": 0.05, **settings}
    found = method(low, **settings).explain(x, 0)
    exact = method(copy.deepcopy(low).double(), **settings).explain(x.double(), 0)
    assert set(exact.status) == {Status.CONVERGED}
    true = off(found.maps, exact.maps)
    assert float(true.max()) > 1e-4
    assert (true <= found.error).all()
    assert float((found.error / true).median()) < 200
    assert set(found.status) == {Status.PRECISION}
    loose = method(low, **settings, tolerance=4.0).explain(x, 0)
    assert set(loose.status) == {Status.CONVERGED}


def test_autocast_counts_as_reduced_precision() -> None:
    single, settings = copy.deepcopy(MODEL).float(), {"sigma": 0, "rho": 0.05}
    exact = MoreauGrad(MODEL, **settings).explain(X, 0).maps
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = MoreauGrad(single, **settings).explain(X.float(), 0)
    assert set(found.status) == {Status.PRECISION}
    assert (off(found.maps, exact) <= found.error).all()


def test_without_evaluations_for_it_the_error_is_unknown() -> None:
    low = copy.deepcopy(MODEL).bfloat16()
    found = MoreauGrad(low, sigma=0, rho=0.05, max_evaluations=6).explain(X.bfloat16(), 0)
    assert found.error.isnan().all()
    assert Status.CONVERGED not in found.status
    assert (found.evaluations <= 6).all()

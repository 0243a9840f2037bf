"""The stated error of CAFO and CASO: that of reduced precision, and that of the noise's draws."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from moreaugrad import CASO, SmoothCAFO, SmoothCASO, Status
from moreaugrad.explainers.caso_error import OtherRounding
from moreaugrad.score.precision import reduced_precision
from moreaugrad.solvers.blocks import block_error, paired_blocks
from moreaugrad.solvers.degrees import student_factor
from toys import network, normal

pytestmark = pytest.mark.filterwarnings("ignore::moreaugrad.ConvergenceWarning")
SMOOTH = network([12, 20, 5], nn.Tanh, gain=2.5)
PIECEWISE = network([12, 20, 16, 5], nn.ReLU, gain=2.5)
with torch.random.fork_rng():
    torch.manual_seed(0)
    CONV = nn.Sequential(
        nn.Unflatten(1, (1, 3, 4)), nn.Conv2d(1, 6, 2), nn.SiLU(), nn.Flatten(), nn.LayerNorm(36),
        network([36, 5]),
    ).double().eval()  # fmt: skip
NETWORKS = {"smooth": SMOOTH, "piecewise": PIECEWISE, "convolution": CONV}
X = normal(6, 12, seed=3)


def off(maps: Tensor, exact: Tensor) -> Tensor:
    return (maps.double() - exact).norm(dim=1) / exact.norm(dim=1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "settings", [{"c1": 0.5}, {"c1": 0.1, "lambda1": 0.0}, {"lambda2": 50.0}, {"c1": 10.0}]
)
def test_reduced_precision_is_part_of_the_error(
    name: str, dtype: torch.dtype, settings: dict[str, Any]
) -> None:
    low = copy.deepcopy(NETWORKS[name]).to(dtype)
    x = X.to(dtype)
    found = CASO(low, **settings).explain(x)
    exact = CASO(copy.deepcopy(low).double(), **settings).explain(x.double(), found.target)
    true = off(found.maps, exact.maps)
    assert float(true.max()) > 1e-4
    assert (true <= 1.5 * found.error).all()
    # Few roundings are known, so the error that covers an unlucky one is wide.
    assert float((found.error / true).median()) < 100
    # An accuracy finer than the rounding is not claimed.
    assert set(found.status) == {Status.PRECISION}
    assert (found.residual > 1e-4).all()
    loose = CASO(low, tolerance=16.0, **settings).explain(x)
    assert set(loose.status) == {Status.CONVERGED}


def test_autocast_and_casts_inside_a_model_count_as_reduced_precision() -> None:
    single, x = copy.deepcopy(SMOOTH).float(), X.float()

    class Casting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = copy.deepcopy(SMOOTH).bfloat16()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.body(x.bfloat16()).float()
            return out

    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = CASO(single, c1=0.5).explain(x)
    rounded = CASO(copy.deepcopy(SMOOTH).bfloat16().double(), c1=0.5)
    for found in (inside, CASO(Casting(), c1=0.5).explain(x)):
        exact = rounded.explain(X.bfloat16().double(), found.target)
        assert Status.CONVERGED not in found.status
        assert (off(found.maps, exact.maps) <= 1.5 * found.error).all()


@pytest.mark.parametrize("settings", [{"max_evaluations": 1}, {"max_evaluations": 2}])
def test_a_budget_without_a_product_does_not_end_converged(settings: dict[str, Any]) -> None:
    for found in (
        CASO(SMOOTH, **settings).explain(X),
        SmoothCASO(SMOOTH, samples=2, max_evaluations=4).explain(X),
    ):
        assert set(found.status) == {Status.BUDGET_USED}
        assert (found.residual == 1).all()


def test_an_error_that_the_budget_leaves_no_room_for_is_unknown() -> None:
    low = copy.deepcopy(SMOOTH).bfloat16()
    found = CASO(low, max_evaluations=16, tolerance=0.5).explain(X.bfloat16())
    assert found.error.isnan().all()
    assert not any(status.ok for status in found.status)
    assert (found.evaluations <= 16).all()
    noisy = SmoothCASO(SMOOTH, samples=8, max_evaluations=64).explain(X)
    assert noisy.error.isnan().all()
    assert (noisy.evaluations <= 64).all()


@pytest.mark.parametrize("name", ["smooth", "piecewise"])
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (SmoothCASO, {"c1": 0.5}),
        (SmoothCASO, {"c1": 0.1, "lambda1": 0.0}),
        (SmoothCASO, {"c1": 0.1, "lambda1": "search"}),
        (SmoothCASO, {"lambda2": 50.0, "lambda1": 0.01}),
        (SmoothCAFO, {"c1": 0.5}),
        (SmoothCAFO, {"c1": 0.5, "lambda1": 0.01, "samples": 8}),
    ],
)
def test_the_draws_are_part_of_the_error(
    name: str, method: type[SmoothCAFO], settings: dict[str, Any]
) -> None:
    results = [method(NETWORKS[name], seed=seed, **settings).explain(X[:4], 1) for seed in range(6)]
    maps = torch.stack([result.maps for result in results])
    spread = (maps - maps.mean(0)).square().sum(2).sum(0) / (len(results) - 1)
    true = spread.sqrt() / maps.norm(dim=2).mean(0)
    stated = torch.stack([result.error for result in results]).square().mean(0).sqrt()
    some = true.isfinite()  # a map of zeros has no relative error
    assert some.any()
    # Where a map is a few entries that come and go with the draws, it is too large.
    assert 0.5 < float((stated / true)[some].median()) < 4
    assert float((true / stated)[some].max()) < 2.5
    assert all(result.ok for result in results)


def test_the_jackknife_of_a_mean_is_its_standard_error_widened_for_few_blocks() -> None:
    blocks = paired_blocks(40)
    assert [draw for block in blocks for draw in block] == list(range(40))
    assert len(blocks) == 16
    assert all(len(block) % 2 == 0 for block in blocks)
    even = [range(2 * k, 2 * k + 2) for k in range(16)]
    terms = list(normal(16, 3, 5, seed=1))
    found = block_error(even, terms, lambda mean: mean)
    plain = torch.stack(terms).var(0).sum(1).div(16).sqrt()
    centred = torch.stack(terms) - torch.stack(terms).mean(0)
    wider = student_factor(centred, torch.full((3,), 16))
    torch.testing.assert_close(found, plain * wider)
    assert (found > plain).all()
    assert block_error(paired_blocks(2), terms[:1], lambda mean: mean).isnan().all()
    assert [list(block) for block in paired_blocks(1)] == [[0]]
    assert [list(block) for block in paired_blocks(3)] == [[0, 1, 2]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_other_rounding_moves_results_by_one_unit_in_the_last_place(dtype: torch.dtype) -> None:
    x = normal(40, 50, seed=1).to(dtype)
    plain = x * 3
    with OtherRounding(0):
        moved = x * 3
        same = (x > 0).sum(), x[3:7], torch.where(x > 0, x, 0.0), x.clone()
    with OtherRounding(0):
        again = x[:5] * 3
    # What is drawn depends on the number, not on its batch.
    first = OtherRounding(0)
    with first:
        alone = x[7:9] * 3
    changed = moved != plain
    assert 0.4 < float(changed.double().mean()) < 0.6
    step = (moved.double() - plain.double()).abs() / plain.double().abs()
    assert float(step.max()) <= torch.finfo(dtype).eps
    assert torch.equal(same[0], (x > 0).sum())
    assert torch.equal(same[1], x[3:7])
    assert torch.equal(same[2], x.clamp_min(0))
    assert again.shape == (5, 50)
    assert alone.shape == (2, 50)


def test_reduced_precision_is_seen_in_weights_and_inputs() -> None:
    assert not reduced_precision(SMOOTH, (torch.float32, torch.int64))
    assert reduced_precision(copy.deepcopy(SMOOTH).half(), (torch.float32,))
    assert reduced_precision(lambda x: x, (torch.bfloat16,))

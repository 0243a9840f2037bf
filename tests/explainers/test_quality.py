"""Quality levels: what a name stands for, how far a solve may go, and what more it would take."""

import math
from itertools import pairwise

import pytest
import torch

import moreaugrad as mg
import toys
from moreaugrad.explainers.calling import metered
from moreaugrad.explainers.quality import QUALITIES

MODEL = toys.network((5, 8, 3))
X = toys.normal(6, 5, seed=3)
FAMILY = (mg.Moreau, mg.MoreauGrad, mg.SparseMoreauGrad)


def relu() -> torch.nn.Module:
    module = torch.nn.Sequential(
        torch.nn.Linear(12, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)
    ).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


KINKS, INPUTS = relu(), toys.normal(4, 12, seed=5)


@pytest.mark.parametrize("level", QUALITIES)
@pytest.mark.parametrize("method", FAMILY)
def test_with_noise_a_level_is_its_number(method: type[mg.Moreau], level: str) -> None:
    named, number = (
        method(MODEL, tolerance=tolerance).explain(X, 1)
        for tolerance in (level, {"preview": 0.3, "standard": 0.1, "fine": 0.03}[level])
    )
    assert torch.equal(named.maps, number.maps)
    assert torch.equal(named.evaluations, number.evaluations)
    assert bool((named.error <= QUALITIES[level]).all())
    assert named.settings["tolerance"] == level


def test_a_finer_level_takes_more_and_errs_less() -> None:
    found = [mg.MoreauGrad(KINKS, tolerance=level).explain(INPUTS, 1) for level in QUALITIES]
    for coarse, fine in pairwise(found):
        assert bool((fine.evaluations >= coarse.evaluations).all())
        assert fine.evaluations.sum() > coarse.evaluations.sum()
        assert fine.error.mean() < coarse.error.mean()


def test_the_default_is_the_standard_level() -> None:
    for method in FAMILY:
        assert method(MODEL).tolerance == "standard"


@pytest.mark.parametrize("without", [{"sigma": 0.0}, {"noise": "fixed"}], ids=str)
def test_without_fresh_noise_every_level_is_the_usual_residual(without: dict[str, object]) -> None:
    def solved(tolerance: float | str) -> mg.Explanation:
        found = mg.MoreauGrad(MODEL, tolerance=tolerance, rho=0.1, **without).explain(X, 1)
        assert found.ok
        return found

    usual, loose = solved(1e-3), solved(0.3)
    for level in QUALITIES:
        assert torch.equal(solved(level).maps, usual.maps)
    assert not torch.equal(loose.maps, usual.maps)


@pytest.mark.parametrize("tolerance", ["medium", "standart", "", "0.1", 0.0, -1.0, math.nan, 1e999])
def test_another_tolerance_is_refused(tolerance: float | str) -> None:
    with pytest.raises(ValueError, match=r"tolerance: .* one of preview, standard, fine; got"):
        mg.MoreauGrad(MODEL, tolerance=tolerance)


def test_the_nearest_level_is_named() -> None:
    with pytest.raises(ValueError, match="did you mean 'standard'"):
        mg.MoreauGrad(MODEL, tolerance="standart")


# The most evaluations.


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        ({}, 16384), ({"tolerance": "preview"}, 16384), ({"tolerance": 2.0}, 16384),
        ({"tolerance": 0.05}, 65536), ({"tolerance": "fine"}, 182044),
        ({"tolerance": 0.001}, 262144), ({"tolerance": 0.05, "max_evaluations": 100}, 100),
        ({"tolerance": 0.05, "chains": 2}, 2 * 65536),
        ({"tolerance": 1e-6, "sigma": 0.0}, 16384),
    ],
    ids=str,
)  # fmt: skip
def test_smaller_tolerances_may_take_more(settings: dict[str, object], most: int) -> None:
    assert mg.MoreauGrad(MODEL, **settings).budget() == most


# What it would take.


def test_a_map_that_used_up_its_evaluations_says_how_many_it_needs() -> None:
    explainer = mg.MoreauGrad(KINKS, tolerance=0.02, max_evaluations=128)
    found = explainer.explain(INPUTS, 1)
    needed = found.details["evaluations_needed"]
    assert set(found.status) == {mg.Status.BUDGET_USED}
    for row, line in enumerate(found.problems()):
        literal = int(found.evaluations[row]) * (float(found.error[row]) / 0.02) ** 2
        assert float(needed[row]) == pytest.approx(literal)
        digits = len(str(int(literal))) - 2
        assert f"about {round(literal / 10**digits) * 10**digits} would reach" in line
        assert "raise max_evaluations" in found.remedy(row)


def test_that_many_are_enough_and_not_far_too_many() -> None:
    settings = {"tolerance": 0.01, "centre": False}
    short = mg.MoreauGrad(KINKS, max_evaluations=256, **settings).explain(INPUTS, 1)
    needed = short.details["evaluations_needed"]
    most = math.ceil(float(needed.max()))
    long = mg.MoreauGrad(KINKS, max_evaluations=most, **settings).explain(INPUTS, 1)
    assert long.ok
    assert 0.15 < float((long.evaluations / needed).log().mean().exp()) < 1.5


def test_other_maps_need_nothing_more() -> None:
    done = mg.MoreauGrad(KINKS, tolerance="preview").explain(INPUTS, 1)
    assert done.ok
    assert bool(done.details["evaluations_needed"].isnan().all())
    assert [done.remedy(row) for row in range(len(done))] == [""] * len(done)
    plain = mg.MoreauGrad(MODEL, sigma=0.0, tolerance=1e-9, max_evaluations=2).explain(X, 1)
    assert mg.Status.BUDGET_USED in plain.status
    row = plain.status.index(mg.Status.BUDGET_USED)
    assert plain.remedy(row) == mg.Status.BUDGET_USED.remedy, "a residual follows no square law"


def test_the_second_chain_counts() -> None:
    found = mg.MoreauGrad(KINKS, tolerance=0.02, max_evaluations=128, chains=2).explain(INPUTS, 1)
    assert set(found.status) == {mg.Status.BUDGET_USED}
    assert bool((found.details["evaluations_needed"] > 128).all()), "evaluations of one chain"


def test_more_evaluations_do_not_help_two_solutions() -> None:
    def wells(x: torch.Tensor) -> torch.Tensor:
        depths = [torch.exp(-((x - side) ** 2)).sum(1, keepdim=True) for side in (-1.5, 1.5)]
        return -2 * (depths[0] + depths[1])

    between = torch.full((12, 1), 0.02, dtype=torch.float64)
    found = mg.MoreauGrad(
        wells, task="regression", sigma=0.4, sigma_mode="absolute", rho=3.0, chains=2
    ).explain(between, ids=range(12))
    # Two chains end in the same well by chance, and then converge.
    apart = [row for row, status in enumerate(found.status) if status is mg.Status.BISTABLE]
    assert len(apart) >= 3
    assert {found.remedy(row) for row in apart} == {mg.Status.BISTABLE.remedy}


def test_progress_follows_what_is_usual_and_not_what_is_allowed() -> None:
    reported: list[float] = []
    report = metered(lambda done, of: reported.append(done / of), 1, 1, 4, 16384, 2048)
    for _ in range(16):
        report(1024)
    assert reported[:2] == pytest.approx([(1 + 0.5) / 4, (1 + 1 / 1.1) / 4])
    assert all(b >= a - 1e-12 for a, b in pairwise(reported))
    assert reported[-1] == (1 + 1.0) / 4


def test_progress_of_a_known_cost_is_its_fraction() -> None:
    reported: list[float] = []
    report = metered(lambda done, of: reported.append(done), 0, 2, 2, 64)
    for _ in range(4):
        report(16)
    assert reported == [0.5, 1.0, 1.5, 2.0]


def test_a_coarser_map_usually_takes_fewer_evaluations() -> None:
    usual = {q: mg.SparseMoreauGrad(KINKS, tolerance=q).expected() for q in QUALITIES}
    assert usual["preview"] < usual["standard"] < usual["fine"]
    few = mg.SparseMoreauGrad(KINKS, max_evaluations=100)
    assert few.expected() == few.budget()

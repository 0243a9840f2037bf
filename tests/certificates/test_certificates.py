"""Certificates against exact enumeration, closed forms, attacks and simulated coverage."""

import functools
import itertools
import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

import moreaugrad
from moreaugrad import (
    GroupSparseMoreauGrad,
    MoreauGrad,
    Noise,
    PublishedMoreauGrad,
    SparseMoreauGrad,
    SparsifiedSmoothGrad,
)
from moreaugrad.certificates import (
    bounds,
    certificate_of_moments,
    certify,
    check,
    distance_within,
    estimate_of_explanation,
    hoeffding_deviation,
    overlap_of_bounds,
    overlap_within,
    probability_curvature,
    radii_against_rank,
    smoothed_curvature,
    sparse_lipschitz,
    vanilla_lipschitz,
)
from moreaugrad.explainers.moreau import Moreau
from moreaugrad.explainers.sparsified import Moments
from moreaugrad.metrics import top_k_intersection
from toys import network, normal

ndtr, ndtri = torch.special.ndtr, torch.special.ndtri
SHARES = st.floats(0.001, 0.999)


def moments_of(draws: Tensor, *, binary: bool = False) -> Moments:
    """Of draws `[B, q, n]`."""
    return Moments(
        mean=draws.mean(1), square=draws.square().mean(1), samples=draws.shape[1], binary=binary
    )


def uniform(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


# Bounds of means.

LEVELS = torch.tensor([0.02, 0.1, 0.3, 0.5, 0.8, 0.97], dtype=torch.float64)


def drawn(kind: str, batch: int, samples: int) -> tuple[Tensor, Tensor]:
    """Draws `[batch, samples, 6]` and their true means."""
    u = uniform(batch, samples, len(LEVELS), seed=samples)
    if kind == "binary":
        return (u < LEVELS).double(), LEVELS
    # Zero with some probability, uniform on (0, 1) else.
    return torch.where(u < LEVELS, u / LEVELS, 0.0), LEVELS / 2


@pytest.mark.parametrize(
    ("bound", "kind"),
    [
        ("hoeffding", "binary"),
        ("clopper-pearson", "binary"),
        ("bernstein", "binary"),
        ("auto", "binary"),
        ("hoeffding", "relaxed"),
        ("bernstein", "relaxed"),
        ("auto", "relaxed"),
    ],
)
@pytest.mark.parametrize("samples", [12, 200])
def test_bounds_hold_together_as_often_as_they_say(bound: str, kind: str, samples: int) -> None:
    draws, truth = drawn(kind, 2000, samples)
    lower, upper = bounds(moments_of(draws, binary=kind == "binary"), 0.2, bound)
    missed = ((truth < lower) | (truth > upper)).any(1).double().mean()
    assert missed <= 0.2 + 4 * math.sqrt(0.2 * 0.8 / 2000)
    assert ((lower >= 0) & (upper <= 1) & (lower <= upper)).all()
    assert samples == 12 or (lower.amax(1) > 0).all()


def test_a_miscounted_failure_would_be_seen() -> None:
    draws, truth = drawn("binary", 2000, 200)
    lower, upper = bounds(moments_of(draws, binary=True), 0.9, "clopper-pearson")
    assert ((truth < lower) | (truth > upper)).any(1).double().mean() > 0.3


@pytest.mark.parametrize("count", [0, 1, 7, 29, 30])
def test_clopper_pearson_is_the_exact_interval(count: int) -> None:
    draws = (torch.arange(30) < count).double().reshape(1, 30, 1)
    lower, upper = bounds(moments_of(draws, binary=True), 0.1, "clopper-pearson")
    expected = stats.binomtest(count, 30).proportion_ci(0.9, method="exact")
    assert float(lower) == pytest.approx(expected.low, abs=1e-12)
    assert float(upper) == pytest.approx(expected.high, abs=1e-12)


def test_hoeffding_at_the_paper_s_numbers() -> None:
    assert hoeffding_deviation(8192, 150_528, 0.05) == pytest.approx(0.031, abs=5e-4)


def test_bernstein_is_its_formula() -> None:
    draws = uniform(1, 50, 3, seed=1)
    lower, _ = bounds(moments_of(0.9 + 0.1 * draws), 0.1, "bernstein")
    values = 0.9 + 0.1 * draws[0]
    log = math.log(2 / (0.1 / 6))  # two sides of three entries
    expected = values.mean(0) - (2 * values.var(0) * log / 50).sqrt() - 7 * log / (3 * 49)
    torch.testing.assert_close(lower[0], expected)


def test_automatic_bounds_share_the_failure() -> None:
    moments = moments_of(uniform(2, 300, 4, seed=7) ** 4)
    lower, upper = bounds(moments, 0.1)
    halves = [bounds(moments, 0.05, name) for name in ("hoeffding", "bernstein")]
    assert torch.equal(lower, torch.maximum(halves[0][0], halves[1][0]))
    assert torch.equal(upper, torch.minimum(halves[0][1], halves[1][1]))


def test_automatic_bounds_are_nearly_the_tighter_ones() -> None:
    few_differ = torch.where(uniform(1, 4000, 2, seed=2) < 0.01, 1.0, 0.3)
    binary = (uniform(1, 4000, 2, seed=2) < 0.5).double()
    for draws in (few_differ, binary):
        widths = {
            name: float((high - low).mean())
            for name in ("auto", "hoeffding", "bernstein")
            for low, high in [bounds(moments_of(draws), 0.05, name)]
        }
        assert widths["auto"] < 1.1 * min(widths["hoeffding"], widths["bernstein"])


# The overlap that bounds leave.


def enumerated(order: list[int], low: list[float], high: list[float], count: int) -> float:
    """The least overlap over all sets that some values within [low, high] make the largest."""
    chosen, entries = set(order[:count]), range(len(low))
    least = count
    for held in itertools.combinations(entries, count):
        rest = [i for i in entries if i not in held]
        if not rest or min(high[i] for i in held) >= max(low[i] for i in rest):
            least = min(least, len(chosen & set(held)))
    return least / count


@pytest.mark.parametrize("entries", [3, 4, 5, 6])
def test_no_values_within_the_bounds_have_a_smaller_overlap(entries: int) -> None:
    """Bounds of any widths, so that they need not be in the order of the estimates."""
    middle = uniform(400, entries, seed=entries)
    lower, upper = (
        (middle + sign * 0.4 * uniform(400, entries, seed=sign) ** 3).clamp(0.001, 0.999)
        for sign in (-1, 1)
    )
    radius, claimed = 0.02, 0
    for count in range(1, entries + 1):
        found = overlap_of_bounds(
            middle, lower, upper, torch.tensor([radius]), sigma=0.5, count=count
        )
        for row in range(len(middle)):
            low, high = ndtri(lower[row]) - radius / 0.5, ndtri(upper[row]) + radius / 0.5
            order = middle[row].argsort(descending=True).tolist()
            least = enumerated(order, low.tolist(), high.tolist(), count)
            assert float(found[row]) <= least + 1e-12
            claimed += float(found[row]) > max(0, 2 * count - entries) / count
    assert claimed > 200


@settings(deadline=None, max_examples=200)
@given(st.lists(SHARES, min_size=2, max_size=6, unique=True), st.floats(0, 1.5), st.floats(0, 0.2))
def test_with_one_width_for_all_the_overlap_is_the_least(
    values: list[float], radius: float, width: float
) -> None:
    estimate = torch.tensor([values], dtype=torch.float64)
    lower, upper = (estimate - width).clamp_min(0), (estimate + width).clamp_max(1)
    order = sorted(range(len(values)), key=lambda i: -values[i])
    low, high = ndtri(lower[0]) - radius, ndtri(upper[0]) + radius
    for count in range(1, len(values) + 1):
        found = overlap_of_bounds(
            estimate, lower, upper, torch.tensor([radius]), sigma=1.0, count=count
        )
        least = enumerated(order, low.tolist(), high.tolist(), count)
        assert float(found) == pytest.approx(least)


def test_exact_means_overlap_wholly_at_radius_zero_and_never_rise() -> None:
    h = uniform(3, 40, seed=5)
    radii = torch.linspace(0, 3, 31)
    for count in (1, 4, 20, 25, 40):
        found = overlap_of_bounds(h, h, h, radii, sigma=0.7, count=count)
        assert (found[:, 0] == 1).all()
        assert (found.diff(dim=1) <= 0).all()
        assert (found >= max(0, 2 * count - 40) / count).all()
        if count < 40:
            assert float(found[:, -1].max()) < 1
    alone = overlap_of_bounds(h[1:2], h[1:2], h[1:2], radii, sigma=0.7, count=4)
    assert torch.equal(alone, overlap_of_bounds(h, h, h, radii, sigma=0.7, count=4)[1:2])


def test_shares_of_exactly_zero_and_one() -> None:
    h = torch.tensor([[1.0, 1, 0.6, 0, 0]], dtype=torch.float64)
    found = overlap_of_bounds(h, h, h, torch.tensor([0.0, 1.0, 9.0]), sigma=1.0, count=2)
    assert found.tolist() == [[1, 1, 1]]  # 1 and 0 almost everywhere, so at any input
    unknown = overlap_of_bounds(
        h, torch.zeros_like(h), torch.ones_like(h), torch.zeros(1), sigma=1.0, count=2
    )
    assert unknown.tolist() == [[0]]


def test_radii_against_a_rank() -> None:
    h = torch.tensor([[0.2, 0.9, 0.5, 0.7]], dtype=torch.float64)
    found = radii_against_rank(h, h - 0.01, h + 0.01, sigma=2.0, rank=3)
    expected = [
        (ndtri(torch.tensor(v - 0.01)) - ndtri(torch.tensor(0.51))).item() for v in (0.9, 0.7)
    ]
    assert found[0, [0, 2]].tolist() == [0, 0]
    assert found[0, [1, 3]].tolist() == pytest.approx(expected, abs=1e-6)
    # The first rank alone, against the second: where the overlap of one ends.
    end = float(radii_against_rank(h, h, h, sigma=2.0, rank=2)[0, 1])
    around = torch.tensor([0.999 * end, 1.001 * end])
    assert overlap_of_bounds(h, h, h, around, sigma=2.0, count=1).tolist() == [[1, 0]]
    with pytest.raises(ValueError, match="rank: expected 1 to 4, got 5"):
        radii_against_rank(h, h, h, sigma=1.0, rank=5)


# Half-spaces: h_i(x) = 1 where a_i'x + b_i > 0, whose Gaussian mean is known.

SIGMA, COUNT, SIDE = 0.8, 4, 10
NORMALS = normal(SIDE, 6, seed=11)
NORMALS = NORMALS / NORMALS.norm(dim=1, keepdim=True)
OFFSETS = torch.linspace(-1.5, 1.5, SIDE, dtype=torch.float64)
START = torch.zeros(1, 6, dtype=torch.float64)


def population(points: Tensor) -> Tensor:
    return ndtr((points @ NORMALS.T + OFFSETS) / SIGMA)


def sampled(points: Tensor, samples: int, seed: int) -> Tensor:
    """Draws `[m, samples, 10]`."""
    noisy = points[:, None] + SIGMA * normal(len(points), samples, 6, seed=seed)
    return (noisy @ NORMALS.T + OFFSETS > 0).double()


@functools.cache
def attacks(radius: float) -> Tensor:
    """Points at that distance: random ones, and those that gradient steps on the ranks lead to."""
    points = normal(4000, 6, seed=12)
    points = radius * points / points.norm(dim=1, keepdim=True)
    best = population(START)[0].topk(COUNT).indices
    others = [i for i in range(SIDE) if i not in best.tolist()]
    moved = points[:1000].clone().requires_grad_()
    for step in range(40):
        h = population(moved)
        # How far the smallest few members are above the largest few others.
        pairs = 1 + step % COUNT
        gap = h[:, best].sort(1).values[:, :pairs] - h[:, others].sort(1).values[:, -pairs:]
        (slope,) = torch.autograd.grad((gap + 0.05).clamp_min(0).sum(), moved)
        length = slope.norm(dim=1, keepdim=True).clamp_min(1e-12)
        stepped = moved.detach() - 0.2 * radius * slope / length
        moved = (radius * stepped / stepped.norm(dim=1, keepdim=True)).requires_grad_()
    return torch.cat((points, moved.detach()))


def overlaps(maps: Tensor, estimate: Tensor) -> Tensor:
    chosen = torch.zeros(SIDE, dtype=torch.bool)
    chosen[estimate.topk(COUNT).indices] = True
    return chosen[maps.topk(COUNT, dim=1).indices].double().mean(1)


RADII = (0.0, 0.1, 0.2, 0.4, 0.6, 0.9, 1.3)


@pytest.mark.parametrize("bound", ["exact", "hoeffding", "clopper-pearson", "bernstein"])
def test_no_attack_beats_the_certificate_of_the_population(bound: str) -> None:
    if bound == "exact":
        h = population(START)
        estimate, certified = h[0], overlap_of_bounds(
            h, h, h, torch.tensor(RADII), sigma=SIGMA, count=COUNT
        )  # fmt: skip
    else:
        moments = moments_of(sampled(START, 3000, seed=13), binary=True)
        estimate = moments.mean[0]
        certificate = certificate_of_moments(
            moments, sigma=SIGMA, radii=RADII, top=COUNT / SIDE, bound=bound
        )
        assert (certificate.kind, certificate.confidence) == ("certificate", 0.95)
        assert certificate.top.tolist() == [COUNT]
        certified = certificate.overlap
    least = [float(overlaps(population(attacks(r)), estimate).min()) for r in RADII[1:]]
    assert all(a >= b for a, b in zip(least, certified[0, 1:].tolist(), strict=True))
    assert certified[0, 0] >= 0.75
    assert 0 < certified[0, 2] < 1 or bound == "exact"
    assert least[-1] < 0.6, "the attack is too weak to test anything"


def test_opposite_half_spaces_attain_the_radius() -> None:
    x = torch.tensor([0.5], dtype=torch.float64)
    h = ndtr(torch.stack((x, -x), dim=1))
    end = float(radii_against_rank(h, h, h, sigma=1.0, rank=2)[0, 0])
    assert end == pytest.approx(0.5)
    for radius, kept in ((0.499, True), (0.501, False)):
        there = ndtr(torch.stack((x - radius, radius - x), dim=1))
        assert bool(there[0, 0] > there[0, 1]) is kept


def test_the_two_sample_statement_holds_for_fresh_draws() -> None:
    radius, samples = 0.15, 2500
    candidates = attacks(radius)
    h = population(START)[0]
    worst = candidates[overlaps(population(candidates), h).argmin()][None]
    held, certified = [], []
    for trial in range(60):
        moments = moments_of(sampled(START, samples, seed=1000 + trial), binary=True)
        two = certificate_of_moments(
            moments, sigma=SIGMA, radii=[0, radius], top=COUNT / SIDE, statement="two-sample"
        )
        one = certificate_of_moments(moments, sigma=SIGMA, radii=[0, radius], top=COUNT / SIDE)
        assert (two.overlap <= one.overlap).all()
        there = sampled(worst, samples, seed=5000 + trial).mean(1)
        certified.append(float(two.overlap[0, 1]))
        held.append(float(overlaps(there, moments.mean[0])) >= certified[-1])
    assert sum(held) >= 0.95 * len(held)
    assert max(certified) > 0


def test_two_sample_condition_written_out() -> None:
    draws = (uniform(1, 5000, 8, seed=3) < torch.linspace(0.05, 0.95, 8)).double()
    moments, radii = moments_of(draws, binary=True), [0.005 * step for step in range(200)]
    found = certificate_of_moments(
        moments, sigma=0.5, radii=radii, top=3 / 8, statement="two-sample", bound="hoeffding",
    )  # fmt: skip
    h = moments.mean[0].sort(descending=True).values
    c = math.sqrt(math.log(4 * 8 / 0.05) / (2 * 5000))
    for column, radius in enumerate(radii):
        kept = 0
        for i in (1, 2, 3):
            low = ndtr(ndtri((h[i - 1] - c).clamp_min(0)) - radius / 0.5)
            high = ndtr(ndtri((h[6 - i] + c).clamp_max(1)) + radius / 0.5)
            kept = i if low - high > 2 * c else kept
        assert float(found.overlap[0, column]) == pytest.approx(kept / 3)
    assert sorted({round(3 * share) for share in found.overlap[0].tolist()}) == [0, 1, 2, 3]


# What a change of bounded length leaves.


def cheapest(a: list[float], held: tuple[int, ...]) -> float:
    """The least change after which `held` are the largest, by trying thresholds."""
    leaving = [a[i] for i in range(len(a)) if i not in held]
    entering = [a[i] for i in held]

    def cost(t: float) -> float:
        total = sum(max(0, v - t) ** 2 for v in leaving)
        return math.sqrt(total + sum(max(0, t - v) ** 2 for v in entering))

    low, high = 0.0, max(a)
    for _ in range(200):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, right) if cost(left) < cost(right) else (left, high)
    return cost(low)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_the_overlap_within_a_change_is_the_least_of_all_sets(data: st.DataObject) -> None:
    entries = data.draw(st.integers(2, 6))
    values = data.draw(st.lists(st.floats(-2, 2), min_size=entries, max_size=entries))
    count = data.draw(st.integers(1, entries))
    change = data.draw(st.floats(0.01, 3))
    a = [abs(v) for v in values]
    best = set(sorted(range(entries), key=lambda i: -a[i])[:count])
    # Change by a hair more or less, for the thresholds above are not exact.
    least = [
        min(
            len(best & set(held))
            for held in itertools.combinations(range(entries), count)
            if cheapest(a, held) <= change + slack or set(held) == best
        )
        for slack in (1e-7, -1e-7)
    ]
    # Or the smallest members become zero.
    members = sorted(a[i] for i in best)
    gone = [
        sum(math.hypot(*members[: m + 1]) <= change + slack for m in range(count))
        for slack in (1e-7, -1e-7)
    ]
    least = [min(kept, count - lost) for kept, lost in zip(least, gone, strict=True)]
    found = overlap_within(
        torch.tensor([values], dtype=torch.float64), torch.tensor([[change]]), torch.tensor([count])
    )
    assert least[0] / count - 1e-12 <= float(found) <= least[1] / count + 1e-12


def test_overlap_within_edges() -> None:
    maps = torch.tensor([[3.0, 1, 2, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
    change = torch.tensor([[0.0, 0.5, 10], [0, 0.5, 10], [0, 0.5, 10]])
    found = overlap_within(maps, change, torch.tensor([2, 4, 0]))
    assert found[0].tolist() == [1, 1, 0]
    assert found[1].tolist() == [1, 1, 0]  # all may become zero
    assert found[2].isnan().all()


def test_entries_that_become_zero_are_no_longer_among_the_largest() -> None:
    """Nothing has to take their place."""
    before = torch.tensor([[5.0, 4, 3, 0.01, 0.01, 0.01, 0.01, 0, 0, 0]])
    after = torch.where(before < 1, 0.0, before)
    change = (before - after).norm(dim=1)[:, None] + 1e-6
    bound = overlap_within(before, change, torch.tensor([7]))
    assert float(bound) <= float(top_k_intersection(before, after, count=7)) + 1e-12


def test_the_estimate_of_a_map_with_few_zeros_is_not_passed() -> None:
    net = torch.nn.Linear(6, 2, bias=False).eval()
    with torch.no_grad():
        net.weight[0] = torch.tensor([1.0, 0.8, 0.6, 0.5, 0.02, 0.01])
        net.weight[1] = 0
    common = {"score": "probability", "sigma": 0.5, "sigma_mode": "absolute", "rho": 0.2}
    x = torch.zeros(1, 6)
    clean = SparseMoreauGrad(net, sparsity=0.3, **common).explain(x, 0)
    claimed = estimate_of_explanation(clean, radii=[20.0], top=1.0, exact=True).overlap
    far = x + 20 * torch.nn.functional.normalize(net.weight[:1].detach(), dim=1)
    moved = SparseMoreauGrad(net, eta=float(clean.eta), **common).explain(far, 0)
    kept = (clean.maps != 0) & (moved.maps != 0)
    assert float(claimed) <= float(kept.sum() / (clean.maps != 0).sum())


@pytest.mark.parametrize("change", [0.1, 0.8, 1.0, 1.3])
def test_the_distance_bound_is_reached_and_not_passed(change: float) -> None:
    angles = torch.linspace(0, 2 * math.pi, 20_001, dtype=torch.float64)[:-1]
    other = torch.stack((1 + change * angles.cos(), change * angles.sin()), dim=1)
    unit = torch.tensor([1.0, 0.0], dtype=torch.float64)
    apart = (other / other.norm(dim=1, keepdim=True) - unit).norm(dim=1)
    bound = float(distance_within(unit[None], torch.tensor([[change]])))
    assert float(apart.max()) <= bound + 1e-9
    if change != 1.0:  # there the other map may be zero
        assert float(apart.max()) == pytest.approx(bound, rel=1e-3)
    if change > 1:
        assert float(distance_within(unit[None], torch.tensor([[change]]), signed=False)) == 2**0.5


# How fast MoreauGrad's maps change.


def test_curvature_of_a_smoothed_probability_is_attained_and_not_passed() -> None:
    sigma = 0.6
    x = torch.linspace(-3, 3, 601, dtype=torch.float64)

    def curvature(edges: Tensor, heights: Tensor) -> float:
        """Of the Gaussian mean of a step function of one number."""
        u = (edges[:, None] - x) / sigma
        second = u * torch.exp(-(u**2) / 2) / math.sqrt(2 * math.pi) / sigma**2
        return float((heights[:, None] * second).sum(0).abs().max())

    bound = probability_curvature(sigma)
    window = curvature(sigma * torch.tensor([-1.0, 1.0]), torch.tensor([1.0, -1.0]))
    assert window == pytest.approx(bound, rel=1e-6)
    for seed in range(50):
        levels = torch.cat((torch.zeros(1), uniform(8, seed=seed), torch.zeros(1))).round()
        edges = normal(9, seed=seed).sort().values
        assert curvature(edges, levels.diff()) <= bound * (1 + 1e-9)


def test_curvature_of_a_smoothed_lipschitz_function_is_attained_and_not_passed() -> None:
    """-L |x| attains it at 0; other piecewise linear functions of slopes in [-L, L] stay below."""
    sigma, steepest = 0.6, 3.0
    x = torch.linspace(-3, 3, 601, dtype=torch.float64)

    def curvature(kinks: Tensor, slopes: Tensor) -> float:
        """Each kink adds its change of slope, times the density of the noise."""
        density = torch.exp(-(((x - kinks[:, None]) / sigma) ** 2) / 2)
        density = density / (math.sqrt(2 * math.pi) * sigma)
        return float((slopes.diff()[:, None] * density).sum(0).abs().max())

    bound = smoothed_curvature(steepest, sigma)
    attained = curvature(torch.zeros(1).double(), steepest * torch.tensor([1.0, -1.0]).double())
    assert attained == pytest.approx(bound, rel=1e-12)
    for seed in range(50):
        slopes = steepest * (2 * uniform(9, seed=seed) - 1).sign()
        assert curvature(normal(8, seed=seed).sort().values, slopes) <= bound * (1 + 1e-9)


def test_a_score_that_changes_slowly_has_an_estimate() -> None:
    """-L |x_1| with the largest admissible curvature: maps move as the bound allows, not faster."""
    sigma, steepest = 0.5, 2.0

    def score(x: Tensor) -> Tensor:
        return -steepest * x[:, :1].abs()

    rho = 0.25 / smoothed_curvature(steepest, sigma)
    explainer = MoreauGrad(
        score, task="regression", rho=rho, sigma=sigma, sigma_mode="absolute", tolerance=0.02
    )
    x = torch.tensor([[0.3, 0.1]], dtype=torch.float64)
    with pytest.raises(ValueError, match="give lipschitz="):
        certify(explainer, x, radii=[0.1])
    stated = certify(explainer, x, radii=[0.05], top=0.5, lipschitz=steepest)
    clean, moved = explainer.explain(x).maps, explainer.explain(x + torch.tensor([[-0.05, 0]])).maps
    change = float((clean / clean.norm() - moved / moved.norm()).norm())
    assert stated.kind == "estimate"
    assert change <= float(stated.distance)
    too_steep = 10 * steepest
    with pytest.raises(ValueError, match="rho: expected less than"):
        certify(explainer, x, radii=[0.1], lipschitz=too_steep)


@pytest.mark.parametrize("rho", [0.1, 0.5, 0.9])
def test_vanilla_maps_of_quadratics_attain_the_constant(rho: float) -> None:
    for low, high in ((-1.0, 3.0), (-0.2, 3.0), (-1.0, 0.1)):
        slopes = [abs(mu / (1 + rho * mu)) for mu in (low, 0.0, high)]
        assert vanilla_lipschitz(rho, -low, high) == pytest.approx(max(slopes))
        assert vanilla_lipschitz(rho, -low) >= max(slopes)


def quadratic_map(x: Tensor) -> Tensor:
    """The sparse map of the counter-example of the paper's constant."""
    v, q = torch.tensor([1.0, 10.0]).double(), torch.tensor([-2.0, 0.0]).double()
    explainer = SparseMoreauGrad(
        lambda at: (at @ v).square() / 2 + at @ q,
        rho=1.0, eta=1.0, sigma=0.0, tolerance=1e-10, task="regression", max_evaluations=20_000,
    )  # fmt: skip
    return explainer.explain(x, 0).raise_if_failed().maps


def test_sparse_maps_change_faster_than_the_paper_says_but_not_than_ours() -> None:
    x, step = torch.tensor([[-1.0, 0.0]]).double(), 1e-4
    around = torch.cat([x] + [x + s * step * torch.eye(2)[i] for i in (0, 1) for s in (1, -1)])
    maps = quadratic_map(around)
    jacobian = torch.stack([(maps[1] - maps[2]) / (2 * step), (maps[3] - maps[4]) / (2 * step)])
    found = float(torch.linalg.matrix_norm(jacobian, 2))
    bound = sparse_lipschitz(1.0, 0.0, 101.0)
    assert bound == pytest.approx(math.sqrt(101) / 2)
    assert 5.0 < found <= bound * (1 + 1e-6)
    assert found > max(1 / 1.0, 0.0), "the paper's constant"


def test_constants_outside_of_their_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"rho: expected less than 1 / weak_convexity = 0\.5"):
        sparse_lipschitz(0.5, 2.0, 1.0)
    with pytest.raises(ValueError, match=r"weak_convexity = 0\.5, got 0\.7"):
        vanilla_lipschitz(0.7, 2.0)
    with pytest.raises(ValueError, match="smoothness: expected a finite bound"):
        sparse_lipschitz(0.1, 1.0, math.inf)
    with pytest.raises(ValueError, match="rho: expected a number > 0"):
        vanilla_lipschitz(-1.0, 1.0)
    with pytest.raises(ValueError, match="sigma: expected"):
        probability_curvature(0.0)


# Explainers.

MODEL = network([6, 12, 3], nn.Tanh, gain=2.5).requires_grad_(False)
X = normal(3, 6, seed=21)
ABSOLUTE = {"sigma": 0.5, "sigma_mode": "absolute"}
RHO = 0.5 / probability_curvature(0.5)
MOREAU = {**ABSOLUTE, "score": "probability", "rho": RHO}


def test_a_certificate_by_way_of_the_explainer() -> None:
    """The gradient's larger entry is the larger |x_i|, whose mean is known."""
    x = torch.tensor([[1.0, 0.1]], dtype=torch.float64)
    explainer = SparsifiedSmoothGrad(
        lambda at: (at.square().sum(1) / 2)[:, None], task="regression",
        variant="sparsified", tau=0.5, samples=3000, **ABSOLUTE,
    )  # fmt: skip
    radii = [0.0, 0.1, 0.2, 0.3, 0.5, 0.8]
    found = certify(explainer, x, 0, radii=radii, top=0.5)
    kept = [radius for radius, share in zip(radii, found.overlap[0], strict=True) if share == 1]
    assert 0.2 in kept
    angles = torch.linspace(0, 2 * math.pi, 3601, dtype=torch.float64)
    for radius in kept:
        there = x + radius * torch.stack((angles.cos(), angles.sin()), dim=1)
        u, v = ((there[:, 0] + s * there[:, 1]) / 2**0.5 / 0.5 for s in (1, -1))
        assert (ndtr(u) * ndtr(v) + ndtr(-u) * ndtr(-v) > 0.5).all()
    assert 0.8 not in kept  # the difference of the entries is 0.9 / sqrt(2) from zero


@pytest.mark.parametrize("variant", ["sparsified", "relaxed", "scaled"])
@pytest.mark.parametrize("statement", ["population", "two-sample"])
def test_a_batch_has_the_certificates_of_its_samples(variant: str, statement: str) -> None:
    explainer = SparsifiedSmoothGrad(MODEL, variant=variant, tau=0.4, samples=900, **ABSOLUTE)
    wanted = {"radii": [0.0, 0.02, 0.1], "top": 0.34, "statement": statement}
    batch = certify(explainer, X, [0, 1, 2], ids=[5, 6, 7], **wanted)
    assert (batch.overlap.diff(dim=1) <= 0).all()
    for i in range(3):
        alone = certify(explainer, X[i : i + 1], i, ids=[5 + i], **wanted)
        assert torch.equal(alone.overlap, batch.overlap[i : i + 1])
    if statement == "population":
        assert (batch.overlap[:, 0] > 0).any()


@pytest.mark.parametrize("method", [MoreauGrad, SparseMoreauGrad])
def test_moreaugrad_s_maps_keep_to_their_estimate(method: type[MoreauGrad]) -> None:
    more = {} if method is MoreauGrad else {"eta": 0.01}
    explainer = method(MODEL, tolerance=0.05, **MOREAU, **more)
    found = explainer.explain(X, 1)
    radii = [0.0, 0.002, 0.03]
    stated = estimate_of_explanation(found, radii=radii, top=0.5, statement="two-sample")
    exact = estimate_of_explanation(found, radii=radii, top=0.5, exact=True)
    assert (stated.kind, exact.kind) == ("estimate", "estimate")
    assert "noise samples" in stated.reason
    assert (stated.overlap <= exact.overlap).all()
    assert (stated.distance >= exact.distance).all()
    assert (exact.overlap[:, 0] == 1).all()
    assert (exact.distance[:, 0] == 0).all()
    assert (stated.overlap.diff(dim=1) <= 0).all()
    moves = torch.stack([normal(6, 6, seed=i) for i in range(len(radii))])
    moves = moves / moves.norm(dim=-1, keepdim=True) * torch.tensor(radii)[:, None, None]
    there = X[:, None, None] + moves
    moved = explainer.explain(there.flatten(0, 2), 1, ids=range(100, 100 + 54)).maps
    seen = 0
    for row, count in enumerate(stated.top.tolist()):
        best = set(found.maps[row].abs().topk(count).indices.tolist())
        for column in range(1, len(radii)):
            for map_ in moved.reshape(there.shape)[row, column]:
                kept = len(best & set(map_.abs().topk(count).indices.tolist())) / count
                assert kept >= float(stated.overlap[row, column]) - 1e-12
                apart = (map_ / map_.norm() - found.maps[row] / found.maps[row].norm()).norm()
                assert float(apart) <= float(stated.distance[row, column])
            seen += float(stated.overlap[row, column]) > 0
    assert seen, "nothing was claimed, so nothing was tested"


def test_entries_of_zero_are_not_among_the_largest() -> None:
    explainer = SparseMoreauGrad(MODEL, sparsity=0.8, **MOREAU)
    found = explainer.explain(X, 1)
    support = (found.maps != 0).sum(1)
    stated = estimate_of_explanation(found, radii=[0.0], top=0.5, exact=True)
    assert torch.equal(stated.top, support.clamp_max(3))
    assert (support < 3).any()
    assert (stated.overlap == 1).all()


def test_certify_of_moreaugrad_is_the_estimate_of_its_explanation() -> None:
    explainer = GroupSparseMoreauGrad(MODEL, group=2, **MOREAU)
    found = certify(explainer, X, 1, radii=[0.0, 0.01], top=0.5)
    expected = estimate_of_explanation(explainer.explain(X, 1), radii=[0.0, 0.01], top=0.5)
    assert torch.equal(found.overlap, expected.overlap)
    assert found.kind == "estimate"


SPARSIFIED = functools.partial(SparsifiedSmoothGrad, MODEL)


@pytest.mark.parametrize(
    ("explainer", "words"),
    [
        (lambda: SPARSIFIED(), "sigma_mode: expected 'absolute', got 'relative'.*invalidates"),
        (lambda: SPARSIFIED(sigma=0.0), "sigma: expected noise"),
        (lambda: SPARSIFIED(antithetic=True, **ABSOLUTE), "antithetic: expected False"),
        (lambda: MoreauGrad(MODEL, score="probability"), "sigma_mode: expected 'absolute'"),
        (lambda: MoreauGrad(MODEL, rho=0.1, **ABSOLUTE), "score: expected 'probability'"),
        (lambda: MoreauGrad(MODEL, **(MOREAU | {"rho": 2 * RHO})), "rho: expected less than"),
        (lambda: MoreauGrad(MODEL, **MOREAU, noise="fixed"), "noise: expected 'fresh'"),
    ],
)
def test_settings_that_void_the_statement_are_refused(explainer, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=words):
        certify(explainer(), X, 1, radii=[0.1])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"score": "logit"}, "score: expected 'probability'"),
        ({"sigma_mode": "relative"}, "sigma_mode: expected 'absolute'"),
        ({"noise": "fixed"}, "noise: expected 'fresh'"),
    ],
)
def test_maps_of_such_settings_have_no_estimate(changed: dict[str, Any], words: str) -> None:
    """The overlap of a map of the logit was bounded by the curvature of a probability."""
    found = MoreauGrad(MODEL, tolerance=0.5, **(MOREAU | changed)).explain(X, 1)
    with pytest.raises(ValueError, match=words):
        estimate_of_explanation(found, radii=[0.1])


@pytest.mark.parametrize("radii", [torch.tensor([0.0, 0.25]), np.array([0.0, 0.25])])
def test_radii_may_be_an_array(radii: Any) -> None:
    explainer = SPARSIFIED(samples=20, tau=0.4, **ABSOLUTE)
    found = certify(explainer, X, 1, radii=radii)
    assert torch.equal(found.overlap, certify(explainer, X, 1, radii=[0.0, 0.25]).overlap)


@pytest.mark.parametrize("method", [SparsifiedSmoothGrad, MoreauGrad, SparseMoreauGrad])
def test_radii_of_a_layer_are_not_certified(method: type[MoreauGrad]) -> None:
    """An attack on the input at a tenth of the radius moved the top of such a map."""
    settings = MOREAU if issubclass(method, Moreau) else ABSOLUTE
    explainer = method(MODEL, layer="0", **settings)
    with pytest.raises(ValueError, match=r"layer: expected None.*units of the layer"):
        certify(explainer, X, 1, radii=[0.1])
    if isinstance(explainer, Moreau):
        with pytest.raises(ValueError, match="layer: expected None"):
            estimate_of_explanation(explainer.explain(X, 1), radii=[0.1])


def test_padding_is_not_certified() -> None:
    """It has no noise: a change there is not smoothed."""
    mask = torch.tensor([True, True, True, True, False, False]).expand(3, 6)
    moments = SPARSIFIED(samples=20, tau=0.4, **ABSOLUTE).moments(X, 1, mask=mask)
    with pytest.raises(ValueError, match="mask: expected None"):
        certificate_of_moments(moments, sigma=0.5, radii=[0.1])
    found = MoreauGrad(MODEL, tolerance=0.5, **MOREAU).explain(X, 1, mask=mask)
    with pytest.raises(ValueError, match="mask: expected None"):
        estimate_of_explanation(found, radii=[0.1])


def test_the_network_after_a_layer_has_a_certificate_of_its_own() -> None:
    after = SparsifiedSmoothGrad(MODEL[1:], samples=20, tau=0.4, **ABSOLUTE)
    found = certify(after, MODEL[:1](X).detach(), 1, radii=[0.0])
    assert "in the units of the network's input" in found.statement


@pytest.mark.parametrize(
    ("target", "words"),
    [(1, "both of class 1$"), ([0, 2, 2], "explained at x .`target`: 0, 2, 2.$")],
)
def test_the_statement_names_the_class_that_is_held(target: Any, words: str) -> None:
    explainers = (
        SPARSIFIED(samples=20, tau=0.4, **ABSOLUTE),
        MoreauGrad(MODEL, tolerance=0.5, **MOREAU),
    )
    for explainer in explainers:
        found = certify(explainer, X, target, radii=[0.0])
        assert re.search(words, found.statement.partition(", with")[0])
        assert found.target is not None
        assert found.target.tolist() == torch.tensor(target).expand(3).tolist()


def test_a_class_that_nobody_gave_is_the_one_predicted_at_x() -> None:
    found = certify(SPARSIFIED(samples=20, tau=0.4, **ABSOLUTE), X[:1], radii=[0.0])
    assert f"of class {int(MODEL(X[:1]).argmax())}," in found.statement
    unknown = certificate_of_moments(moments_of(torch.rand(1, 9, 4)), sigma=1.0, radii=[0.0])
    assert "of the class explained at x" in unknown.statement


def test_other_methods_have_no_certificate() -> None:
    with pytest.raises(TypeError, match="got PublishedMoreauGrad: how fast"):
        check(PublishedMoreauGrad(MODEL))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"radii": []}, "radii: expected"),
        ({"radii": [-0.1]}, "radii: expected"),
        ({"radii": [math.inf]}, "radii: expected"),
        ({"top": 0}, "top: expected"),
        ({"confidence": 1.0}, "confidence: expected"),
        ({"statement": "both"}, "statement: expected"),
        ({"bound": "clopper-pearson"}, "clopper-pearson is for maps of zeros and ones"),
        ({"bound": "hoefding"}, "did you mean 'hoeffding'"),
    ],
)
def test_what_cannot_be_certified_is_reported(wanted: dict[str, object], words: str) -> None:
    explainer = SPARSIFIED(samples=20, tau=0.4, **ABSOLUTE)
    with pytest.raises(ValueError, match=words):
        certify(explainer, X, 1, **({"radii": [0.1]} | wanted))


def test_antithetic_draws_are_refused_by_the_bounds() -> None:
    moments = SPARSIFIED(antithetic=True, tau=0.4, **ABSOLUTE).moments(X, 1)
    with pytest.raises(ValueError, match="independent noise samples, got antithetic"):
        bounds(moments, 0.05)


def test_antithetic_draws_would_break_the_bounds() -> None:
    """On an even function a pair counts as one draw: the interval is then too narrow."""
    misses = {}
    for antithetic in (True, False):
        noise, found = Noise(3, antithetic), []
        like = torch.zeros(400, 1, dtype=torch.float64)
        for index in range(100):
            found.append((noise.draw(range(400), index, like).abs() < 0.6745).double())
        lower, upper = bounds(moments_of(torch.stack(found, dim=1), binary=True), 0.05)
        misses[antithetic] = float(((lower > 0.5) | (upper < 0.5)).double().mean())
    assert misses[True] > 0.1
    assert misses[False] < 0.08


@pytest.mark.parametrize("method", ["smoothgrad", "simple-gradient", "published-moreaugrad"])
def test_maps_of_other_methods_have_no_estimate(method: str) -> None:
    settings = {"simple-gradient": {}, "smoothgrad": {"samples": 2}}
    few = {"steps": 2, "average": 1, "draws": 2}
    found = moreaugrad.build(method, MODEL, **settings.get(method, few)).explain(X, 1)
    with pytest.raises(TypeError, match=f"expected one of a MoreauGrad explainer.*{method}"):
        estimate_of_explanation(found, radii=[0.1])

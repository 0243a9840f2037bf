"""z-scores of single entries: literal computations, and whether they are right over many seeds."""

import math
from dataclasses import replace

import pytest
import scipy.stats
import torch
from scipy.optimize import brentq
from scipy.special import digamma, polygamma
from torch import Tensor, nn

import moreaugrad as mg
import toys
from moreaugrad.penalties import L1, GroupL2, Penalty, Zero
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.solvers import SOLVERS, MoreauProblem, StochasticFixedPoint
from moreaugrad.solvers.block_means import BlockMeans
from moreaugrad.solvers.blocks import left_out
from moreaugrad.solvers.z_scores import (
    Measured,
    certain,
    joined_z_scores,
    moderated,
    through,
    z_scores,
)

F64 = torch.float64
SEEDS = 48
SIGMA = 0.4

# Literal computations.


def literal_moderation(variance: list[float], degrees: int) -> tuple[list[float], float]:
    """Smyth (2004), section 6.2, for one sample."""
    logs = [math.log(v) for v in variance if v > 0]
    mean = sum(logs) / len(logs)
    spread = sum((each - mean) ** 2 for each in logs) / (len(logs) - 1)
    spread -= float(polygamma(1, degrees / 2))
    prior = 2 * brentq(lambda half: float(polygamma(1, half)) - spread, 1e-6, 1e6)
    scale = math.exp(
        mean
        - float(digamma(degrees / 2))
        + math.log(degrees / 2)
        + float(digamma(prior / 2))
        - math.log(prior / 2)
    )
    total = prior + degrees
    return [(prior * scale + degrees * v) / total for v in variance], total


def test_moderation_follows_the_formulas() -> None:
    scales = torch.exp(toys.normal(3, 50, seed=1))
    variance = scales * toys.normal(3, 50, 7, seed=2).square().mean(2)
    variance[0, :3] = 0.0
    found, degrees = moderated(variance, torch.full((3,), 7.0, dtype=F64))
    for row in range(3):
        expected, total = literal_moderation(variance[row].tolist(), 7)
        assert degrees[row].item() == pytest.approx(total, rel=1e-6)
        assert found[row].tolist() == pytest.approx(expected, rel=1e-6)


def test_moderation_finds_whether_variances_differ() -> None:
    """All alike: the estimates are replaced by one. Far apart: they stay as they are."""
    chance = toys.normal(1, 4000, 7, seed=3).square().mean(2)
    degrees = torch.full((1,), 7.0, dtype=F64)
    same, many = moderated(chance, degrees)
    assert float((same - 1).abs().max()) < 0.2
    assert float(many) > 100
    apart = chance * torch.exp(4 * toys.normal(1, 4000, seed=4))
    found, few = moderated(apart, degrees)
    assert float(few) < 8
    assert float((found / apart).log().abs().median()) < 0.1
    alone, own = moderated(torch.tensor([[2.0], [0.0]], dtype=F64), torch.full((2,), 7.0).double())
    assert alone.tolist() == [[2.0], [0.0]]
    assert own.tolist() == [7.0, 7.0]


class Twice(Penalty):
    """Thresholds, of which it says nothing."""

    value = conjugate = maximiser = None  # type: ignore[assignment]

    def prox(self, u: Tensor, tau: object) -> Tensor:
        return L1(1.0).prox(2 * u, tau)  # type: ignore[arg-type]


PENALTIES: dict[str, Penalty] = {
    "l1": L1(1.0), "group": GroupL2(1.0, size=4), "zero": Zero(), "opaque": Twice(),
}  # fmt: skip
THRESHOLD = {"l1": 0.4, "group": 0.8, "zero": 0.0, "opaque": 0.5}


def literal_z(terms: Tensor, counts: list[int], name: str) -> list[float]:
    """One sample `[J, n]`: delete each block; Student's t by scipy, without moderation."""

    def mean(kept: list[int]) -> Tensor:
        weights = torch.tensor([float(counts[j]) for j in kept], dtype=F64)
        return (weights[:, None] * terms[kept]).sum(0) / weights.sum()

    def size(u: Tensor, i: int) -> Tensor:
        return u[i].abs() if name == "l1" else u[i - i % 4 : i - i % 4 + 4].norm()

    blocks, total = list(range(len(counts))), sum(counts)
    whole, threshold = mean(blocks), THRESHOLD[name]
    rest = [mean([k for k in blocks if k != j]) for j in blocks]

    def jackknife(values: list[float], own: float) -> tuple[float, float]:
        weight = [(total - count) / total for count in counts]
        apart = [value - own for value in values]
        bias = sum(w * a for w, a in zip(weight, apart, strict=True))
        square = sum(w * a * a for w, a in zip(weight, apart, strict=True))
        return bias, square - bias**2 / sum(weight)

    def z(distance: float, variance: float) -> float:
        t = distance / math.sqrt(variance)
        p = scipy.stats.t.sf(t, len(counts) - 1)
        return float(scipy.stats.norm.isf(p))

    found = []
    for i in range(terms.shape[1]):
        values = [float(u[i]) for u in (whole, *rest)]
        if name == "opaque":
            values = [math.copysign(max(abs(2 * v) - threshold, 0), v) for v in values]
        sign = math.nan
        if values[0]:
            sign = z(abs(values[0]), jackknife(values[1:], values[0])[1])
        if name in ("zero", "opaque"):
            found.append(sign)
            continue
        norm = float(size(whole, i))
        bias, variance = jackknife([float(size(u, i)) for u in rest], norm)
        norm, over = math.sqrt(max(norm**2 - 2 * norm * bias, 0)), norm > threshold
        state = z(max(norm - threshold if over else threshold - norm, 0), variance)
        found.append(min(state, sign) if over else state)
    return found


@pytest.mark.parametrize("name", PENALTIES)
def test_z_scores_follow_the_loops(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moreaugrad.solvers.z_scores.moderated", lambda v, d: (v, d))
    counts = [2, 2, 2, 2, 2, 1]
    terms = 0.3 * toys.normal(6, 3, 8, seed=5) + 0.5 * toys.normal(3, 8, seed=6)
    ranges = [range(sum(counts[:j]), sum(counts[: j + 1])) for j in range(6)]
    tau = torch.full((3,), THRESHOLD[name], dtype=F64)
    mean = (terms * torch.tensor(counts)[:, None, None]).sum(0) / sum(counts)
    found = z_scores(
        lambda u: through(PENALTIES[name], u, tau), mean, left_out(ranges, terms.unbind())
    )
    for row in range(3):
        expected = literal_z(terms[:, row], counts, name)
        # Wallace's z is up to 1.5 % below the exact one.
        assert found[row].tolist() == pytest.approx(expected, abs=0.02, rel=0.02, nan_ok=True)
    assert bool(found.isnan().any()) == (name == "opaque")


def test_an_error_scales_and_a_doubt_adds() -> None:
    terms = 0.3 * toys.normal(8, 1, 400, seed=7) + 1
    blocks = [range(j, j + 1) for j in range(8)]
    mean = terms.mean(0)

    def solved(error: Tensor | None, doubt: Tensor | None) -> float:
        found = z_scores(Measured, mean, left_out(blocks, terms.unbind()), error, doubt)
        return float(found.median())

    plain = solved(None, None)
    length = (terms.var(0) / 8).sum(1).sqrt()
    # Few rows do not say how many of the entries vary independently; a given error is trusted.
    assert solved(length, None) == pytest.approx(plain, rel=0.02)
    assert solved(2 * length, None) == pytest.approx(plain / 2, rel=0.05)
    doubt = (length / math.sqrt(400))[:, None].expand(1, 400)
    assert solved(None, doubt) == pytest.approx(plain / math.sqrt(2), rel=0.1)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_certain_entries_are_those_of_the_false_discovery_rate(level: float) -> None:
    """Each stratum of each sample as scipy adjusts it."""
    z = toys.normal(5, 200, seed=8).abs() * torch.tensor([[0.5], [1], [2], [4], [30]]).double()
    z[:, ::7] = math.nan
    zero = toys.normal(5, 200, seed=9) > 0
    found = certain(z, zero, level)
    assert found.any()
    assert not found.all()
    for row in range(5):
        for kind in (zero[row], ~zero[row]):
            own = kind & ~z[row].isnan()
            p = 2 * scipy.stats.norm.sf(z[row][own].numpy())
            expected = scipy.stats.false_discovery_control(p) <= 1 - level
            assert found[row][own].tolist() == expected.tolist()
    assert not found[z.isnan()].any()
    assert not certain(torch.full((2, 3), math.nan), torch.zeros(2, 3) > 0, level).any()


def test_chains_are_joined_where_they_agree() -> None:
    maps = torch.tensor([[1.0, -2.0, 0.0, 0.0, 3.0]])
    other = torch.tensor([[2.0, 2.0, 0.0, 1.0, 3.0]])
    ones = torch.ones(1, 5)
    joined = torch.tensor([[1.5, 0.0, 0.0, 0.5, 3.0]])
    found = joined_z_scores(joined, [(maps, 3 * ones), (other, 4 * ones)])
    expected = torch.tensor([[1.0, 0.0, 1.0, 0.0, 1.0]]) * 7 / math.sqrt(2)
    torch.testing.assert_close(found, expected)


# Calibration.


def waves(entries: int, seed: int) -> tuple[nn.Module, nn.Module, Tensor]:
    """A sum of waves through all entries, the same under noise of level SIGMA, and a point."""
    frequency = toys.normal(entries, 50, seed=seed) / 4
    phase, weight = 3 * toys.normal(50, seed=seed + 1), toys.normal(50, seed=seed + 2)

    class Waves(nn.Module):
        def __init__(self, weights: Tensor) -> None:
            super().__init__()
            self.weights = weights

        def forward(self, x: Tensor) -> Tensor:
            return (torch.cos(x @ frequency + phase) * self.weights).sum(1)

    damped = weight * torch.exp(-(SIGMA**2) * frequency.square().sum(0) / 2)
    return Waves(weight), Waves(damped), toys.normal(1, entries, seed=seed + 3)


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 8, 5, padding=2), nn.ReLU(),
        nn.AvgPool2d(4), nn.Flatten(), nn.Linear(8 * 16, 2),
    ).double().eval()  # fmt: skip


def smoothed(model: nn.Module, x: Tensor, samples: int, seeds: int = SEEDS) -> BoundScore:
    return toys.bound(
        model, x.expand(seeds, *x.shape[1:]), sigma=SIGMA, samples=samples, ids=range(seeds)
    )


def missed(bound: BoundScore, centred: bool, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Whether entries of the mean gradient are 1.96 standard errors off, `[B, n]`; their means."""
    means = BlockMeans.of(bound, centred=centred)
    found = means.z_scores(lambda mean: Measured(mean - truth))
    assert found is not None
    assert (means.shrinkage is not None) == centred
    return (found > 1.96).double(), means.mean


def check(maps: Tensor, z: Tensor, truth: Tensor, called: float) -> None:
    """At most 5 % of the certain entries have another sign or zero, up to chance; and they are not
    few."""
    zero, wrong = maps == 0, maps.sign() != truth.sign()
    found = certain(z, zero, 0.95)
    for kind in (zero, ~zero):
        if bool(kind.any()):
            own = found & kind
            assert float(wrong[own].double().mean()) <= 0.055
            assert float(own.sum() / kind.sum()) > called


@pytest.mark.parametrize("samples", [8, 16, 64, 256])
def test_a_plain_mean_is_off_by_its_standard_errors(samples: int) -> None:
    model, damped, x = waves(100, seed=0)
    _, truth = toys.bound(damped, x).value_and_grad()
    off, maps = missed(smoothed(model, x, samples), False, truth)
    assert 0.025 < float(off.mean()) < 0.06
    found = BlockMeans.of(smoothed(model, x, samples)).z_scores(Measured)
    assert found is not None
    check(maps, found, truth, 0.5 if samples > 16 else 0.2)


@pytest.fixture(scope="module")
def exact() -> Tensor:
    """The mean gradient over many noise samples that no test uses."""
    x = toys.normal(1, 3, 16, 16, seed=11)
    bound = toys.bound(network(), x, sigma=SIGMA, samples=4096, seed=99)
    return bound.value_and_grad()[1]


@pytest.mark.parametrize(("samples", "centred"), [(16, False), (16, True), (64, True)])
def test_a_mean_of_a_network_with_kinks_is_off_by_its_standard_errors(
    exact: Tensor, samples: int, centred: bool
) -> None:
    x = toys.normal(1, 3, 16, 16, seed=11)
    bound = smoothed(network(), x, samples)
    off, maps = missed(bound, centred, exact)
    assert (0.01 if centred else 0.035) < float(off.mean()) < 0.06
    # The largest entries, which a centre biases most.
    largest = exact.abs() > exact.abs().quantile(0.9)
    assert float(off[largest.expand_as(off)].mean()) < 0.07
    found = BlockMeans.of(bound, centred=centred).z_scores(Measured)
    assert found is not None
    check(maps, found, exact, 0.4)


def test_where_nothing_is_certain_hardly_any_map_has_a_certain_entry() -> None:
    """x_i (cos(w z_i) - its mean): all entries have a mean gradient of exactly zero."""
    offset = math.exp(-2 * SIGMA**2)

    def balanced(x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        return (left * ((2 * right).cos() - offset)).sum(1)

    bound = smoothed(balanced, torch.zeros(1, 80, dtype=F64), 128, 200)
    means = BlockMeans.of(bound)
    found = means.z_scores(Measured)
    assert found is not None
    known = means.mean[:, :40], found[:, :40]
    per_entry = float((known[1] > 1.96).double().mean())
    assert 0.03 < per_entry < 0.06
    any_certain = certain(known[1], known[0] == 0, 0.95).any(1).double().mean()
    assert float(any_certain) < 0.09  # 5 % of 200 samples, and two standard errors


@pytest.mark.parametrize("samples", [4, 8, 16])
@pytest.mark.parametrize("directions", [1, 2])
def test_entries_that_vary_together_count_once(samples: int, directions: int) -> None:
    """An even function: every sign of its mean gradient at 0 is chance, and all entries have the
    same chance."""
    along = torch.nn.functional.normalize(toys.normal(directions, 30, seed=21), dim=1)

    def even(x: Tensor) -> Tensor:
        return (x @ along.mT).cos().sum(1)

    bound = smoothed(even, torch.zeros(1, 30, dtype=F64), samples, 400)
    bound = replace(bound, noise=replace(bound.noise, antithetic=False))
    found = BlockMeans.of(bound).z_scores(Measured)
    assert found is not None
    any_certain = certain(found, torch.zeros_like(found) > 0, 0.95).any(1).double().mean()
    assert float(any_certain) < 0.09  # 5 % of 400 samples, and nearly four standard errors


@pytest.mark.parametrize("scale", [1e-12, 1e-24, 1e-30])
def test_small_maps_are_as_certain_as_large_ones(scale: float) -> None:
    model, _, x = waves(40, seed=0)
    bound = smoothed(model, x, 64, 4)
    means = BlockMeans.of(bound)
    small = replace(means, terms=(scale * means.terms).float())
    torch.testing.assert_close(
        small.z_scores(Measured).double(), means.z_scores(Measured), rtol=1e-3, atol=1e-3
    )


def test_where_no_noise_sample_differed_nothing_is_known() -> None:
    model = toys.network((6, 8, 2), nn.ReLU, seed=2)
    x = toys.normal(3, 6, seed=1)
    how = {"sigma": 1e-9, "sigma_mode": "absolute", "score": "logit"}
    for explainer in (
        mg.SmoothGrad(model, samples=8, centre=False, sigma=1e-9, sigma_mode="absolute"),
        mg.SmoothCAFO(model, samples=8, centre=False, **how),
        mg.ExpectedGradients(model, baselines=x[:1] + 1e-9, samples=3),
    ):
        found = explainer.explain(x[:1])
        assert [status.name for status in found.status] == ["UNVARIED"], explainer.method
        assert not found.certain().any()
        assert found.z_scores.isnan().all()


def test_an_entry_that_a_precision_loses_is_not_certainly_zero() -> None:
    slopes = torch.tensor([1.0, 1.0, 1e-9, 0.0])

    def model(x: Tensor) -> Tensor:
        return (slopes.to(x) * (x + 0.1 * x.square())).sum(1, keepdim=True)

    x = torch.tensor([[1.0, 2.0, 1.0, 1.0]])
    explainer = mg.SmoothGrad(model, task="regression", samples=64, check=False)
    found = explainer.explain(x)
    assert found.certain().tolist() == [[True, True, True, False]]
    half = found.to(torch.float16)
    assert half.maps[0, 2] == 0
    assert half.certain().tolist() == [[True, True, False, False]]
    assert explainer.explain(x.half()).certain().tolist() == [[True, True, False, False]]


def solved(problem: MoreauProblem, reference: MoreauProblem) -> tuple[Tensor, Tensor, Tensor]:
    found = StochasticFixedPoint(tolerance=0.3).solve(problem)
    truth = SOLVERS["spectral"](tolerance=1e-8, max_steps=3000).solve(reference)
    assert truth.ok
    assert found.z_scores is not None
    return found.values, found.z_scores, truth.values


@pytest.mark.parametrize(
    ("kind", "entries", "eta"),
    [("l1", 40, 0.4), ("l1", 200, 0.4), ("group", 40, 1.4), ("group", 200, 0.9)],
)
def test_a_sparse_map_is_as_certain_as_it_says(kind: str, entries: int, eta: float) -> None:
    model, damped, x = waves(entries, seed=3)
    penalty = L1(1.0) if kind == "l1" else GroupL2(1.0, size=4)
    noisy = toys.problem(smoothed(model, x, 16), rho=0.3, eta=eta, penalty=penalty)
    exact = toys.problem(toys.bound(damped, x), rho=0.3, eta=eta, penalty=penalty)
    maps, z, truth = solved(noisy, exact)
    assert 0.2 < float((truth == 0).double().mean()) < 0.8
    assert (maps.sign() != truth.sign()).any()
    check(maps, z, truth, 0.2)


def test_a_sparse_map_of_a_network_with_kinks_is_as_certain_as_it_says() -> None:
    """With an automatic eta and a centre, against a long solve with other noise."""
    model, x = toys.network((96, 32, 3), nn.ReLU, seed=5), toys.normal(1, 96, seed=3)
    explainer = mg.SparseMoreauGrad(model, sigma=SIGMA, sparsity=0.7, tolerance=0.3)
    found = explainer.explain(x.expand(SEEDS, -1), 0, ids=range(SEEDS))
    long = mg.SparseMoreauGrad(
        model, sigma=SIGMA, sparsity=0.7, tolerance=1e-9, max_evaluations=8192, seed=9
    )
    truth = long.explain(x, 0).maps
    assert isinstance(found.maps, Tensor)
    assert isinstance(found.z_scores, Tensor)
    check(found.maps, found.z_scores, truth, 0.4)

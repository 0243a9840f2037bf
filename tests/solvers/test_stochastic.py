import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import moreaugrad as mg
import toys
from moreaugrad.penalties import L1, GroupL2, Penalty, Zero
from moreaugrad.solvers import SOLVERS, MoreauProblem, Solution, Status, StochasticFixedPoint
from moreaugrad.solvers.blocks import Blocks

F64 = torch.float64
SIGMA = 0.4
N = 12
SCALE = torch.linspace(0.3, 1.5, N, dtype=F64)

# Scores, and what they are under noise of level SIGMA, in closed form.
DAMPED = torch.exp(-((1.3 * SIGMA) ** 2) * torch.ones((), dtype=F64) / 2)
SMOOTHED: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "cubic": (
        lambda x: (SCALE * x**3 / 9 + x**2).sum(1),
        lambda x: (SCALE * (x**3 / 9 + SIGMA**2 * x / 3) + x**2 + SIGMA**2).sum(1),
    ),
    "cosine": (
        lambda x: (SCALE * torch.cos(1.3 * x)).sum(1) / 2,
        lambda x: DAMPED * (SCALE * torch.cos(1.3 * x)).sum(1) / 2,
    ),
    "kinks": (
        lambda x: (SCALE * x.abs()).sum(1),
        lambda x: (
            SCALE
            * (
                SIGMA * math.sqrt(2 / math.pi) * torch.exp(-(x**2) / (2 * SIGMA**2))
                + x * torch.erf(x / (SIGMA * math.sqrt(2)))
            )
        ).sum(1),
    ),
}
PENALTIES: dict[str, Penalty] = {"zero": Zero(), "l1": L1(1.0), "group": GroupL2(1.0, size=3)}
POINT = 0.8 * toys.normal(1, N, seed=3) + 0.2


def noisy_problem(
    name: str, kind: str, *, copies: int = 1, rho: float = 0.5, seed: int = 0, **settings: object
) -> MoreauProblem:
    """One point, as often as asked for, each time with noise of its own."""
    score = toys.bound(
        SMOOTHED[name][0],
        POINT.expand(copies, N),
        sigma=SIGMA,
        seed=seed,
        ids=range(copies),
        **settings,
    )
    eta = 0.0 if kind == "zero" else 0.3
    return toys.problem(score, rho=rho, eta=eta, penalty=PENALTIES[kind])


def truth(name: str, kind: str, rho: float = 0.5) -> Tensor:
    score = toys.bound(SMOOTHED[name][1], POINT)
    eta = 0.0 if kind == "zero" else 0.3
    problem = toys.problem(score, rho=rho, eta=eta, penalty=PENALTIES[kind])
    found = SOLVERS["spectral"](tolerance=1e-8, max_steps=3000).solve(problem)
    assert found.status == (Status.CONVERGED,)
    return found.values


@pytest.mark.parametrize("name", SMOOTHED)
def test_closed_forms_are_means_under_noise(name: str) -> None:
    """The oracles themselves, against many draws."""
    noisy, exact = (toys.bound(SMOOTHED[name][i], POINT, sigma=s) for i, s in ((0, SIGMA), (1, 0)))
    value, gradient = noisy.value_and_grad(draws=range(20_000))
    expected = exact.value_and_grad()
    torch.testing.assert_close(value, expected[0], rtol=0.02, atol=0.02)
    torch.testing.assert_close(gradient, expected[1], rtol=0.02, atol=0.02)


@pytest.mark.parametrize("name", SMOOTHED)
@pytest.mark.parametrize("kind", PENALTIES)
@pytest.mark.parametrize("antithetic", [True, False])
def test_maps_lie_within_their_error_bars(name: str, kind: str, antithetic: bool) -> None:
    """The errors told are standard errors: calibrated over many seeds."""
    problem = noisy_problem(name, kind, copies=48, antithetic=antithetic)
    found = StochasticFixedPoint(tolerance=0.05).solve(problem)
    expected = truth(name, kind).expand(48, N)
    assert set(found.status) == {Status.CONVERGED}
    assert (found.error <= 0.05).all()
    ratio = toys.relative(found.values, expected) / found.error
    assert 0.3 < float(ratio.median()) < 1.2
    assert float(ratio.quantile(0.9)) < 1.8
    assert float(ratio.max()) < 3


@pytest.mark.parametrize("kind", ["l1", "group"])
def test_maps_are_exactly_sparse(kind: str) -> None:
    expected = truth("cosine", kind)
    assert 0.2 < float((expected == 0).double().mean()) < 0.9
    problem = noisy_problem("cosine", kind, copies=8)
    found = StochasticFixedPoint(tolerance=0.01, max_evaluations=30_000).solve(problem)
    clear = (found.values != 0) == (expected != 0)
    assert float(clear.double().mean()) > 0.95


def test_a_tighter_tolerance_costs_more_and_gives_less_error() -> None:
    problem, expected = noisy_problem("cosine", "l1", copies=16), truth("cosine", "l1")
    quickest = StochasticFixedPoint(tolerance=0.5).solve(problem)
    errors, costs = [], []
    for part in (1, 2, 4):
        tolerance = float(quickest.error.max()) / part
        found = StochasticFixedPoint(tolerance=tolerance, max_evaluations=10**5).solve(problem)
        assert set(found.status) == {Status.CONVERGED}
        errors.append(float(toys.relative(found.values, expected.expand(16, N)).mean()))
        costs.append(float(found.evaluations.double().mean()))
    assert errors[0] > errors[1] > errors[2]
    assert costs[0] < costs[1] < costs[2] < 40 * costs[0]  # sixteen times, were all as it should


def test_the_limit_is_kept_and_reported() -> None:
    problem = noisy_problem("cosine", "zero", copies=3)
    found = StochasticFixedPoint(tolerance=1e-4, max_evaluations=500, draws=8).solve(problem)
    assert found.status == (Status.BUDGET_USED,) * 3
    assert found.evaluations.tolist() == [496] * 3  # whole steps of eight
    assert found.steps.tolist() == [62] * 3
    assert (found.error > 1e-4).all()
    off = toys.relative(found.values, truth("cosine", "zero").expand(3, N))
    assert (off < 3 * found.error).all()


def test_evaluations_are_the_passes_of_each_sample() -> None:
    passes, sizes = torch.zeros(3).long(), []

    def counted(x: Tensor, number: Tensor) -> Tensor:
        passes.index_add_(0, number, torch.ones_like(number))
        sizes.append(len(x))
        return SMOOTHED["cosine"][0](x)

    x = POINT * torch.tensor([[0.02], [1.0], [2.0]], dtype=F64)
    score = toys.bound(counted, x, args=torch.arange(3), sigma=SIGMA)
    passes.zero_()
    sizes.clear()
    found = StochasticFixedPoint(tolerance=0.02).solve(toys.problem(score, rho=0.5))
    passes[0] -= 1  # the pass of one sample that looks for kinks
    assert torch.equal(found.evaluations, passes)
    assert len(set(passes.tolist())) > 1
    assert sizes[-1] < sizes[1]  # finished samples leave the batch


# A batch is its samples.


def assert_same(found: Solution, expected: Solution, rows: list[int]) -> None:
    assert found.status == tuple(expected.status[row] for row in rows)
    for name in ("values", "error", "eta", "steps", "evaluations"):
        torch.testing.assert_close(
            getattr(found, name),
            getattr(expected, name)[rows],
            rtol=1e-9,
            atol=1e-9,
            equal_nan=True,
        )


@pytest.mark.parametrize("sparsity", [None, 0.7])
@pytest.mark.parametrize("chains", [1, 2])
def test_a_batch_equals_its_samples_in_any_order(sparsity: float | None, chains: int) -> None:
    net, x = toys.network((N, 16, 3)), toys.normal(4, N, seed=8)

    def solve(rows: list[int], chunk: int | None = None) -> Solution:
        score = toys.bound(
            net, x[rows], target=1, sigma=0.5, ids=[10 + row for row in rows], batch_size=chunk
        )
        problem = toys.problem(score, rho=0.7, eta=0.1, penalty=L1(1.0))
        return StochasticFixedPoint(sparsity=sparsity, chains=chains).solve(problem)

    together = solve([0, 1, 2, 3])
    assert_same(solve([3, 1, 0, 2]), together, [3, 1, 0, 2])
    assert_same(solve([2]), together, [2])
    assert_same(solve([0, 1, 2, 3], chunk=3), together, [0, 1, 2, 3])


def test_draws_depend_on_the_seed_and_the_id() -> None:
    one, other = (noisy_problem("cosine", "zero", seed=seed, copies=2) for seed in (0, 1))
    solver = StochasticFixedPoint()
    first, second = solver.solve(one), solver.solve(other)
    assert not torch.equal(first.values[0], first.values[1])
    assert not torch.equal(first.values, second.values)
    assert torch.equal(first.values, solver.solve(one).values)


# Scores that are hard, or broken.


@pytest.mark.parametrize("stiffness", [2.0, 10.0, 50.0])
def test_stiff_convex_scores_converge(stiffness: float) -> None:
    """rho M far above 1: a step of rho would diverge."""
    batch, n = 4, 8
    values = torch.linspace(0.1, stiffness, n, dtype=F64).expand(batch, n)
    hessian = toys.spectrum(values, 3)
    slope, x = toys.normal(batch, n, seed=4), toys.normal(batch, n, seed=5)
    score = toys.bound(
        toys.quadratic, x, args=(hessian, slope), sigma=0.3, antithetic=False, ids=range(batch)
    )
    found = StochasticFixedPoint().solve(toys.problem(score))
    assert set(found.status) == {Status.CONVERGED}
    expected = SOLVERS["spectral"](tolerance=1e-7, max_steps=3000).solve(
        toys.problem(replace(score, sigma=None))
    )
    assert (toys.relative(found.values, expected.values) <= 2 * found.error).all()


@pytest.mark.parametrize("limit", [0.6, 0.8])
def test_curvature_near_the_limit_converges(limit: float) -> None:
    """rho lambda up to .8, where the fixed point amplifies what enters, and is slow."""

    def score(amplitude: float) -> Callable[[Tensor], Tensor]:
        return lambda x: (x - limit * x**2 / 2 + amplitude * torch.cos(3 * x)).sum(1)

    noisy = toys.bound(score(0.02), POINT.expand(16, N), sigma=SIGMA, ids=range(16))
    found = StochasticFixedPoint(tolerance=0.05).solve(toys.problem(noisy))
    exact = toys.bound(score(0.02 * math.exp(-((3 * SIGMA) ** 2) / 2)), POINT)
    expected = SOLVERS["spectral"](tolerance=1e-7, max_steps=3000).solve(toys.problem(exact))
    assert {*expected.status, *found.status} == {Status.CONVERGED}
    true = toys.relative(found.values, expected.values.expand(16, N))
    assert (true <= 3 * found.error).all()


BROKEN: dict[str, tuple[Callable[[Tensor], Tensor], Status]] = {
    "concave": (lambda x: -x.square().sum(1), Status.UNBOUNDED),
    "quartic": (lambda x: -x.pow(4).sum(1), Status.UNBOUNDED),
    "no gradient": (lambda x: torch.where(x < 9, x, (x - 9).sqrt()).sum(1), Status.NON_FINITE),
    "no gradient there": (
        lambda x: -x.sum(1) + torch.where(x < 2, (2 - x).sqrt(), 0).sum(1) / 9,
        Status.NON_FINITE,
    ),
}


@pytest.mark.parametrize("chains", [1, 2])
def test_broken_samples_are_reported_and_disturb_no_other(chains: int) -> None:
    names = list(BROKEN)

    def mixed(x: Tensor, kind: Tensor) -> Tensor:
        found = x.new_zeros(len(x))
        for number in kind.unique().tolist():
            rows = (kind == number).nonzero()[:, 0]
            function = BROKEN[names[number]][0] if number < len(names) else SMOOTHED["cosine"][0]
            found = found.index_put((rows,), function(x[rows]))
        return found

    good = len(names)
    kinds = torch.tensor([good, 0, 1, good, 2, 3, good])

    def solve(rows: Tensor) -> Solution:
        score = toys.bound(
            mixed,
            POINT.expand(len(rows), N).clamp(-1, 1),
            args=kinds[rows],
            sigma=SIGMA,
            ids=rows.tolist(),
        )
        return StochasticFixedPoint(chains=chains).solve(toys.problem(score, rho=0.9))

    together = solve(torch.arange(7))
    expected = [*(status for _, status in BROKEN.values()), Status.CONVERGED]
    assert together.status == tuple(expected[kind] for kind in kinds.tolist())
    for row in range(7):
        assert_same(solve(torch.tensor([row])), together, [row])
    ok = kinds == good
    assert torch.isfinite(together.values[ok]).all()
    assert together.values[kinds == 2].isnan().all()  # no map is better than a wrong one
    assert not (together.error[~ok] < torch.inf).any()


# Two solutions.


def double_well(x: Tensor) -> Tensor:
    """Two wells beside the origin, which lies between them."""
    return -2 * torch.exp(-((x - 1.5) ** 2)).sum(1) - 2 * torch.exp(-((x + 1.5) ** 2)).sum(1)


def test_two_chains_see_two_solutions() -> None:
    x = torch.zeros(64, 1, dtype=F64)
    # Antithetic draws would balance on the ridge for ever.
    score = toys.bound(double_well, x, sigma=0.4, ids=range(64), antithetic=False)
    problem = toys.problem(score, rho=3.0)
    one = StochasticFixedPoint().solve(problem)
    ends = [round(float(u)) for u in one.values]
    assert min(ends.count(-1), ends.count(1)) >= 16  # which one is up to the noise
    assert one.status.count(Status.CONVERGED) >= 56
    two = StochasticFixedPoint(chains=2).solve(problem)
    # Of 512 chains 8 % leave the other solution by their first noise; half would by chance.
    assert two.status.count(Status.BISTABLE) >= 50
    split = torch.tensor([status is Status.BISTABLE for status in two.status])
    assert (two.error[split] > 0.5).all()  # neither is to be trusted


@pytest.mark.parametrize("name", SMOOTHED)
@pytest.mark.parametrize("kind", PENALTIES)
def test_two_chains_agree_on_one_solution(name: str, kind: str) -> None:
    problem = noisy_problem(name, kind, copies=32)
    one, two = (StochasticFixedPoint(chains=chains).solve(problem) for chains in (1, 2))
    assert two.status.count(Status.BISTABLE) <= 2
    assert two.status.count(Status.CONVERGED) >= 30
    assert (two.evaluations >= one.evaluations).all()
    expected = truth(name, kind).expand(32, N)
    ratio = toys.relative(two.values, expected) / two.error
    assert float(ratio.quantile(0.9)) < 2
    better = toys.relative(two.values, expected).mean() / toys.relative(one.values, expected).mean()
    assert better < 0.9  # both chains' draws enter the map


@pytest.mark.parametrize(("rho", "beyond"), [(0.5, False), (0.9, False), (2.5, True)])
def test_concavity_beyond_the_limit_is_reported(rho: float, beyond: bool) -> None:
    """The largest negative curvature of the smoothed score is about 1."""
    score = toys.bound(
        lambda x: torch.cos(x).sum(1) / math.exp(-(SIGMA**2) / 2),
        torch.full((12, 30), 0.4, dtype=F64),
        sigma=SIGMA,
        ids=range(12),
    )
    found = StochasticFixedPoint(max_evaluations=1024).solve(toys.problem(score, rho=rho))
    assert found.status.count(Status.NOT_UNIQUE) >= (10 if beyond else 0)
    assert found.status.count(Status.CONVERGED) >= (0 if beyond else 12)


# Few entries.


def waves(entries: int, seed: int) -> tuple[MoreauProblem, Tensor]:
    """Forty runs on one sample of few entries, and its exact solution."""
    frequency = 1.5 * toys.normal(entries, 6, seed=seed)
    phase, weight = toys.normal(6, seed=seed + 1), toys.normal(6, seed=seed + 2) / 2
    damped = weight * torch.exp(-(SIGMA**2) * frequency.square().sum(0) / 2)
    x = toys.normal(1, entries, seed=seed + 3)

    def score(weights: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda at: (torch.cos(at @ frequency + phase) * weights).sum(1)

    noisy = toys.bound(score(weight), x.expand(40, -1), sigma=SIGMA, ids=range(40))
    exact = toys.problem(toys.bound(score(damped), x), rho=0.2)
    return toys.problem(noisy, rho=0.2), SOLVERS["spectral"](tolerance=1e-8).solve(exact).values


def test_errors_of_few_entries_are_not_too_small() -> None:
    """One or two directions carry the error: its own estimate is uncertain, and wider for it."""
    ratios = []
    for entries, seed in ((1, 0), (1, 10), (2, 20), (2, 30), (3, 40), (4, 0)):
        problem, expected = waves(entries, seed)
        found = StochasticFixedPoint(tolerance=0.2).solve(problem)
        ratios.append(toys.relative(found.values, expected.expand_as(found.values)) / found.error)
    ratio = torch.cat(ratios)
    assert float((ratio <= 2).double().mean()) > 0.93
    assert float(ratio.max()) < 5


def test_equal_draws_are_reported() -> None:
    x = toys.normal(2, N, seed=1)
    slope = toys.normal(N, seed=2)
    score = toys.bound(lambda x: x @ slope, x, sigma=SIGMA)
    for chains in (1, 2):
        found = StochasticFixedPoint(chains=chains).solve(toys.problem(score))
        assert found.status == (Status.UNVARIED,) * 2
        assert found.error.tolist() == [0.0, 0.0]
        torch.testing.assert_close(found.values, -slope.expand(2, N))


# Settings.


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tolerance": 0.0}, "tolerance: expected a number > 0, got 0.0"),
        ({"tolerance": math.nan}, "tolerance: expected a number > 0"),
        ({"draws": 0}, "draws: expected an even number >= 2, got 0"),
        ({"draws": 7}, "draws: expected an even number >= 2, got 7"),
        ({"draws": 32, "max_evaluations": 100}, r"at least 4 steps of 32 .* \(130\), got 100"),
        ({"chains": 3}, "chains: expected 1 or 2, got 3"),
    ],
)
def test_bad_settings_are_reported(given: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StochasticFixedPoint(**given)


def test_samples_of_few_and_of_many_real_entries_are_solved_as_alone() -> None:
    """The number of blocks follows a sample's own entries, whatever else is in the batch."""
    model, x = toys.network((96, 8, 3)), toys.normal(3, 96, seed=1)
    mask = torch.ones(3, 96, dtype=torch.bool)
    mask[1, 40:] = False
    explainer = mg.MoreauGrad(model, max_evaluations=512)
    whole = explainer.explain(x, 1, mask=mask, ids=[0, 1, 2])
    for i in range(3):
        alone = explainer.explain(x[i : i + 1], 1, mask=mask[i : i + 1], ids=[i])
        torch.testing.assert_close(whole.maps[i], alone.maps[0])
        torch.testing.assert_close(whole.error[i], alone.error[0])
        assert whole.status[i] == alone.status[0]
        assert int(whole.evaluations[i]) == int(alone.evaluations[0])


def test_a_restart_within_the_last_block_leaves_something_to_average() -> None:
    blocks = Blocks(torch.zeros(1, 3))
    for number in range(17):
        blocks.add(*torch.full((2, 1, 3), float(number)))
    blocks.restart(torch.tensor([True]))
    blocks.add(*torch.ones(2, 1, 3))
    tail = blocks.tails()
    assert tail.mean.isfinite().all()
    assert tail.terms.isfinite().all()


def test_a_start_near_a_stationary_point_is_left() -> None:
    x = torch.full((1, 3), torch.pi / 2 + 1e-9, dtype=torch.float64)
    problem = toys.problem(toys.bound(lambda x: x.sin().sum(1), x, sigma=1e-6), rho=2.0)
    found = StochasticFixedPoint().solve(problem)
    assert found.status[0] is not Status.UNBOUNDED
    assert float(found.values.abs().min()) > 1

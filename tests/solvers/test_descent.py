from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import oracles
import toys
from moreaugrad.penalties import L1, GroupL2, Zero
from moreaugrad.solvers import SOLVERS, Descent, MoreauProblem, Status
from moreaugrad.solvers.sparsity import solve_for_sparsity

F64 = torch.float64
every_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
PENALTIES = {"zero": Zero(), "l1": L1(1.0), "group": GroupL2(1.0, size=2)}


def quadratic_problem(
    kind: str, n: int, seed: int, batch: int = 12, dtype: torch.dtype = F64, stiffest: float = 50.0
) -> MoreauProblem:
    """Curvatures from rho lambda = .8 to rho M = `stiffest`, rho over four orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=F64)

    rho, lowest = 10 ** (4 * uniform(batch) - 2), -0.8 * uniform(batch)
    highest = 10 ** (uniform(batch) * (torch.tensor(stiffest, dtype=F64).log10() + 2) - 2)
    values = lowest[:, None] + (highest - lowest)[:, None] * uniform(batch, n)
    values[:, 0], values[:, -1] = lowest, highest
    hessian = (toys.spectrum(values, seed) / rho[:, None, None]).to(dtype)
    slope, x = (toys.normal(batch, n, seed=seed + i).to(dtype) for i in (1, 2))
    score, penalty = toys.bound(toys.quadratic, x, args=(hessian, slope)), PENALTIES[kind]
    eta = torch.zeros(batch, dtype=dtype)
    if penalty.sparse:
        eta = 0.3 * penalty.magnitudes(score.value_and_grad()[1]).amax(1)
    return toys.problem(score, rho=rho.to(dtype), eta=eta, penalty=penalty)


@every_solver
@pytest.mark.parametrize("kind", PENALTIES)
@settings(max_examples=8, deadline=None)
@given(
    n=st.sampled_from([2, 5, 24]),
    seed=st.integers(0, 10_000),
    tolerance=st.sampled_from([0.1, 1e-2, 1e-3]),
)
def test_the_stated_error_bounds_the_true_one(
    solver: type[Descent], kind: str, n: int, seed: int, tolerance: float
) -> None:
    problem = quadratic_problem(kind, n, seed)
    found = solver(tolerance=tolerance, max_steps=4000).solve(problem)
    truth = SOLVERS["spectral"](tolerance=1e-7, max_steps=4000).solve(problem)
    assert set(truth.status) == {Status.CONVERGED}
    # Rarely, an oscillation is taken for a kink.
    done = torch.tensor([status is Status.CONVERGED for status in found.status])
    assert done.double().mean() > 0.8
    assert (found.error <= tolerance)[done].all()
    size = truth.values.norm(dim=1)
    true = (found.values - truth.values).norm(dim=1) / torch.where(size == 0, 1.0, size)
    # Curvatures are those seen along the way, so that the bound is an estimate.
    assert (true <= 1.5 * found.error + 2e-7)[done].all()


def test_iterates_that_cycle_are_no_kink() -> None:
    """Steps that may raise the objective return to where they were, time and again."""
    problem = quadratic_problem("l1", 2, 99)
    found, exact = (
        SOLVERS[name](tolerance=1e-7, max_steps=4000).solve(problem)
        for name in ("spectral", "accelerated")
    )
    assert set(found.status) == {Status.CONVERGED}
    torch.testing.assert_close(found.values, exact.values, atol=1e-6, rtol=1e-5)


@every_solver
@pytest.mark.parametrize("kind", PENALTIES)
@pytest.mark.parametrize("seed", range(3))
def test_smooth_scores_converge_in_single_precision(
    solver: type[Descent], kind: str, seed: int
) -> None:
    """Rounding of the objective is not mistaken for a kink, nor for an endless descent."""
    problem = quadratic_problem(kind, 8, seed, batch=64, dtype=torch.float32, stiffest=10.0)
    found = solver(tolerance=1e-3, max_steps=2000).solve(problem)
    assert set(found.status) == {Status.CONVERGED}
    exact = quadratic_problem(kind, 8, seed, batch=64, stiffest=10.0)
    truth = SOLVERS["spectral"](tolerance=1e-7, max_steps=4000).solve(exact).values
    size = truth.norm(dim=1)
    off = (found.values - truth).norm(dim=1) / torch.where(size == 0, 1.0, size)
    assert (off <= 2e-3).all()


def smooth_problem(name: str, activation: type[nn.Module], seed: int) -> MoreauProblem:
    """Five samples of a random network, a logit of three, rho a third of the safe one."""
    net, x = toys.network((12, 16, 16, 3), activation, seed, gain=1.5), toys.normal(5, 12, seed=7)
    score = toys.bound(net, x, target=seed % 3)
    hessians = [torch.autograd.functional.hessian(lambda v: net(v)[seed % 3], row) for row in x]
    rho = 0.3 / max(float(torch.linalg.eigvalsh(h).abs().max()) for h in hessians)
    penalty, eta = PENALTIES[name], torch.zeros(5, dtype=F64)
    if penalty.sparse:
        eta = 0.5 * penalty.magnitudes(score.value_and_grad()[1]).amax(1)
    return toys.problem(score, rho=rho, eta=eta, penalty=penalty)


@every_solver
@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("activation", [nn.Tanh, nn.Softplus, nn.GELU])
def test_solutions_are_optimal_on_smooth_networks(
    solver: type[Descent], name: str, activation: type[nn.Module]
) -> None:
    """0 lies in grad f(x + u) + u / rho + eta dR(u), read off the definition."""
    for seed in range(3):
        problem = smooth_problem(name, activation, seed)
        found = solver(tolerance=1e-7, max_steps=4000).solve(problem)
        assert set(found.status) == {Status.CONVERGED}
        for i in range(5):
            u, eta, rho = found.values[i], float(problem.eta[i]), float(problem.rho[i])
            point = (problem.score.origin[i] + u).requires_grad_()
            value = problem.score.model(point[None])[0, seed % 3]
            (gradient,) = torch.autograd.grad(value, point)
            slope, slack = gradient + u / rho, 1e-6 * float(u.norm()) / rho + 1e-9
            groups = [[j] for j in range(12)]
            if name == "group":
                groups = oracles.groups_of(oracles.group_labels((12,), (2,), "joint"))
            for entries in groups:
                if float(u[entries].norm()) == 0:
                    assert float(slope[entries].norm()) <= eta + slack
                else:
                    pull = eta * u[entries] / u[entries].norm()
                    assert float((slope[entries] + pull).norm()) <= slack
        assert name == "zero" or 0 < float((found.values == 0).double().mean()) < 1


@pytest.mark.parametrize("name", PENALTIES)
def test_every_solver_agrees(name: str) -> None:
    problem = smooth_problem(name, nn.Tanh, 1)
    solutions = [cls(tolerance=1e-6, max_steps=4000).solve(problem) for cls in SOLVERS.values()]
    for found in solutions[1:]:
        assert (toys.relative(found.values, solutions[0].values) <= 2e-6).all()
        assert torch.equal(found.values == 0, solutions[0].values == 0)


# Samples that fail, beside samples that do not.

KINDS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "convex": (lambda x: x.square().sum(1) / 2 + x.sum(1), 0.4),
    "concave": (lambda x: -x.square().sum(1), 0.4),
    "quartic": (lambda x: -x.pow(4).sum(1), 0.4),
    "no gradient here": (lambda x: x.square().sum(1).sqrt(), 0.0),
    "no gradient there": (
        lambda x: -2 * x.sum(1) + torch.where(x < 1, (1 - x).sqrt(), 0).sum(1),
        0.4,
    ),
    "kink": (lambda x: x.abs().sum(1), 0.4),
    "stiff": (lambda x: (x.square() * torch.logspace(-1, 5, 8, dtype=F64)).sum(1), 0.4),
    "wavy": (lambda x: torch.sin(x).sum(1), 0.9),
}
EXPECTED = {
    "convex": Status.CONVERGED,
    "concave": Status.UNBOUNDED,
    "quartic": Status.UNBOUNDED,
    "no gradient here": Status.NON_FINITE,
    "no gradient there": Status.NON_FINITE,
    "kink": Status.STALLED,
    "stiff": Status.BUDGET_USED,
    "wavy": Status.CONVERGED,
}


def mixed(x: Tensor, kind: Tensor) -> Tensor:
    """Each sample's own score; a broken one touches no other."""
    found = x.new_zeros(len(x))
    for number, (function, _) in enumerate(KINDS.values()):
        rows = (kind == number).nonzero()[:, 0]
        found = found.index_put((rows,), function(x[rows]))
    return found


def mixed_problem(kinds: list[str]) -> MoreauProblem:
    names = list(KINDS)
    x = torch.tensor([[KINDS[kind][1]] * 8 for kind in kinds], dtype=F64)
    number = torch.tensor([names.index(kind) for kind in kinds])
    return toys.problem(toys.bound(mixed, x, args=number), rho=0.9)


@every_solver
def test_every_sample_has_its_own_status(solver: type[Descent]) -> None:
    method = solver(tolerance=1e-6, max_steps=110)
    kinds = [*KINDS, *reversed(KINDS)]
    together = method.solve(mixed_problem(kinds))
    assert dict(zip(kinds, together.status, strict=True)) == EXPECTED
    assert together.status[::-1] == together.status
    for i, kind in enumerate(kinds):
        alone = method.solve(mixed_problem([kind]))
        assert alone.status == together.status[i : i + 1]
        assert alone.steps[0] == together.steps[i]
        torch.testing.assert_close(alone.values[0], together.values[i], equal_nan=True)
    finite = [status is not Status.NON_FINITE for status in together.status]
    assert torch.isfinite(together.values).all(1).tolist() == finite


@every_solver
def test_a_kinks_lowest_point_is_kept(solver: type[Descent]) -> None:
    """f = |x| near 0: no step lowers the objective, and the best point is next to the kink."""
    found = solver(tolerance=1e-6, max_steps=300).solve(mixed_problem(["kink"]))
    assert found.status == (Status.STALLED,)
    torch.testing.assert_close(found.values, torch.full((1, 8), -0.4, dtype=F64), rtol=0, atol=0.02)
    assert found.error.isnan().all()  # and nobody knows how near


def test_errors_of_samples_that_are_not_done_are_reported_or_unknown() -> None:
    """An error above one says no more than that the map is not known."""
    for solver in SOLVERS.values():
        kinds = ["kink", "stiff", "concave", "wavy"]
        found = solver(tolerance=1e-9, max_steps=60).solve(mixed_problem(kinds))
        assert not (found.error > 1).any()
        assert found.error[[0, 2]].isnan().all()


WELLS: dict[str, tuple[Callable[[Tensor], Tensor], float, Status]] = {
    # (score, rho, status): the largest negative curvature of each is 1.
    "cosine, below": (lambda x: torch.cos(x).sum(1), 0.9, Status.CONVERGED),
    "cosine, beyond": (lambda x: torch.cos(x).sum(1), 4.0, Status.NOT_UNIQUE),
    "gaussian, beyond": (lambda x: torch.exp(-x.square() / 2).sum(1), 4.0, Status.NOT_UNIQUE),
    "convex, long": (lambda x: x.square().sum(1) / 2, 50.0, Status.CONVERGED),
}


@every_solver
@pytest.mark.parametrize("name", WELLS)
def test_concavity_beyond_the_limit_is_reported(solver: type[Descent], name: str) -> None:
    """rho lambda >= 1 on the way: the point is stationary, but not known to be the only one."""
    score, rho, expected = WELLS[name]
    x = torch.full((2, 3), 0.1, dtype=F64)
    found = solver(tolerance=1e-6).solve(toys.problem(toys.bound(score, x), rho=rho))
    assert set(found.status) == {expected}
    assert (found.error <= 1e-6).all()
    assert expected.ok is (expected is Status.CONVERGED)
    assert not expected.failed


# Cost, limits and starts.


class Counted(nn.Module):
    """Counts the passes of every sample, told by its number."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.net, self.passes = toys.network((6, 12, 3), gain=2.0), torch.zeros(batch).long()
        self.sizes: list[int] = []

    def forward(self, x: Tensor, number: Tensor) -> Tensor:
        self.passes.index_add_(0, number, torch.ones_like(number))
        self.sizes.append(len(x))
        return self.net(x)


@every_solver
@pytest.mark.parametrize("samples", [0, 3])
def test_evaluations_are_the_passes_of_each_sample(solver: type[Descent], samples: int) -> None:
    batch = 4
    model = Counted(batch).eval()
    x = toys.normal(batch, 6, seed=4) * torch.tensor([[0.1], [1.0], [3.0], [0.5]])
    score = toys.bound(
        model, x, args=torch.arange(batch), sigma=0.2 * (samples > 0), samples=max(1, samples)
    )
    model.passes.zero_()
    model.sizes.clear()
    found = solver(tolerance=1e-5).solve(toys.problem(score, rho=0.8))
    assert set(found.status) == {Status.CONVERGED}
    assert torch.equal(found.evaluations, model.passes)
    assert len(set(found.evaluations.tolist())) > 1
    assert model.sizes[-1] < model.sizes[0]  # finished samples leave the batch
    model.passes.zero_()
    problem = toys.problem(score, rho=0.8, penalty=L1(1.0))
    refined = solve_for_sparsity(solver(tolerance=1e-5), problem, 0.5)
    assert torch.equal(refined.evaluations, model.passes)
    assert (refined.evaluations > 2 * max(1, samples)).all()


@every_solver
def test_limits_are_kept(solver: type[Descent]) -> None:
    problem = quadratic_problem("l1", 5, seed=1, batch=3)
    by_steps = solver(tolerance=1e-9, max_steps=4).solve(problem)
    assert by_steps.status == (Status.BUDGET_USED,) * 3
    assert by_steps.steps.tolist() == [4, 4, 4]
    allowed = torch.tensor([1, 6, 9])
    by_evaluations = solver(tolerance=1e-9).solve(problem, allowed=allowed)
    assert by_evaluations.status == (Status.BUDGET_USED,) * 3
    per_step = 1 + solver.extrapolates
    assert by_evaluations.evaluations.tolist() == [
        1 + (limit - 1) // per_step * per_step for limit in allowed.tolist()
    ]
    assert not (by_evaluations.error <= 1e-9).any()


@every_solver
def test_a_start_at_the_solution_ends_at_once(solver: type[Descent]) -> None:
    problem = quadratic_problem("group", 6, seed=2)
    solved = solver(tolerance=1e-6, max_steps=4000).solve(problem)
    again = solver(tolerance=1e-4, max_steps=4000).solve(problem, start=solved.values)
    assert set(again.status) == {Status.CONVERGED}
    assert again.steps.max() == 0
    assert torch.equal(again.values, solved.values)
    elsewhere = solver(tolerance=1e-6, max_steps=4000).solve(problem, start=solved.values + 1)
    torch.testing.assert_close(elsewhere.values, solved.values, rtol=1e-4, atol=1e-4)


@every_solver
def test_a_weight_above_all_gradients_gives_the_zero_map(solver: type[Descent]) -> None:
    problem = smooth_problem("l1", nn.Tanh, 0)
    steepest = problem.score.value_and_grad()[1].abs().amax(1)
    for factor, zero in ((1.0, True), (0.999, False)):
        at = toys.problem(problem.score, rho=problem.rho, eta=factor * steepest, penalty=L1(1.0))
        found = solver(tolerance=1e-6).solve(at)
        assert set(found.status) == {Status.CONVERGED}
        assert ((found.values == 0).all(1) == zero).all()
        assert not zero or found.error.tolist() == [0.0] * 5
        assert not zero or found.evaluations.tolist() == [1] * 5


@pytest.mark.parametrize(
    "given", [{"tolerance": 0.0}, {"tolerance": float("nan")}, {"max_steps": 0}]
)
def test_bad_settings_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(given))}: expected"):
        SOLVERS["spectral"](**given)


@every_solver
def test_a_start_near_a_stationary_point_is_left(solver: type[Descent]) -> None:
    """The first step is tiny there, and the solution is many times farther."""
    x = torch.full((1, 3), torch.pi / 2 + 1e-9, dtype=F64)
    problem = toys.problem(toys.bound(lambda x: x.sin().sum(1), x), rho=2.0)
    found = solver(tolerance=1e-6, max_steps=300).solve(problem)
    assert found.status == (Status.NOT_UNIQUE,)
    assert float(found.values.abs().min()) > 1

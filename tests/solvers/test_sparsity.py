import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import moreaugrad as mg
import toys
from moreaugrad.penalties import L1, GroupL2, Penalty, SquaredL2
from moreaugrad.solvers import SOLVERS, MoreauProblem, Solution, Status, StochasticFixedPoint
from moreaugrad.solvers.sparsity import eta_for, solve_for_sparsity


@settings(max_examples=60, deadline=None)
@given(zeros=st.floats(0, 1), size=st.integers(1, 60), seed=st.integers(0, 99))
def test_eta_for_is_the_smallest_that_gives_the_share(zeros: float, size: int, seed: int) -> None:
    u = torch.randn(2, size, generator=torch.Generator().manual_seed(seed))
    share = (L1(eta_for(u.abs(), zeros)).prox(u, 1.0) == 0).double().mean(1)
    most = zeros if zeros == 1 else min(zeros, 1 - 1 / size)  # at least one entry stays
    assert (share >= most - 1e-9).all()
    assert (share < zeros + 1 / size + 1e-9).all()  # one entry less would be too few


def test_eta_for_at_its_ends() -> None:
    u = torch.tensor([[1.0, 2, 3, 4, 5, 6, 7, 8, 9, 10]])
    assert eta_for(u, 0.0).item() == 0
    assert eta_for(u, 0.9).item() == pytest.approx(9)  # .9 * 10 is a little more than nine
    assert eta_for(u, 0.999).item() == pytest.approx(9)  # a map of a few groups is not to be empty
    assert eta_for(u, 1.0).item() == pytest.approx(10)
    for bad in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="from 0 to 1"):
            eta_for(u, bad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_entries_at_the_top_are_all_kept(dtype: torch.dtype) -> None:
    """They cannot be told apart, and without them the map would be empty."""
    rows = torch.tensor(
        [[3.0, 1, 3, 2, 3, 0], [5, 5, 5, 5, 5, 5], [0, 0, 0, 0, 0, 0], [4, 3, 2, 2, 2, 1]],
        dtype=dtype,
    )
    found = eta_for(rows, 0.8)
    kept = L1(found).prox(rows, 1.0) != 0
    assert kept.tolist() == [
        [True, False, True, False, True, False], [True] * 6, [False] * 6, [True] + [False] * 5,
    ]  # fmt: skip
    assert found[3].item() == pytest.approx(3)
    assert not (L1(eta_for(rows, 1.0)).prox(rows, 1.0) != 0).any()


def test_a_repeated_token_has_a_map() -> None:
    weights = torch.tensor([[2.0, 2, 2, 1, 1, 1]])
    model = torch.nn.Linear(6, 2)
    model.weight.data = torch.cat([weights, -weights])
    result = mg.SparseMoreauGrad(model, sigma=0.0, sparsity=0.8).explain(torch.ones(1, 6), 0)
    assert result.maps[0].ne(0).tolist() == [True] * 3 + [False] * 3


@pytest.mark.parametrize("seed", [145, 146])
def test_eta_is_found_where_its_own_quantile_misses_it(seed: int) -> None:
    """Of curved scores, on which the quantile of the gradient at the solution cycles."""
    generator = torch.Generator().manual_seed(seed)
    size = int(torch.randint(5, 30, (1,), generator=generator))
    first, second = (
        torch.randn(shape, generator=generator, dtype=torch.float64) * scale
        for shape, scale in (((8, size), 1.2), ((3, 8), 2.0))
    )

    def model(x: Tensor) -> Tensor:
        return torch.tanh(x @ first.T) @ second.T

    x = torch.randn(2, size, generator=generator, dtype=torch.float64)
    explainer = mg.SparseMoreauGrad(model, sigma=0.0, rho=0.05, sparsity=0.5)
    result = explainer.explain(x)
    assert ((result.zeros - 0.5).abs() <= 0.155).all()
    alone = [explainer.explain(x[row : row + 1]) for row in range(2)]
    torch.testing.assert_close(result.maps, torch.cat([each.maps for each in alone]))


PENALTIES: dict[str, Penalty] = {"l1": L1(1.0), "group": GroupL2(1.0, size=3)}


def smooth_problem(penalty: Penalty, sigma: float, rho: float = 0.4) -> MoreauProblem:
    """Four samples of a random smooth network with 60 inputs."""
    net, x = toys.network((60, 40, 3)), toys.normal(4, 60, seed=5)
    return toys.problem(toys.bound(net, x, target=1, sigma=sigma), rho=rho, penalty=penalty)


def share_of_zeros(u: Tensor, penalty: Penalty) -> Tensor:
    return (penalty.magnitudes(u) == 0).double().mean(1)


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("wanted", [0.25, 0.5, 0.9, 0.97])
def test_a_deterministic_score_gets_the_wanted_share(name: str, wanted: float) -> None:
    penalty = PENALTIES[name]
    problem = smooth_problem(penalty, sigma=0.0)
    found = solve_for_sparsity(SOLVERS["spectral"](), problem, wanted)
    assert set(found.status) == {Status.CONVERGED}
    groups = penalty.magnitudes(found.values[:1]).shape[1]
    assert ((share_of_zeros(found.values, penalty) - wanted).abs() <= 0.005 + 1 / groups).all()
    # The map is the solution with the eta that is reported.
    tight = SOLVERS["spectral"](tolerance=1e-9).solve(
        toys.problem(problem.score, rho=0.4, eta=found.eta, penalty=penalty)
    )
    assert (toys.relative(found.values, tight.values) <= found.error + 1e-12).all()


@pytest.mark.parametrize(
    ("name", "wanted", "chains"),
    [("l1", 0.5, 2), ("l1", 0.9, 1), ("group", 0.5, 1), ("group", 0.7, 2)],
)
def test_a_noisy_score_gets_the_wanted_share(name: str, wanted: float, chains: int) -> None:
    penalty = PENALTIES[name]
    problem = smooth_problem(penalty, sigma=0.3)
    solver = StochasticFixedPoint(tolerance=0.1, sparsity=wanted, chains=chains)
    found = solver.solve(problem)
    assert set(found.status) == {Status.CONVERGED}
    groups = penalty.magnitudes(found.values[:1]).shape[1]
    assert ((share_of_zeros(found.values, penalty) - wanted).abs() <= 0.5 / groups).all()
    given_eta = StochasticFixedPoint(tolerance=0.05).solve(
        toys.problem(problem.score, rho=0.4, eta=found.eta, penalty=penalty)
    )
    assert (
        toys.relative(found.values, given_eta.values) <= 3 * (found.error + given_eta.error)
    ).all()


def test_refinements_keep_the_limit() -> None:
    problem = smooth_problem(PENALTIES["l1"], sigma=0.0)
    costs = solve_for_sparsity(SOLVERS["spectral"](), problem, 0.9).evaluations
    for allowed in (1, 5, 8, int(costs.max()) - 1, int(costs.max()) + 1):
        solver = SOLVERS["spectral"](max_evaluations=allowed)
        found = solve_for_sparsity(solver, problem, 0.9)
        assert int(found.evaluations.max()) <= max(allowed, 2)
    assert torch.equal(found.evaluations, costs)


@pytest.mark.parametrize("noisy", [True, False])
def test_a_penalty_that_thresholds_nothing_is_reported(noisy: bool) -> None:
    problem = toys.problem(
        toys.bound(toys.network((6, 3)), toys.normal(1, 6, seed=0), sigma=0.1 * noisy),
        penalty=SquaredL2(1.0),
    )

    def solve() -> Solution:
        if noisy:
            return StochasticFixedPoint(sparsity=0.5).solve(problem)
        return solve_for_sparsity(SOLVERS["spectral"](), problem, 0.5)

    with pytest.raises(TypeError, match=r"sparsity: expected .*got SquaredL2"):
        solve()


def test_quantiles_leave_padding_out() -> None:
    magnitudes = torch.tensor([[4.0, 0.0, 1.0, 3.0, 2.0, 0.0], [0.0, 5.0, 0.0, 0.0, 0.0, 0.0]])
    counts = torch.tensor([4, 1])
    for zeros, expected in [(0.0, [0, 0]), (0.5, [2, 0]), (0.75, [3, 0]), (0.9, [3, 0])]:
        assert eta_for(magnitudes, zeros, counts).tolist() == pytest.approx(expected)
    assert eta_for(magnitudes, 1.0, counts).tolist() == pytest.approx([4, 5])

"""Block means of a batch against a literal computation for each sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, t
from tests import toys
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from moreaugrad.penalties import L1
from moreaugrad.solvers import StochasticFixedPoint
from moreaugrad.solvers.blocks import MOST, MOST_OF_FEW, Blocks, sequence_error
from moreaugrad.solvers.degrees import student_factor

ENTRIES = 6


def thresholded(means: Tensor) -> Tensor:
    return means.sign() * (means.abs() - 0.3).clamp_min(0)


def literal(terms: list[Tensor], restart: int, most: int) -> tuple[int, Tensor, Tensor]:
    """First term, mean and error of the tail of one sample's sequence `[n]`, restarted there."""
    length = 1
    while len(terms) > length * most:
        length *= 2
    parts = [terms[at : at + length] for at in range(0, len(terms), length)]
    first = min(-(-restart // length), len(parts) - 1)
    parts = parts[first:]
    whole = [torch.stack(part).mean(0) for part in parts if len(part) == length]
    means = torch.stack(whole) if whole else terms[0].new_empty(0, ENTRIES)
    dropped = 0
    if len(means) >= 4:
        options = range(len(means) // 2 + 1)
        spread = [float(means[d:].var(0).sum()) / (len(means) - d) for d in options]
        dropped = spread.index(min(spread))
    rest = torch.cat([torch.stack(part) for part in parts[dropped:]])
    return length * (first + dropped), rest.mean(0), literal_error(means[dropped:])


def literal_error(means: Tensor) -> Tensor:
    """The jackknife of `thresholded`, one deleted block after the other."""
    found: list[Tensor] = []
    finest = len(means)
    while len(means) >= 4:
        count = len(means)
        maps = torch.stack([
            thresholded(torch.cat([means[:j], means[j + 1 :]]).mean(0)) for j in range(count)
        ])  # fmt: skip
        apart = (maps - maps.mean(0)) * ((count - 1) / count) ** 0.5
        covariance = apart.T @ apart
        wider = 1.0
        if float(apart.norm()) > 0:
            values = torch.linalg.eigvalsh(covariance).clamp_min(0)
            inverse = float(values.square().sum() / values.sum() ** 2) - 1 / (count - 1)
            degrees = (count - 1) / max(inverse, 1e-6)
            wider = float(t.ppf(0.975, degrees) / norm.ppf(0.975))
        spread = wider * apart.norm()
        if finest > 16 and len(found) == 1 and spread < 0.8 * found[0]:
            found.pop()
        found.append(spread)
        means = means[count % 2 :]
        means = (means[::2] + means[1::2]) / 2
    return torch.stack(found).amax() if found else torch.tensor(torch.inf).double()


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 90),
    st.lists(st.integers(0, 90), min_size=1, max_size=4),
    st.sampled_from([MOST, MOST_OF_FEW]),
    st.sampled_from(["noise", "drift", "alternating"]),
    st.integers(0, 99),
)
def test_a_batch_has_the_tails_and_errors_of_its_samples(
    steps: int, restarts: list[int], most: int, kind: str, seed: int
) -> None:
    batch = len(restarts)
    noise = toys.normal(steps, batch, ENTRIES, seed=seed)
    place = torch.arange(steps, dtype=noise.dtype)[:, None, None]
    moves = {"noise": 0 * place, "drift": 5 * 0.8**place, "alternating": (-1) ** place}
    terms = noise + moves[kind]
    blocks = Blocks(terms[0], most)
    at = [[0] for _ in restarts]
    for step, term in enumerate(terms):
        cut = torch.tensor([step == restart for restart in restarts])
        before = len(blocks._sums) * blocks._length
        blocks.restart(cut)
        for row in cut.nonzero()[:, 0].tolist():
            at[row].append(before)
        blocks.add(term, -term)
    tails = blocks.tails()
    errors = sequence_error(tails, thresholded)
    for row in range(batch):
        start, mean, error = literal(list(terms[:, row]), at[row][-1], most)
        assert int(tails.start[row]) == start
        torch.testing.assert_close(tails.mean[row], torch.stack([mean, -mean]))
        torch.testing.assert_close(errors[row], error, rtol=1e-5, atol=1e-12)
    assert tails.stop == steps


@pytest.mark.parametrize("count", [2, 3, 5, 16, 32])
def test_students_factor_is_the_ratio_of_the_quantiles(count: int) -> None:
    """Rows along one direction, of which 1 / (J - 1) is taken for chance."""
    rows = torch.zeros(count, 1, 400, dtype=torch.float64)
    rows[:, 0, 0] = torch.linspace(-1, 1, count)
    free = count - 1
    degrees = free / (1 - 1 / free) if free > 1 else 1
    expected = t.ppf(0.975, degrees) / norm.ppf(0.975)
    found = student_factor(rows, torch.tensor([count]))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def solved(batch: int, watched: Callable[[], Any]) -> tuple[Any, int]:
    problem = toys.problem(toys.bound(toys.network((96, 8, 3)), toys.normal(1, 96, seed=1).expand(
        batch, -1), sigma=0.5), penalty=L1(1.0))  # fmt: skip
    solver = StochasticFixedPoint(tolerance=1e-9, max_evaluations=2200, sparsity=0.9)
    with watched() as seen:
        found = solver.solve(problem)
    return seen, int(found.steps[0])


class Operations(TorchDispatchMode):
    """Counts torch's operations."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = Counter[str]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.seen[str(func)] += 1
        return func(*args, **(kwargs or {}))


def test_the_calls_of_a_step_do_not_depend_on_the_batch() -> None:
    (few, steps), (many, same) = solved(3, Operations), solved(9, Operations)
    assert steps == same
    assert steps > 250
    differing = {name for name in few.seen | many.seen if few.seen[name] != many.seen[name]}
    assert not differing


READS = ("item", "tolist", "numpy", "nonzero", "__bool__", "__int__", "__float__", "__index__")


class Reads:
    """Counts how often the host reads a tensor."""

    def __init__(self) -> None:
        self.count = 0
        self.patch = pytest.MonkeyPatch()

    def __enter__(self) -> Reads:
        for name in READS:
            self.patch.setattr(Tensor, name, self.counted(getattr(Tensor, name)))
        return self

    def __exit__(self, *_: object) -> None:
        self.patch.undo()

    def counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def read(*args: Any, **named: Any) -> Any:
            self.count += 1
            return method(*args, **named)

        return read


@pytest.mark.parametrize("batch", [1, 9])
def test_the_host_waits_for_the_device_once_in_eight_steps(batch: int) -> None:
    seen, steps = solved(batch, Reads)
    assert 0 < seen.count <= steps / 8

"""What users do with an explanation: pick samples, iterate, convert, watch, read its problems."""

import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch

import toys
from moreaugrad import (
    ConvergenceWarning,
    DeepLift,
    Explainer,
    Explanation,
    IntegratedGradients,
    MoreauGrad,
    SimpleGradient,
    SmoothGrad,
    SparseMoreauGrad,
    Status,
)
from moreaugrad.solvers.z_scores import certain

MODEL = toys.network((5, 8, 3))
X = toys.normal(4, 5, seed=3)


@pytest.fixture(scope="module")
def result() -> Explanation:
    return SmoothGrad(MODEL, samples=8).explain(X, 1)


def test_it_keeps_its_inputs_when_the_callers_change() -> None:
    x, target, mask = X.clone(), torch.tensor([0, 1, 2, 0]), torch.ones(4, 5, dtype=torch.bool)
    found = SimpleGradient(MODEL).explain(x, target, mask=mask)
    for given in (x, target, mask):
        given.zero_()
    assert torch.equal(found.inputs, X)
    assert found.target.tolist() == [0, 1, 2, 0]
    assert found.mask is None or bool(found.mask.all())


PICKED: dict[str, tuple[object, list[int]]] = {
    "first": (0, [0]),
    "last": (-1, [3]),
    "numpy's": (np.int64(2), [2]),
    "slice": (slice(0, 2), [0, 1]),
    "open slice": (slice(-2, None), [2, 3]),
    "every other": (slice(None, None, 2), [0, 2]),
    "backwards": (slice(None, None, -1), [3, 2, 1, 0]),
    "nothing": (slice(4, None), []),
}


@pytest.mark.parametrize("name", PICKED)
def test_samples_are_picked_as_in_a_list(result: Explanation, name: str) -> None:
    index, rows = PICKED[name]
    found = result[index]
    assert len(found) == len(rows)
    assert found.status == tuple(result.status[row] for row in rows)
    for name in ("maps", "z_scores", "inputs", "target", "score", "error", "evaluations"):
        assert torch.equal(getattr(found, name), getattr(result, name)[rows])


def test_iteration_gives_the_samples(result: Explanation) -> None:
    found = list(result)
    assert [len(one) for one in found] == [1] * 4
    assert torch.equal(torch.cat([one.maps for one in found]), result.maps)


@pytest.mark.parametrize(
    ("index", "error"),
    [
        (4, IndexError),
        (-5, IndexError),
        (1.0, TypeError),
        (True, TypeError),
        ((0, 1), TypeError),
        ("a", TypeError),
    ],
)
def test_other_indices_are_refused(
    result: Explanation, index: object, error: type[Exception]
) -> None:
    with pytest.raises(error, match="expected"):
        result[index]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_numpy_takes_the_maps(dtype: torch.dtype) -> None:
    model = toys.network((5, 8, 3)).to(dtype)
    found = SimpleGradient(model).explain(X.to(dtype), 1)
    array = np.asarray(found)
    assert array.shape == (4, 5)
    assert array.dtype == (np.float64 if dtype == torch.float64 else np.float32)
    assert np.array_equal(array, found.maps.double().numpy())
    assert np.asarray(found, dtype=np.float16).dtype == np.float16


def test_numpy_refuses_several_inputs() -> None:
    found = SimpleGradient(lambda a, b: a * b.sum(1, keepdim=True)).explain((X, X), 1)
    with pytest.raises(TypeError, match=r"expected the maps of one input, got those of 2"):
        np.asarray(found)


# What is certain.


def test_certain_entries_are_shaped_like_the_maps(result: Explanation) -> None:
    found = result.certain()
    assert found.shape == result.maps.shape
    assert found.dtype == torch.bool
    assert found.any()
    assert bool((result.z_scores[found] > 1.9).all())
    assert int(result.certain(1 - 1e-6).sum()) < int(found.sum())
    for row, one in enumerate(result):
        assert torch.equal(one.certain()[0], found[row])
    assert result[4:].certain().shape == (0, 5)


def test_entries_of_several_inputs_are_tested_together() -> None:
    both = SmoothGrad(lambda a, b: MODEL(torch.cat([a, b], 1))).explain((X[:, :2], X[:, 2:]), 1)
    assert isinstance(both.z_scores, tuple)
    found = both.certain()
    assert [part.shape for part in found] == [(4, 2), (4, 3)]
    joint = certain(torch.cat(both.z_scores, 1), torch.cat(both.maps, 1) == 0, 0.95)
    assert torch.equal(torch.cat(found, 1), joint)


@pytest.mark.parametrize("level", [0.0, 1.0, 95, math.nan])
def test_a_level_outside_its_range_is_refused(result: Explanation, level: float) -> None:
    with pytest.raises(ValueError, match="level: expected a number between 0 and 1"):
        result.certain(level)


@pytest.mark.parametrize(
    "explainer",
    [SimpleGradient(MODEL), SmoothGrad(MODEL, samples=2), MoreauGrad(MODEL, noise="fixed")],
    ids=["no noise", "one block", "fixed noise"],
)
def test_without_standard_errors_nothing_is_said_of_certainty(explainer: Explainer) -> None:
    found = explainer.explain(X, 1)
    assert found.z_scores is None
    with pytest.raises(ValueError, match="certain: expected the map of a method that averages"):
        found.certain()


@pytest.mark.parametrize("chains", [1, 2])
def test_zeros_and_signs_of_a_sparse_map_are_certain(chains: int) -> None:
    found = SparseMoreauGrad(MODEL, sparsity=0.6, chains=chains).explain(X, 1)
    zero, own = found.maps == 0, found.certain()
    assert (own & zero).any()
    assert (own & ~zero).any()
    exact = SparseMoreauGrad(MODEL, sparsity=0.6, tolerance=0.01, seed=1).explain(X, 1)
    assert torch.equal(found.maps.sign()[own], exact.maps.sign()[own])


def test_two_solutions_leave_nothing_certain() -> None:
    def wells(x: torch.Tensor) -> torch.Tensor:
        return -2 * sum(torch.exp(-((x - at) ** 2)).sum(1, keepdim=True) for at in (-1.5, 1.5))

    explainer = MoreauGrad(
        wells, rho=3.0, sigma=0.4, sigma_mode="absolute", chains=2, task="regression"
    )
    found = explainer.explain(torch.full((8, 1), 0.01, dtype=torch.float64), ids=range(8))
    split = torch.tensor([status is Status.BISTABLE for status in found.status])
    assert split.any()
    assert found.z_scores[split].isnan().all()
    assert not found.certain()[split].any()


# Progress.


def test_a_bar_is_drawn_on_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    for explainer in (SmoothGrad(MODEL, samples=4), IntegratedGradients(MODEL, steps=4)):
        shown = explainer.explain(X, 1, progress=True)
        assert torch.equal(shown.maps, explainer.explain(X, 1, progress=False).maps)
    assert capfd.readouterr().out == ""


def test_a_progress_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match=r"progress: expected True .* or a function .* got str"):
        SimpleGradient(MODEL).explain(X, 1, progress="bar")


# Problems.


def test_a_budget_that_was_used_is_no_failure() -> None:
    explainer = MoreauGrad(MODEL, max_evaluations=128, tolerance=1e-4)
    found = explainer.explain(X, 1)
    assert set(found.status) == {Status.BUDGET_USED}
    assert not found.ok
    assert found.raise_if_failed() is found
    for row, line in enumerate(found.problems()):
        error = float(found.error[row])
        assert f"budget used, estimated error {100 * error:.2g} %" in line
        assert "128 evaluations" in line
    with pytest.warns(ConvergenceWarning, match="budget used"):
        explainer.attribute(X, target=1)


def test_a_failure_is_one() -> None:
    kink = MoreauGrad(lambda x: x.abs().sum(1, keepdim=True), sigma=0.0, task="regression")
    found = kink.explain(X / 10)
    assert Status.STALLED in found.status
    with pytest.raises(RuntimeError, match="kinks"):
        found.raise_if_failed()
    stalled = [status is Status.STALLED for status in found.status]
    assert torch.equal(found.error.isnan(), torch.tensor(stalled))


# Completeness.


def test_incomplete_integrated_gradients_are_reported() -> None:
    """A steep sigmoid far from both ends of the line is missed by few steps."""

    def step(x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(400 * (x.sum(1, keepdim=True) - 0.31))

    x = torch.full((2, 5), 0.2, dtype=torch.float64) * torch.tensor([[1.0], [0.01]])
    few, many = (
        IntegratedGradients(step, steps=steps, task="regression").explain(x) for steps in (4, 2000)
    )
    assert few.status[0] is Status.INCOMPLETE
    assert float(few.error[0]) > 0.05
    assert many.status[0] is Status.FIXED_BUDGET
    assert float(many.error[0]) <= 0.05
    assert "raise steps" in few.problems()[0]
    loose = IntegratedGradients(step, steps=4, task="regression", tolerance=1e9).explain(x)
    assert set(loose.status) == {Status.FIXED_BUDGET}
    for method in (IntegratedGradients, DeepLift):
        with pytest.raises(ValueError, match="tolerance: expected a number > 0"):
            method(MODEL, tolerance=0.0)


# Noise samples that do not differ.


@pytest.mark.parametrize("samples", [2, 5, 50, 64, 150])
def test_equal_noise_samples_are_reported(samples: int) -> None:
    linear = toys.network((5, 3))
    found = SmoothGrad(linear, samples=samples).explain(X, 1)
    told = Status.UNVARIED if samples > 2 else Status.FIXED_BUDGET
    assert set(found.status) == {told}
    assert (found.error == 0).all() or samples == 2
    assert found.z_scores is None or found.z_scores.isnan().all()
    assert "no noise sample differed" in Status.UNVARIED.message
    assert found.ok
    assert set(SmoothGrad(MODEL, samples=samples).explain(X, 1).status) == {Status.FIXED_BUDGET}


def calibrated(model: Callable[[torch.Tensor], torch.Tensor], exact: torch.Tensor) -> torch.Tensor:
    """True over reported errors of 200 runs with noise of their own."""
    x = torch.full((200, exact.shape[1]), 0.3, dtype=torch.float64)
    explainer = SmoothGrad(model, sigma=0.5, sigma_mode="absolute", task="regression")
    found = explainer.explain(x, ids=range(200))
    return toys.relative(found.maps, exact.expand_as(found.maps)) / found.error


@pytest.mark.parametrize("entries", [1, 2, 4])
def test_errors_of_few_entries_are_those_of_a_mean(entries: int) -> None:
    """cos has the mean gradient -sin(x) exp(-sigma^2 / 2): within two standard errors in 95 %."""
    exact = (
        torch.full((1, entries), 0.3, dtype=torch.float64).sin().neg()
        * torch.tensor(-0.125, dtype=torch.float64).exp()
    )
    ratio = calibrated(lambda x: x.cos().sum(1, keepdim=True), exact)
    assert float((ratio <= 2).double().mean()) > 0.93
    assert float(ratio.max()) < 8


def test_warnings_name_the_sample() -> None:
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        SmoothGrad(MODEL, samples=8).attribute(torch.cat([X, X[:1] * 0 + 1]), target=1)
    assert ["sample 4" in str(note.message) for note in notes] == [True]

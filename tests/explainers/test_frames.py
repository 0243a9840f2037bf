"""Maps while they are computed: the last is that of `explain`, those before are what it was."""

import gc
from typing import Any

import pytest
import torch
from torch import Tensor

import moreaugrad as mg
import tiny_models
import toys
from moreaugrad.explainers.anytime import FIRST, Frame
from moreaugrad.penalties import L1, GroupL2
from moreaugrad.solvers.solution import Status

MODEL = tiny_models.kinked().module
X = toys.normal(1, 3, 16, 16, seed=4).float()
TIGHT = {"tolerance": 0.02}
METHODS: dict[str, dict[str, Any]] = {
    "sparse-moreaugrad": TIGHT,
    "group-sparse-moreaugrad": TIGHT,
    "moreaugrad": {**TIGHT, "chains": 2},
    "smoothgrad": {"samples": 64},
    "sparse-smoothgrad": {"samples": 16},
    "sparsified-smoothgrad": {"samples": 256},
    "simple-gradient": {},
    "integrated-gradients": {},
    "caso": {},
}


def same(one: mg.Explanation, other: mg.Explanation) -> bool:
    pairs = [(getattr(e, name) for e in (one, other)) for name in ("maps", "error", "eta")]
    known = all(torch.equal(a.nan_to_num(-1), b.nan_to_num(-1)) for a, b in pairs)
    return known and torch.equal(one.evaluations, other.evaluations)


@pytest.mark.parametrize("name", METHODS)
def test_the_last_frame_is_the_explanation(name: str) -> None:
    explainer = mg.build(name, MODEL, **METHODS[name])
    *before, last = explainer.frames(X, 1)
    found = explainer.explain(X, 1)
    assert last.done
    assert not any(frame.done for frame in before)
    assert same(last.explanation, found)
    assert last.explanation.status == found.status
    if found.z_scores is not None:
        assert torch.equal(last.explanation.z_scores.nan_to_num(-1), found.z_scores.nan_to_num(-1))


@pytest.mark.parametrize("name", ["sparse-moreaugrad", "group-sparse-moreaugrad"])
def test_a_frame_is_the_map_if_its_evaluations_were_all(name: str) -> None:
    explainer = mg.build(name, MODEL, tolerance=0.03)
    early, *frames, _ = explainer.frames(X, 1)
    assert len(frames) >= 3
    for frame in frames:
        spent = int(frame.explanation.evaluations)
        stopped = mg.build(name, MODEL, tolerance=0.03, max_evaluations=spent).explain(X, 1)
        assert same(frame.explanation, stopped)
        assert frame.explanation.status == stopped.status == (Status.BUDGET_USED,)
    assert int(early.explanation.evaluations) == FIRST
    assert early.explanation.error.isnan().all()


def test_evaluations_grow_and_are_at_least_those_of_the_meter() -> None:
    spent, counts = 0, []

    def meter(evaluations: int) -> None:
        nonlocal spent
        spent += evaluations

    for frame in mg.SparseMoreauGrad(MODEL, tolerance=0.03).frames(X, 1, meter=meter):
        counts.append(int(frame.explanation.evaluations))
        assert counts[-1] == spent
    assert counts == sorted(set(counts))


@pytest.mark.parametrize("draws", [16, 64, 256])
def test_a_mean_grows_fourfold(draws: int) -> None:
    counts = [
        int(frame.explanation.evaluations)
        for frame in mg.SmoothGrad(MODEL, samples=draws, centre=False).frames(X, 1)
    ]
    assert counts == [n for n in (16, 64, 256) if n <= draws]


@pytest.mark.parametrize("sigma", [0.0, 0.15])
@pytest.mark.parametrize(("name", "penalty"), [
    ("sparse-moreaugrad", L1), ("group-sparse-moreaugrad", lambda eta: GroupL2(eta, size=4)),
])  # fmt: skip
def test_the_threshold_of_the_gradient_is_the_map(name: str, penalty: Any, sigma: float) -> None:
    settings = {"group": 4} if "group" in name else {}
    for frame in mg.build(name, MODEL, sigma=sigma, **settings).frames(X, 1):
        assert isinstance(frame.gradient, Tensor)
        expected = penalty(float(frame.explanation.eta)).prox(frame.gradient, 1.0)
        difference = (expected - frame.explanation.maps).norm()
        # Without noise the map has a residual of up to its tolerance.
        assert difference <= (1e-5 if sigma else 2e-3) * expected.norm()


def test_methods_without_a_threshold_have_no_gradient() -> None:
    for frame in mg.SmoothGrad(MODEL, samples=64).frames(X, 1):
        assert frame.gradient is None


def test_inputs_as_a_tuple_have_frames_of_tuples() -> None:
    *_, last = mg.SparseMoreauGrad(MODEL).frames((X,), 1)
    assert isinstance(last, Frame)
    assert isinstance(last.gradient, tuple)
    assert isinstance(last.explanation.maps, tuple)


def test_several_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="one sample"):
        next(mg.SparseMoreauGrad(MODEL).frames(torch.cat([X, X])))


def test_an_error_of_the_meter_ends_it_after_that_pass() -> None:
    passes = []

    def meter(evaluations: int) -> None:
        passes.append(evaluations)
        if len(passes) == 3:
            raise InterruptedError

    frames = mg.SparseMoreauGrad(MODEL, tolerance="fine").frames(X, 1, meter=meter)
    with pytest.raises(InterruptedError):
        list(frames)
    assert len(passes) == 3
    assert not any(module._forward_hooks for module in MODEL.modules())


def test_noise_of_no_size_is_a_status_in_every_frame() -> None:
    for frame in mg.SmoothGrad(MODEL, samples=64).frames(torch.ones_like(X), 1):
        assert frame.explanation.status == (Status.NO_NOISE,)


def test_no_tensor_of_a_pass_is_left() -> None:
    """A ReLU that keeps its own output must not keep itself alive."""

    def left() -> int:
        gc.collect()
        return sum(type(one) is Tensor for one in gc.get_objects())

    explainer = mg.SparseMoreauGrad(MODEL, tolerance="preview")
    counts = []
    for _ in range(3):
        explainer.explain(X, 1)
        next(explainer.frames(X, 1))
        counts.append(left())
    assert counts[0] == counts[1] == counts[2]

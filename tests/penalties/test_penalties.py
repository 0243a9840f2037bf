import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

import oracles
from moreaugrad.penalties import (
    L1,
    Box,
    ElasticNet,
    GroupL2,
    Penalty,
    SquaredL2,
    WeightedL2,
    Zero,
)
from moreaugrad.penalties import PENALTIES as REGISTERED
from moreaugrad.penalties.base import PerInput
from moreaugrad.score.inputs import Layout

SHAPE = (2, 3, 5)
LABELS = torch.tensor([[4, 4, 0, 7, 7], [4, 0, 0, 7, 1], [1, 1, 1, 1, 1]])


def weighted(weight: Tensor, shape: tuple[int, ...]) -> WeightedL2:
    """One weight for each sample and entry; every third entry has none."""
    pattern = torch.arange(math.prod(shape), dtype=weight.dtype).reshape(shape) % 3
    return WeightedL2(weight.reshape(-1, *[1] * len(shape)) * pattern)


Make = Callable[[Tensor, tuple[int, ...]], Penalty]
PENALTIES: dict[str, Make] = {
    "zero": lambda w, shape: Zero(),
    "l1": lambda w, shape: L1(w),
    "group-joint": lambda w, shape: GroupL2(w, size=2),
    "group-separate": lambda w, shape: GroupL2(w, size=2, channels="separate"),
    "group-index": lambda w, shape: GroupL2(w, index=LABELS),
    "elastic-net": lambda w, shape: ElasticNet(w, w / 3),
    "squared": lambda w, shape: SquaredL2(w),
    "weighted": weighted,
    "box": lambda w, shape: Box(-w, w / 2),
}
LISTED = {type(make(torch.ones(1), SHAPE)) for make in PENALTIES.values()}
PENALTIES |= {
    name: lambda w, shape, row=row: row.make(*[w] * len(row.needs()))
    for name, row in REGISTERED.items()
    if issubclass(row.load(), Penalty) and row.load() not in LISTED
}
"""Also rows of other classes, with this weight for each of their numbers."""
PAIRS = {
    "zero": lambda w: Zero(),
    "l1": lambda w: L1(w),
    "group": lambda w: GroupL2(w, size=2),
    "elastic-net": lambda w: ElasticNet(w, w / 3),
    "squared": lambda w: SquaredL2(w),
    "weighted": lambda w: WeightedL2(torch.tensor([w, 3 * w], dtype=torch.float64)),
    "box": lambda w: Box(-w, w / 2),
}
"""Of samples with two entries, for brute force."""

BATCH = 3
samples = arrays.arrays(
    "float64", (BATCH, *SHAPE), elements=st.one_of(st.just(0.0), st.floats(-9, 9, width=32))
).map(torch.from_numpy)
weights = st.lists(st.floats(0.125, 4, width=32), min_size=BATCH, max_size=BATCH).map(
    lambda values: torch.tensor(values, dtype=torch.float64)
)
every_penalty = pytest.mark.parametrize("name", PENALTIES)
quick = settings(max_examples=40, deadline=None)


def fenchel_gap(penalty: Penalty, primal: Tensor, dual: Tensor) -> Tensor:
    """R(p) + R*(d) - <p, d>, relative to the size of its terms; the dual may leave R*'s domain
    by rounding, which is taken back."""
    dual = dual * (1 - 1e-11)
    product = (primal * dual).flatten(1).sum(1)
    return (penalty.value(primal) + penalty.conjugate(dual) - product) / (1 + product.abs())


@every_penalty
@quick
@given(u=samples, w=weights, tau=weights)
def test_fenchel_gap_of_the_prox_is_zero(name: str, u: Tensor, w: Tensor, tau: Tensor) -> None:
    penalty = PENALTIES[name](w, SHAPE)
    primal = penalty.prox(u, tau)
    dual = (u - primal) / tau.reshape(-1, 1, 1, 1)
    assert (fenchel_gap(penalty, primal, dual).abs() < 1e-9).all()


@every_penalty
@quick
@given(g=samples, w=weights)
def test_fenchel_gap_of_the_maximiser_is_zero(name: str, g: Tensor, w: Tensor) -> None:
    penalty = PENALTIES[name](w, SHAPE)
    if isinstance(penalty, Box):
        g = penalty.prox(g, 1.0)
    assert (fenchel_gap(penalty, g, penalty.maximiser(g)).abs() < 1e-9).all()


def conjugate_prox(name: str, v: Tensor, w: float, s: float) -> Tensor:
    """prox of s R* at one sample `v`, each by its own formula."""
    if name == "zero":
        return torch.zeros_like(v)
    if name == "l1":
        return v.clamp(-w, w)
    if name.startswith("group"):
        kind = "separate" if name == "group-separate" else "joint"
        label = oracles.group_labels(SHAPE, (2, 2), kind)
        label = LABELS.expand(SHAPE) if name == "group-index" else label
        flat = v.clone().flatten()
        for entries in oracles.groups_of(label):
            norm = flat[entries].norm()
            flat[entries] *= min(1.0, w / float(norm)) if norm else 1.0
        return flat.reshape(v.shape)
    if name == "elastic-net":  # (|d| - w)_+^2 / (4 w / 3)
        inner = (v.abs() * (4 * w / 3) / s + 2 * w) / (4 * w / 3 / s + 2)
        return torch.where(v.abs() <= w, v, v.sign() * inner)
    if name == "squared":  # d^2 / (4 w)
        return v / (1 + s / (2 * w))
    if name == "weighted":
        weight = weighted(torch.tensor([w], dtype=v.dtype), SHAPE).weight[0]
        return v * 2 * weight / (2 * weight + s)
    if name != "box":
        pytest.skip(f"{name} has no formula here")
    # max(-w d, w d / 2)
    return torch.where(v > 0, (v - s * w / 2).clamp(min=0), (v + s * w).clamp(max=0))


@every_penalty
@quick
@given(u=samples, w=weights, tau=weights)
def test_moreau_identity(name: str, u: Tensor, w: Tensor, tau: Tensor) -> None:
    """u = prox_{tau R}(u) + tau prox_{R* / tau}(u / tau)."""
    primal = PENALTIES[name](w, SHAPE).prox(u, tau)
    for i, (weight, step) in enumerate(zip(w.tolist(), tau.tolist(), strict=True)):
        dual = conjugate_prox(name, u[i] / step, weight, 1 / step)
        torch.testing.assert_close(primal[i] + step * dual, u[i], rtol=1e-9, atol=1e-9)


two = arrays.arrays("float64", (2,), elements=st.floats(-4, 4, width=32)).map(torch.from_numpy)
weight = st.floats(0.125, 2, width=32)


@pytest.mark.parametrize("name", PAIRS)
@settings(max_examples=12, deadline=None)
@given(u=two, w=weight, tau=weight)
def test_prox_is_the_minimiser(name: str, u: Tensor, w: float, tau: float) -> None:
    penalty = PAIRS[name](w)

    def objective(v: Tensor) -> Tensor:
        return tau * penalty.value(v) + (v - u).square().sum(1) / 2

    expected = oracles.zoomed_minimum(objective, torch.zeros(2), 5.0)
    torch.testing.assert_close(penalty.prox(u[None], tau)[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["elastic-net", "squared", "weighted", "box"])
@settings(max_examples=12, deadline=None)
@given(d=two, w=weight)
def test_conjugate_is_the_maximum(name: str, d: Tensor, w: float) -> None:
    penalty = PAIRS[name](w)

    def objective(u: Tensor) -> Tensor:
        return penalty.value(u) - u @ d

    best = oracles.zoomed_minimum(objective, torch.zeros(2), 8.0)
    expected = -objective(best[None])
    torch.testing.assert_close(penalty.conjugate(d[None]), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "dual_norm"), [("l1", torch.inf), ("group", 2)])
def test_conjugate_of_a_norm_is_the_indicator_of_its_dual_ball(name: str, dual_norm: float) -> None:
    penalty, direction = PAIRS[name](0.7), torch.tensor([[3.0, -4.0]], dtype=torch.float64)
    edge = 0.7 * direction / direction.norm(dual_norm)
    assert penalty.conjugate(edge).item() == 0
    assert penalty.conjugate(0.99 * edge).item() == 0
    assert penalty.conjugate(1.01 * edge).item() == math.inf


def test_values_by_hand() -> None:
    u = torch.tensor([[3.0, -4.0]])
    cases = {
        Zero(): 0.0,
        L1(2.0): 14.0,
        GroupL2(2.0, size=2): 10.0,
        ElasticNet(2.0, 0.5): 14.0 + 12.5,
        SquaredL2(0.5): 12.5,
        WeightedL2(torch.tensor([1.0, 2.0])): 41.0,
        Box(-4.0, 3.0): 0.0,
        Box(-3.0, 3.0): math.inf,
    }
    for penalty, expected in cases.items():
        assert penalty.value(u).tolist() == [expected], penalty


@every_penalty
def test_a_batch_equals_its_samples(name: str) -> None:
    u = torch.randn(BATCH, *SHAPE)
    u[1, :, :2, :2] = 0
    w, tau = torch.tensor([0.1, 0.7, 2.0]), torch.tensor([1.5, 0.3, 0.8])
    batch = PENALTIES[name](w, SHAPE)
    inside = batch.prox(u, tau) if name == "box" else u
    for i in range(BATCH):
        for tau_i in (tau[i : i + 1], float(tau[i])):
            alone, one = PENALTIES[name](w[i : i + 1], SHAPE), slice(i, i + 1)
            assert torch.equal(batch.prox(u, tau)[one], alone.prox(u[one], tau_i))
        assert torch.equal(batch.value(u)[one], alone.value(u[one]))
        assert torch.equal(batch.conjugate(u)[one], alone.conjugate(u[one]))
        assert torch.equal(batch.maximiser(inside)[one], alone.maximiser(inside[one]))


@pytest.mark.parametrize("name", ["l1", "group-joint", "elastic-net", "squared", "box"])
def test_a_number_stands_for_all_samples(name: str) -> None:
    u = torch.randn(BATCH, *SHAPE)
    number = {
        "l1": L1(0.5),
        "group-joint": GroupL2(0.5, size=2),
        "elastic-net": ElasticNet(0.5, 0.5 / 3),
        "squared": SquaredL2(0.5),
        "box": Box(-0.5, 0.25),
    }[name]
    each = PENALTIES[name](torch.full((BATCH,), 0.5), SHAPE)
    assert torch.allclose(number.prox(u, 0.3), each.prox(u, torch.full((BATCH,), 0.3)))
    assert torch.allclose(number.value(u / 9), each.value(u / 9))
    assert torch.equal(number.conjugate(u), each.conjugate(u))


@every_penalty
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_keep_the_dtype(name: str, dtype: torch.dtype) -> None:
    u = torch.randn(BATCH, *SHAPE, dtype=dtype) / 100
    penalty = PENALTIES[name](torch.full((BATCH,), 0.5, dtype=dtype), SHAPE)
    for result in (
        penalty.prox(u, 0.3),
        penalty.value(u),
        penalty.conjugate(u),
        penalty.maximiser(u),
    ):
        assert result.dtype == dtype
    assert penalty.prox(u, 0.3).shape == penalty.maximiser(u).shape == u.shape
    assert penalty.value(u).shape == penalty.conjugate(u).shape == (BATCH,)


@every_penalty
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("fill", [0.0, 5e-324, 1e-42, 1e-30])
def test_zero_and_tiny_groups_give_no_nan(name: str, dtype: torch.dtype, fill: float) -> None:
    u = torch.full((1, *SHAPE), fill, dtype=dtype)
    u[0, 0, 2, 4] = 1.0
    penalty = PENALTIES[name](torch.tensor([1.0], dtype=dtype), SHAPE)
    inside = penalty.prox(u, 1.0)
    for result in (inside, penalty.value(u), penalty.maximiser(inside)):
        assert torch.isfinite(result).all() or isinstance(penalty, Box)
    assert not penalty.conjugate(u).isnan().any()
    assert torch.equal(penalty.prox(torch.zeros_like(u), 1.0), torch.zeros_like(u))
    assert torch.equal(penalty.maximiser(torch.zeros_like(u)), torch.zeros_like(u))


@every_penalty
@pytest.mark.parametrize("size", [1e-10, 1e-21, 1e-23, 1e-40])
def test_tiny_gradients_have_a_feasible_maximiser(name: str, size: float) -> None:
    g = torch.randn(BATCH, *SHAPE) * size
    penalty = PENALTIES[name](torch.full((BATCH,), 0.5), SHAPE)
    if not isinstance(penalty, Box):
        assert penalty.conjugate(penalty.maximiser(g)).isfinite().all()


@pytest.mark.parametrize("name", ["l1", "group-joint", "group-separate", "group-index"])
@pytest.mark.parametrize("size", [1e-10, 1e-19, 1e-21, 1e-30])
def test_a_norms_maximiser_does_not_see_the_length_of_a_gradient(name: str, size: float) -> None:
    g = torch.randn(BATCH, *SHAPE)
    small = g.clone()
    small[::2] *= size  # beside others that are not small
    penalty = PENALTIES[name](torch.full((BATCH,), 0.5), SHAPE)
    assert torch.allclose(penalty.maximiser(small), penalty.maximiser(g), rtol=1e-4)
    assert torch.equal(penalty.maximiser(small)[1::2], penalty.maximiser(g)[1::2])


@every_penalty
def test_no_step_changes_nothing(name: str) -> None:
    u = torch.randn(BATCH, *SHAPE) / 10
    assert torch.equal(PENALTIES[name](torch.ones(BATCH), SHAPE).prox(u, 0.0), u)


@pytest.mark.parametrize("name", ["l1", "group-joint", "group-separate", "group-index"])
def test_magnitudes_are_what_the_prox_compares(name: str) -> None:
    u = torch.randn(BATCH, *SHAPE, dtype=torch.float64)
    penalty = PENALTIES[name](torch.ones(BATCH, dtype=torch.float64), SHAPE)
    assert penalty.sparse
    found = penalty.magnitudes(u)
    for threshold in found.flatten()[::3].tolist():
        kept = penalty.magnitudes(penalty.prox(u, threshold)) > 0
        assert torch.equal(kept, found > threshold)


@every_penalty
@quick
@given(u=samples, w=weights, tau=weights)
def test_margins_are_positive_where_the_prox_is_not_zero(
    name: str, u: Tensor, w: Tensor, tau: Tensor
) -> None:
    """And their threshold is that of the prox: a group is that long, or an entry that large."""
    penalty = PENALTIES[name](w, SHAPE)
    found, norms = penalty.margins(u, tau), penalty.margins(u, 0.0)
    known = name in ("l1", "elastic-net") or name.startswith("group")
    assert (found is not None) == (norms is not None) == known
    if found is None or norms is None:
        return
    kept = penalty.prox(u, tau) != 0
    assert not (kept & (found <= 0)).any()
    assert (kept | (found <= 1e-9) | (u == 0)).all()
    torch.testing.assert_close(norms - found, (tau * w).reshape(-1, 1, 1, 1).expand_as(u))
    both = PerInput((penalty, Zero()), Layout.of([u, torch.zeros(BATCH, 4)]))
    assert both.margins(torch.cat([u.flatten(1), torch.zeros(BATCH, 4)], 1), tau) is None


@pytest.mark.parametrize("name", ["group-joint", "group-separate", "group-index"])
def test_group_prox_follows_the_loops(name: str) -> None:
    label = {
        "group-joint": oracles.group_labels(SHAPE, (2, 2), "joint"),
        "group-separate": oracles.group_labels(SHAPE, (2, 2), "separate"),
        "group-index": LABELS.expand(SHAPE),
    }[name]
    u = torch.randn(BATCH, *SHAPE, dtype=torch.float64)
    w = torch.tensor([0.2, 1.8, 2.6], dtype=torch.float64)
    penalty = PENALTIES[name](w, SHAPE)
    found = penalty.prox(u, 1.25)
    for i in range(BATCH):
        expected = oracles.soft_groups(u[i], 1.25 * float(w[i]), label)
        torch.testing.assert_close(found[i], expected)
        norms = oracles.group_norms(u[i], label)
        assert float(penalty.value(u)[i]) == pytest.approx(float(w[i]) * sum(norms))
    assert 0.1 < (found == 0).double().mean() < 0.9  # both kinds of groups were seen


def test_soft_threshold_follows_the_loop() -> None:
    u = torch.randn(2, 40)
    expected = torch.stack([oracles.soft(u[0], 0.6), oracles.soft(u[1], 1.2)])
    torch.testing.assert_close(L1(torch.tensor([0.6, 1.2])).prox(u, 1.0), expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda w: L1(w),
        lambda w: GroupL2(w),
        lambda w: ElasticNet(w, 1.0),
        lambda w: ElasticNet(1.0, w),
        lambda w: SquaredL2(w),
        lambda w: WeightedL2(torch.tensor([1.0, w])),
        lambda w: Box(-w, 1.0),
        lambda w: Box(-1.0, w),
    ],
)
@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf])
def test_bad_weights_are_reported(make: Callable[[float], Penalty], bad: float) -> None:
    with pytest.raises(ValueError, match="expected finite numbers >= 0, got"):
        make(bad)


def test_a_weight_of_another_shape_is_reported() -> None:
    with pytest.raises(ValueError, match=r"expected shape \(2,\) or \(3, 2\), got \(5,\)"):
        WeightedL2(torch.ones(5)).value(torch.zeros(3, 2))


def test_a_box_has_no_maximiser_outside() -> None:
    inside, outside = torch.zeros(1, 4), torch.full((1, 4), 2.0)
    with pytest.raises(ValueError, match="1 of 2 samples leave it"):
        Box(-1.0, 1.0).maximiser(torch.cat([inside, outside]))


def test_joint_acts_on_each_part() -> None:
    layout = Layout(((2, 4), (3,)), (torch.float64, torch.float64))
    parts = (GroupL2(torch.tensor([0.3, 0.9]), size=2), L1(0.5))
    joint, u = PerInput(parts, layout), torch.randn(2, 11, dtype=torch.float64)
    split = layout.split(u)
    for name in ("value", "conjugate", "maximiser", "magnitudes"):
        first, second = (getattr(p, name)(part) for p, part in zip(parts, split, strict=True))
        whole = getattr(joint, name)(u)
        if name in ("value", "conjugate"):
            assert torch.equal(whole, first + second)
        else:
            assert torch.equal(whole, torch.cat([first.flatten(1), second.flatten(1)], dim=1))
    proxes = [p.prox(part, 0.7) for p, part in zip(parts, split, strict=True)]
    assert torch.equal(joint.prox(u, 0.7), layout.flatten(proxes))


def test_joint_magnitudes_need_penalties_that_threshold() -> None:
    joint = PerInput((SquaredL2(1.0),), Layout(((3,),), (torch.float32,)))
    with pytest.raises(TypeError, match=r"magnitudes.*got SquaredL2"):
        joint.magnitudes(torch.zeros(1, 3))


@pytest.mark.parametrize("channels", ["joint", "separate"])
@pytest.mark.parametrize(
    "kind", ["zero", "l1", "groups", "joint", "elastic-net", "squared", "weighted", "box"]
)
def test_the_root_of_a_prox_s_derivative(kind: str, channels: str) -> None:
    """Twice the root is the derivative; it is symmetric."""
    generator = torch.Generator().manual_seed(0)
    group = GroupL2(0.8, size=2, channels=channels)
    both = Layout.of([torch.zeros(1, *SHAPE), torch.zeros(1, 4)])
    penalty, size = {
        "zero": (Zero(), 30),
        "l1": (L1(0.5), 30),
        "groups": (group, 30),
        "elastic-net": (ElasticNet(0.5, 0.3), 30),
        "squared": (SquaredL2(0.5), 30),
        "weighted": (WeightedL2(torch.arange(30.0).reshape(SHAPE) / 9), 30),
        "box": (Box(-0.4, 0.3), 30),
        "joint": (PerInput((group, L1(0.5)), both), 34),
    }[kind]
    shape = (size,) if kind == "joint" else SHAPE
    u = torch.randn(1, *shape, generator=generator, dtype=torch.float64)
    v, w = (torch.randn(u.shape, generator=generator, dtype=torch.float64) for _ in range(2))
    result = penalty.prox(u, 1.3)
    zeros = int((result == 0).sum())
    assert kind in ("zero", "squared", "weighted", "box") or 0 < zeros < size
    step = 1e-6
    expected = (penalty.prox(u + step * v, 1.3) - penalty.prox(u - step * v, 1.3)) / (2 * step)

    def root(x: Tensor) -> Tensor:
        return penalty.prox_root(result, 1.3, x)

    assert torch.allclose(root(root(v)), expected, atol=1e-7)
    assert torch.allclose((w * root(v)).sum(), (v * root(w)).sum())

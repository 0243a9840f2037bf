"""Second derivatives on the support of sparse maps: known Hessians, a literal loop, calibration."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chi
from torch import Tensor, nn

import moreaugrad as mg
from moreaugrad.explainers.interactions import interactions_budget
from moreaugrad.runs.maps.interactions import pairs_record
from moreaugrad.solvers.solution import Status
from toys import network, normal

X = normal(3, 6, seed=1)
SQUARE = normal(6, 6, seed=2)
SQUARE = SQUARE + SQUARE.T
SMOOTH = network((6, 12, 3), nn.Tanh, gain=2.0)
KINKED = network((6, 12, 3), nn.ReLU, gain=2.0)
F64 = torch.float64


def quadratic(x: Tensor) -> Tensor:
    return torch.einsum("bi,ij,bj->b", x.flatten(1), SQUARE, x.flatten(1))


def sparse(model: Any, x: Any = X, keep: float = 0.5, **settings: Any) -> mg.Explanation:
    target = None if settings.get("task") == "regression" else 1
    return mg.SimpleGradient(model, keep=keep, **settings).explain(x, target)


def absolute(model: Any, sigma: float, **settings: Any) -> mg.Score:
    return mg.Score(model, sigma=sigma, sigma_mode="absolute", **settings)


def entries(found: mg.Interactions, full: Tensor) -> Tensor:
    """`[B, n, n]` or `[n, n]` at the entries found, `[B, k, k]`."""
    full = full.expand(len(found.index), *full.shape[-2:])
    return torch.stack([one[at][:, at] for one, at in zip(full, found.index, strict=True)])


@pytest.mark.parametrize("sigma", [0.0, 0.3])
def test_of_a_quadratic_form_it_is_twice_the_matrix(sigma: float) -> None:
    """Exactly: reflections along an entry see no other one."""
    explanation = sparse(quadratic, task="regression")
    found = mg.interactions(mg.Score(quadratic, task="regression", sigma=sigma), explanation)
    assert found.values.shape == (3, 3, 3)
    torch.testing.assert_close(found.values, entries(found, 2 * SQUARE))
    assert torch.equal(found.values, found.values.mT)
    assert float(found.error.max()) < 1e-12
    for row, kept in enumerate(explanation.maps != 0):
        assert set(found.index[row].tolist()) == set(kept.nonzero()[:, 0].tolist())
    size = explanation.parts[0].abs().gather(1, found.index)
    assert bool((size.diff(dim=1) <= 0).all())


@pytest.mark.parametrize("sigma", [0.0, 0.3])
def test_of_pixels_all_channels_change_alike(sigma: float) -> None:
    x = X.reshape(3, 2, 1, 3)
    explanation = sparse(quadratic, x, keep=1.0, task="regression")
    score = mg.Score(quadratic, task="regression", sigma=sigma)
    found = mg.interactions(score, explanation, per="pixel")
    summed = (2 * SQUARE).reshape(2, 3, 2, 3).sum((0, 2))
    torch.testing.assert_close(found.values, entries(found, summed))
    pair = found.strongest(1)[0]
    assert len(pair.first) == 2
    assert pair.value == pytest.approx(float(summed[pair.first[1], pair.second[1]]))


@pytest.mark.parametrize("kind", ["logit", "probability"])
def test_without_noise_it_is_the_hessian(kind: str) -> None:
    found = mg.interactions(mg.Score(SMOOTH, kind=kind), sparse(SMOOTH))

    def score(row: Tensor) -> Tensor:
        outputs = SMOOTH(row[None])[0]
        return outputs[1] if kind == "logit" else outputs.softmax(0)[1]

    full = torch.stack([torch.autograd.functional.hessian(score, row) for row in X])  # type: ignore[no-untyped-call]
    torch.testing.assert_close(found.values, entries(found, full))
    assert set(found.status) == {Status.DIRECT}
    assert found.evaluations.tolist() == [7, 7, 7]


def test_logits_of_a_relu_network_have_none_and_its_probability_the_closed_form() -> None:
    explanation = sparse(KINKED)
    flat = mg.interactions(mg.Score(KINKED), explanation)
    assert set(flat.status) == {Status.NO_CURVATURE}
    assert not bool(flat.values.any())
    found = mg.interactions(mg.Score(KINKED, kind="log-probability"), explanation)
    closed = mg.relu_hessian(KINKED, X)
    eye = torch.eye(6, dtype=F64)
    full = torch.stack([closed.product(column.expand(3, 6)) for column in eye], 1)
    assert isinstance(full, Tensor)
    torch.testing.assert_close(found.values, -entries(found, full))


W = torch.tensor([1.0, -0.5, 2.0, 0.3, -1.2, 0.7], dtype=F64)
SIGMA = 0.4
WIDTH = SIGMA * float(W.norm())


def one_kink(x: Tensor) -> Tensor:
    return torch.relu(x.flatten(1) @ W)


def wave(x: Tensor) -> Tensor:
    return torch.sin(x.flatten(1) @ W)


def smoothed(score: Any, x: Tensor) -> Tensor:
    """The Hessian of the Gaussian mean, in closed form."""
    t = x @ W
    if score is wave:
        bent = -torch.sin(t) * math.exp(-(WIDTH**2) / 2)
    else:
        bent = torch.exp(-(t**2) / (2 * WIDTH**2)) / (WIDTH * math.sqrt(2 * math.pi))
    return bent[:, None, None] * torch.outer(W, W)


@pytest.mark.parametrize("score", [one_kink, wave])
def test_the_error_is_calibrated_for_smooth_scores_and_for_kinks(score: Any) -> None:
    """Many independent estimates of one input: each id has noise of its own."""
    x = (X[:1] / 4 * (X[0] @ W).sign()).expand(250, 6)
    explanation = sparse(score, x, keep=0.5, task="regression")
    found = mg.interactions(
        absolute(score, SIGMA, task="regression"), explanation, samples=64, ids=range(250)
    )
    truth = entries(found, smoothed(score, x))
    ratio = (found.values - truth) / found.error
    assert 0.75 < float(ratio.square().mean().sqrt()) < 1.2
    assert set(found.status) == {Status.FIXED_BUDGET}
    mean, spread = found.values.mean(0), found.values.std(0) / math.sqrt(250)
    assert bool(((mean - truth[0]).abs() < 4 * spread + 0.01 * truth[0].abs()).all())
    assert found.evaluations.tolist() == [2 * 64 * 3] * 250


@pytest.mark.parametrize("score", [one_kink, wave])
def test_pixels_under_noise(score: Any) -> None:
    x = (X[:1] / 4 * (X[0] @ W).sign()).reshape(1, 2, 3).expand(250, 2, 3)
    explanation = sparse(score, x, keep=1.0, task="regression")
    noisy = absolute(score, SIGMA, task="regression")
    found = mg.interactions(noisy, explanation, per="pixel", ids=range(250))
    full = smoothed(score, x.flatten(1)).reshape(250, 2, 3, 2, 3).sum((1, 3))
    truth = entries(found, full)
    mean, spread = found.values.mean(0), found.values.std(0) / math.sqrt(250)
    assert bool(((mean - truth[0]).abs() < 4 * spread).all())
    assert bool((spread < 0.02 * truth[0].abs()).all())
    ratio = (found.values - truth) / found.error
    assert 0.75 < float(ratio.square().mean().sqrt()) < 1.2


def test_against_a_literal_loop() -> None:
    samples = 12
    score = absolute(KINKED, 0.5, noise=mg.Noise(3))
    found = mg.interactions(score, sparse(KINKED), samples=samples, ids=[4, 9, 4])

    def gradient(point: Tensor) -> Tensor:
        leaf = point[None].clone().requires_grad_()
        return torch.autograd.grad(KINKED(leaf)[0, 1], leaf)[0][0]

    for row, key in enumerate([4, 9, 4]):
        index = found.index[row].tolist()
        total = torch.zeros(3, 3, dtype=F64)
        for draw in range(samples):
            z = 0.5 * mg.Noise(3).draw([key], draw, X[:1])[0]
            for place, j in enumerate(index):
                ahead, behind = z.clone(), z.clone()
                step = 0.5 * chi.ppf(chi.cdf(abs(float(z[j])) / 0.5, 1), 3)
                ahead[j], behind[j] = step, -step
                apart = gradient(X[row] + ahead) - gradient(X[row] + behind)
                total[place] += apart[index] / (2 * step) / samples
        torch.testing.assert_close(found.values[row], (total + total.T) / 2)


def test_batches_chunks_ids_and_seeds() -> None:
    explanation = sparse(KINKED)
    whole = mg.interactions(absolute(KINKED, 0.5), explanation, samples=16, ids=[5, 6, 7])
    for size in (1, 2, 7, 1000):
        score = absolute(KINKED, 0.5, batch_size=size)
        part = mg.interactions(score, explanation, samples=16, ids=[5, 6, 7])
        torch.testing.assert_close(part.values, whole.values)
        torch.testing.assert_close(part.error, whole.error)
    alone = mg.interactions(absolute(KINKED, 0.5), explanation[1], samples=16, ids=[6])
    torch.testing.assert_close(alone.values[0], whole.values[1])
    other = mg.interactions(absolute(KINKED, 0.5), explanation[1], samples=16, ids=[7])
    assert not torch.allclose(other.values[0], whole.values[1])


def test_values_do_not_depend_on_how_many_there_are() -> None:
    few = mg.interactions(absolute(KINKED, 0.5), sparse(KINKED, keep=1.0), samples=16, most=2)
    many = mg.interactions(absolute(KINKED, 0.5), sparse(KINKED, keep=1.0), samples=16)
    assert few.values.shape == (3, 2, 2)
    torch.testing.assert_close(few.values, many.values[:, :2, :2])


@pytest.mark.parametrize("sigma", [0.0, 0.3])
def test_maps_with_fewer_entries(sigma: float) -> None:
    explanation = sparse(SMOOTH)
    assert isinstance(explanation.maps, Tensor)
    explanation.maps[1, 1:] = 0
    explanation.maps[1, 0] = 1
    explanation.maps[2] = 0
    found = mg.interactions(absolute(SMOOTH, sigma), explanation, samples=8)
    assert found.index[1].tolist() == [0, -1, -1]
    assert found.index[2].tolist() == [-1, -1, -1]
    assert found.values.isnan().flatten(1).sum(1).tolist() == [0, 8, 9]
    assert found.strongest(sample=1) == found.strongest(sample=2) == []
    assert [status.ok for status in found.status] == [True, True, False]
    assert found.status[2].name == "NO_ENTRIES"
    assert found.evaluations.diff().tolist() == [-2 * (16 if sigma else 2), -(16 if sigma else 2)]
    alone = mg.interactions(absolute(SMOOTH, sigma), explanation[1], samples=8)
    torch.testing.assert_close(alone.values[0, 0, 0], found.values[1, 0, 0])


def test_an_explainer_gives_its_score_and_its_noise() -> None:
    explainer = mg.SmoothGrad(KINKED, sigma=0.4, sigma_mode="absolute", seed=3)
    explanation = sparse(KINKED)
    found = mg.interactions(explainer, explanation, samples=16)
    expected = mg.interactions(absolute(KINKED, 0.4, noise=mg.Noise(3)), explanation, samples=16)
    assert torch.equal(found.values, expected.values)


def test_several_inputs_and_padding() -> None:
    def product(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(1)

    parts = (X[:, :2], X[:, 2:4])
    real = (torch.tensor([[True, False]]).expand(3, 2), None)
    explanation = mg.SimpleGradient(product, task="regression").explain(parts, mask=real)
    for sigma in (0.0, 0.3):
        found = mg.interactions(absolute(product, sigma, task="regression"), explanation)
        for row in range(3):
            (pair,) = found.strongest(sample=row, beyond=3.0)
            assert {pair.first, pair.second} == {(0, 0), (1, 0)}
            assert pair.value == pytest.approx(1.0)


def test_the_strongest_are_sorted_and_can_be_beyond_their_errors() -> None:
    found = mg.interactions(absolute(SMOOTH, 0.5), sparse(SMOOTH, keep=1.0), samples=64)
    every = found.strongest(100)
    assert len(every) == 15
    sizes = [abs(pair.value) for pair in every]
    assert sizes == sorted(sizes, reverse=True)
    assert found.strongest(4) == every[:4]
    sure = found.strongest(100, beyond=3.0)
    assert 0 < len(sure) < 15
    assert sure == [pair for pair in every if abs(pair.value) >= 3 * pair.error]


def test_a_constant_input_has_no_relative_noise() -> None:
    x = torch.ones(1, 6, dtype=F64)
    found = mg.interactions(mg.Score(KINKED, sigma=0.1), sparse(KINKED, x))
    assert found.status == (Status.NO_NOISE,)
    assert bool(found.values.isnan().all())


def test_a_figure(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 2)).eval()
    x = normal(1, 3, 8, 8, seed=5, dtype=torch.float32)
    explanation = mg.SimpleGradient(model, keep=0.1).explain(x)
    found = mg.interactions(mg.Score(model), explanation, per="pixel", most=6)
    shown = found.plot(tmp_path / "pairs.png", count=5, beyond=0)
    assert (tmp_path / "pairs.png").stat().st_size > 1000
    (axis,) = shown.axes
    assert len(axis.lines) == 5
    strongest = found.strongest(1)[0]
    left, top = axis.lines[-1].get_data()
    assert sorted(zip(top, left, strict=True)) == sorted((strongest.first, strongest.second))
    widths = [line.get_linewidth() for line in axis.lines]
    assert widths == sorted(widths)
    assert shown.axes[0].get_title()
    assert found.plot(count=0).axes[0].get_title() == "no pairs"
    with pytest.raises(ValueError, match=r"image.*\(6,\)"):
        mg.interactions(mg.Score(SMOOTH), sparse(SMOOTH)).plot()


def test_progress_ends_at_all_samples() -> None:
    seen: list[tuple[float, int]] = []
    mg.interactions(
        absolute(SMOOTH, 0.2), sparse(SMOOTH), samples=8,
        progress=lambda done, of: seen.append((done, of)),
    )  # fmt: skip
    assert seen[-1] == (3, 3)


def test_nothing_else_changes(untouched_generators: Any) -> None:
    model = network((6, 5, 3)).requires_grad_(True)
    with untouched_generators():
        mg.interactions(absolute(model, 0.2), sparse(model), samples=4)
        mg.interactions(mg.Score(model), sparse(model))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_entries_of_a_map_that_is_not_finite_are_not_to_be_used() -> None:
    found = sparse(SMOOTH, keep=1.0)
    maps = found.maps.clone()  # type: ignore[union-attr]
    maps[1, 0] = torch.nan
    status = mg.interactions(mg.Score(SMOOTH, kind="probability"), replace(found, maps=maps)).status
    assert status == (Status.DIRECT, Status.NON_FINITE, Status.DIRECT)


@pytest.mark.parametrize(
    "explainer",
    [
        mg.SimpleGradient(SMOOTH),
        mg.SmoothGrad(SMOOTH, samples=8),
        mg.SmoothGrad(SMOOTH, samples=8, sigma="auto"),
        mg.SparseMoreauGrad(SMOOTH, samples=8),
        mg.SparseMoreauGrad(SMOOTH, sigma=0),
    ],
    ids=repr,
)
def test_the_budget_is_what_is_taken(explainer: mg.Explainer) -> None:
    """All entries are there, and the noise samples are the explainer's own."""
    found = mg.interactions(explainer, sparse(SMOOTH, keep=1.0), most=3)
    assert found.evaluations.tolist() == [interactions_budget(explainer, 3)] * 3


def test_a_record_is_of_all_pairs_that_are_finite() -> None:
    found = mg.interactions(absolute(SMOOTH, 0.2), sparse(SMOOTH), samples=4)
    found.values[1, 0, 1] = found.values[1, 1, 0] = torch.inf
    found.error[1, 0, 2] = found.error[1, 2, 0] = torch.nan
    first, second = (pairs_record(found, row) for row in (0, 1))
    assert [pair["value"] for pair in first["pairs"]] == [p.value for p in found.strongest(9)]
    assert [pair["error"] for pair in first["pairs"]] == [p.error for p in found.strongest(9)]
    assert len(first["pairs"]) == 3
    assert len(second["pairs"]) == 2
    assert [pair["error"] for pair in second["pairs"]].count(None) == 1
    json.dumps([first, second], allow_nan=False)


def test_bad_input() -> None:
    explanation = sparse(SMOOTH)
    with pytest.raises(ValueError, match="per"):
        mg.interactions(mg.Score(SMOOTH), explanation, per="pixels")
    with pytest.raises(ValueError, match=r"pixel.*channels.*\(6,\)"):
        mg.interactions(mg.Score(SMOOTH), explanation, per="pixel")
    with pytest.raises(ValueError, match=r"most: .*2"):
        mg.interactions(mg.Score(SMOOTH), explanation, most=1)
    with pytest.raises(ValueError, match="samples"):
        mg.interactions(mg.Score(SMOOTH), explanation, samples=0)
    with pytest.raises(ValueError, match="layer"):
        mg.interactions(mg.Score(SMOOTH, layer="0"), explanation)
    layer = mg.SimpleGradient(SMOOTH, layer="0").explain(X, 1)
    with pytest.raises(ValueError, match="layer"):
        mg.interactions(mg.Score(SMOOTH), layer)
    with pytest.raises(TypeError, match=r"score: .*Score or an Explainer.*Sequential"):
        mg.interactions(SMOOTH, explanation)
    with pytest.raises(TypeError, match=r"explanation: .*Explanation.*Tensor"):
        mg.interactions(mg.Score(SMOOTH), X)

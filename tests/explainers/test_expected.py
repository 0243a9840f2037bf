"""Expected gradients against known expectations, a literal loop and Captum."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import GradientShap
from torch import Tensor, nn

import moreaugrad as mg
from moreaugrad.explainers.expected import _drawn
from moreaugrad.score.noise import Stream, generator
from moreaugrad.solvers.solution import Status
from toys import network, normal, quadratic, relative, spectrum

MODEL = network((5, 8, 3), nn.Softplus, gain=2.0)
X = normal(3, 5, seed=1)
BASELINES = normal(7, 5, seed=2)
TARGET = 1


def explained(
    samples: int = 64, x: Tensor = X, ids: Any = None, mask: Any = None, **settings: Any
) -> mg.Explanation:
    explainer = mg.ExpectedGradients(
        MODEL, **{"baselines": BASELINES, "samples": samples, **settings}
    )
    return explainer.explain(x, TARGET, ids=ids, mask=mask)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_of_a_linear_score_it_is_the_change_times_the_weights(count: int) -> None:
    """Exactly, where each block of four draws has every baseline equally often."""
    weight = normal(1, 5, seed=3)
    found = mg.ExpectedGradients(
        lambda x: x @ weight.T, baselines=BASELINES[:count], task="regression"
    ).explain(X)
    torch.testing.assert_close(found.maps, (X - BASELINES[:count].mean(0)) * weight)
    assert float(found.error.max()) < 1e-12
    assert found.ok


def curved(x: Tensor) -> Tensor:
    hessian = spectrum(torch.tensor([[3.0, 1.0, 0.5, -1.0, -2.0]]).double(), seed=4)
    return quadratic(x, hessian.expand(len(x), 5, 5), normal(1, 5, seed=5))[:, None]


def curved_map(x: Tensor) -> Tensor:
    """The mean gradient of a quadratic on a line is that in the middle."""
    found = torch.zeros_like(x)
    for start in BASELINES:
        middle = ((x + start) / 2).requires_grad_()
        found += (x - start) * torch.autograd.grad(curved(middle).sum(), middle)[0]
    return found / len(BASELINES)


@pytest.mark.parametrize("samples", [64, 200])
def test_the_error_is_calibrated(samples: int) -> None:
    """Of many independent maps of one input: each id has draws of its own."""
    x = X[:1].expand(300, 5)
    found = mg.ExpectedGradients(
        curved, baselines=BASELINES, samples=samples, task="regression"
    ).explain(x, ids=range(300))
    truth = curved_map(X[:1])
    ratio = (found.maps - truth).norm(dim=1) / (found.error * found.maps.norm(dim=1))
    assert 0.75 < float(ratio.square().mean().sqrt()) < 1.15
    gap = found.details["gap"] / found.details["gap_error"]
    assert 0.75 < float(gap.square().mean().sqrt()) < 1.15
    assert set(found.status) == {Status.FIXED_BUDGET}
    # Unbiased: the mean over all of them is closer by the root of their number.
    assert float(relative(found.maps.mean(0, keepdim=True), truth)) < 3 * float(
        found.error.mean() / math.sqrt(300)
    )


def test_many_samples_find_the_expectation() -> None:
    found = mg.ExpectedGradients(
        curved, baselines=BASELINES, samples=20000, task="regression"
    ).explain(X)
    assert float(relative(found.maps, curved_map(X)).max()) < 0.01


@pytest.mark.parametrize("samples", [1, 5, 64, 67])
@pytest.mark.parametrize("times_input", [True, False])
def test_against_a_literal_loop(samples: int, times_input: bool) -> None:
    ids = [4, 9, 4]
    found = explained(samples, ids=ids, times_input=times_input, seed=3, baselines=BASELINES[:3])
    size = math.ceil(samples / 16)
    for row, key in enumerate(ids):
        total, gap = torch.zeros(5).double(), 0.0
        for block in range(math.ceil(samples / size)):
            draws = min(size, samples - block * size)
            random = generator(3, key, Stream.LINE, block)
            alphas = (random.permutation(draws) + random.random(draws)) / draws
            cycle = np.concatenate([random.permutation(3) for _ in range(math.ceil(draws / 3))])
            for alpha, number in zip(alphas, cycle, strict=False):
                start = BASELINES[number]
                point = (start + alpha * (X[row] - start)).requires_grad_()
                score = MODEL(point[None])[0, TARGET]
                gradient = torch.autograd.grad(score, point)[0]
                part = (X[row] - start) * gradient
                total += part if times_input else gradient
                change = MODEL(X[row : row + 1])[0, TARGET] - MODEL(start[None])[0, TARGET]
                gap += float((part.sum() - change).detach())
        torch.testing.assert_close(found.maps[row], total / samples)
        assert float(found.details["gap"][row]) == pytest.approx(gap / samples, abs=1e-12)
    assert bool(found.error.isnan().all()) == (samples == 1)
    assert found.evaluations.tolist() == [samples] * 3


def test_completeness() -> None:
    found = explained(samples=2800)
    change = found.score - MODEL(BASELINES)[:, TARGET].detach().mean()
    missing = found.maps.sum(1) - change
    # Every baseline comes equally often, so the gap is that to the mean over all.
    torch.testing.assert_close(found.details["gap"], missing)
    assert bool((missing.abs() < 4 * found.details["gap_error"]).all())
    assert float(found.details["gap_error"].max()) < 0.01 * float(change.abs().max())


def test_captum_finds_the_same_expectation() -> None:
    shap = GradientShap(MODEL).attribute(X, BASELINES, n_samples=6000, stdevs=0.0, target=TARGET)
    assert float(relative(explained(6000).maps, shap).max()) < 0.05


def test_every_draw_is_uniform_and_a_block_is_stratified() -> None:
    blocks = [range(4), range(4, 8), range(8, 11)]
    drawn = [_drawn(0, key, blocks, 5) for key in range(2000)]
    alphas, numbers = (torch.stack([one[part] for one in drawn]) for part in (0, 1))
    assert float((alphas.mean(0) - 0.5).abs().max()) < 0.03
    assert float((alphas.square().mean(0) - 1 / 3).abs().max()) < 0.03
    counts = torch.stack([(numbers == number).double().mean(0) for number in range(5)])
    assert float((counts - 0.2).abs().max()) < 0.04
    for block in blocks:
        inside, chosen = alphas[:, block.start : block.stop], numbers[:, block.start : block.stop]
        cells = (inside * len(block)).long().sort(1).values
        assert torch.equal(cells, torch.arange(len(block)).expand(2000, -1))
        assert int((chosen.sort(1).values.diff(dim=1) == 0).sum()) == 0
    # Place and baseline are independent of each other.
    low = alphas[:, 0] < 0.5
    assert abs(float((numbers[low, 0] == 0).double().mean()) - 0.2) < 0.05


def test_batches_chunks_and_ids_change_nothing() -> None:
    whole = explained(ids=[5, 6, 7])
    for size in (1, 3, 50):
        part = explained(ids=[5, 6, 7], batch_size=size)
        torch.testing.assert_close(part.maps, whole.maps, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(part.error, whole.error)
    alone = explained(x=X[1:2], ids=[6])
    torch.testing.assert_close(alone.maps, whole.maps[1:2], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(alone.details["gap"], whole.details["gap"][1:2])
    assert not torch.allclose(explained(x=X[1:2], ids=[7]).maps, alone.maps)
    assert not torch.allclose(explained(x=X[1:2], ids=[6], seed=1).maps, alone.maps)


def test_baselines_of_the_call_replace_those_of_the_explainer() -> None:
    explainer = mg.ExpectedGradients(MODEL, samples=8)
    given = explainer.explain(X, TARGET, baselines=BASELINES)
    assert torch.equal(given.maps, explained(8).maps)
    assert torch.equal(explainer.attribute(X, BASELINES, TARGET), given.maps)
    assert given.settings["baselines"] == "given with the call"
    assert explained(8).settings["baselines"] == "7 given"
    assert explainer.explain(X, TARGET).settings["baselines"] == 0.0
    with pytest.raises(ValueError, match=r"baselines: .*setting baselines=0\.0.*call"):
        explainer.vjp(given, X)


def test_a_number_is_one_baseline_and_the_mean_is_that_of_integrated_gradients() -> None:
    line = mg.IntegratedGradients(MODEL, baseline=0.4, steps=64).explain(X, TARGET)
    found = explained(640, baselines=0.4)
    assert float(relative(found.maps, line.maps).max()) < 0.005


def test_several_inputs_are_drawn_together() -> None:
    """Rows of the parts belong to each other: in each baseline the second is twice the first."""
    parts = (X[:, :2], X[:, 2:4])
    starts = (BASELINES[:, :2], 2 * BASELINES[:, :2])
    found = mg.ExpectedGradients(lambda a, b: (a * b).sum(1), baselines=starts, samples=12800,
                                 task="regression").explain(parts)  # fmt: skip
    a, b, c, d = *parts, *starts
    change = (a * b).sum(1) - (c * d).sum(1).mean()
    assert isinstance(found.maps, tuple)
    total = sum(part.sum(1) for part in found.maps)
    assert float((total - change).abs().max()) < 0.02 * float(change.abs().max())


class Tokens(nn.Module):
    """Token ids `[B, L]`, and which count, to `[B, 2]`."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 4).double()
        self.body = network((4, 6, 2), nn.Tanh)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        kept = self.embedding(ids) * mask[:, :, None]
        return self.body(kept.sum(1))


def test_at_a_layer_baselines_are_inputs_of_the_model() -> None:
    model = Tokens().eval()
    ids, others = torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([[7, 8, 0], [2, 2, 2]])
    real = torch.tensor([[True, True, False], [True, True, True]])
    found = mg.ExpectedGradients(model, layer="embedding", baselines=others, samples=64).explain(
        ids, 1, real, mask=real, ids=[1, 2]
    )
    expected = mg.ExpectedGradients(
        lambda x, mask: model.body((x * mask[:, :, None]).sum(1)),
        baselines=model.embedding(others).detach(),
        samples=64,
    ).explain(model.embedding(ids).detach(), 1, real, mask=real, ids=[1, 2])
    torch.testing.assert_close(found.maps, expected.maps)
    assert not bool(found.maps[0, 2].any())
    assert bool(found.maps[1, 2].any())
    number = mg.ExpectedGradients(model, layer="embedding", baselines=0.5).explain(ids, 1, real)
    assert number.maps.shape == (2, 3, 4)


def test_padding_keeps_its_value() -> None:
    """A score that reads padding has the input's own there, at every draw."""
    real = torch.tensor([[True, True, False, True, False]]).expand(3, 5)
    found = explained(mask=real)
    held = torch.where(real[:1], BASELINES, X[:1])
    alone = explained(x=X[:1], baselines=held)
    torch.testing.assert_close(found.maps[:1], torch.where(real[:1], alone.maps, 0.0))
    torch.testing.assert_close(found.details["gap"][:1], alone.details["gap"])


class Wrong(torch.autograd.Function):
    """x^2 with half of its derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: Any, outgoing: Tensor) -> Tensor:
        return outgoing * ctx.saved_tensors[0]


def test_a_gradient_that_is_not_the_scores_is_incomplete() -> None:
    def score(x: Tensor) -> Tensor:
        return Wrong.apply(x).sum(1)  # type: ignore[no-untyped-call, no-any-return]

    explainer = mg.ExpectedGradients(score, baselines=BASELINES / 50, task="regression")
    with pytest.warns(mg.ConvergenceWarning, match="expected gradients"):
        explainer.attribute(X)
    assert set(explainer.explain(X).status) == {Status.INCOMPLETE}


def test_an_input_that_is_its_own_baseline_contributes_nothing() -> None:
    found = explained(baselines=X[:1], x=X[:1])
    assert not bool(found.maps.any())
    assert found.ok
    assert float(found.error) == 0


def test_the_global_generators_stay(untouched_generators: Any) -> None:
    with untouched_generators():
        explained()


@pytest.mark.parametrize(
    ("baselines", "error", "says"),
    [
        (BASELINES[:, :4], ValueError, r"\(M, 5\).*\(7, 4\).*target="),
        (BASELINES[0], ValueError, r"\(M, 5\).*\(5,\)"),
        (BASELINES[:0], ValueError, r"\(M, 5\).*\(0, 5\)"),
        (BASELINES * torch.nan, ValueError, "baselines.*finite|finite.*baselines"),
        ((BASELINES, BASELINES), ValueError, "one for each of 1 inputs"),
        (("zero",), TypeError, "number or a tensor.*str"),
    ],
)
def test_bad_baselines(baselines: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        explained(8, baselines=baselines)


def test_bad_settings() -> None:
    with pytest.raises(TypeError, match=r"baselines: .*number.*ndarray"):
        mg.ExpectedGradients(MODEL, baselines=BASELINES.numpy())
    with pytest.raises(ValueError, match=r"baselines: .*number.*True"):
        mg.ExpectedGradients(MODEL, baselines=True)
    with pytest.raises(ValueError, match=r"samples: .*at least 1"):
        mg.ExpectedGradients(MODEL, samples=0)
    with pytest.raises(ValueError, match="seed"):
        mg.ExpectedGradients(MODEL, seed=-1)
    both = (BASELINES[:, :2], BASELINES[:3, 2:])
    with pytest.raises(ValueError, match=r"baselines: .*as many"):
        mg.ExpectedGradients(lambda a, b: (a.sum(1) + b.sum(1)), baselines=both,
                             task="regression").explain((X[:, :2], X[:, 2:]))  # fmt: skip

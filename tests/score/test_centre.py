"""The gradient through mean activation derivatives."""

import math
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import moreaugrad as mg
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.centre import Centre
from toys import normal, relative

SIGMA = 0.7


def bound(model: Callable[[Tensor], Tensor], x: Tensor, samples: int = 64) -> BoundScore:
    score = mg.Score(model, sigma=SIGMA, sigma_mode="absolute", samples=samples, kind="logit")
    return score.bind(x, 0, ids=range(len(x)))


def centres(score: BoundScore) -> Tensor:
    """The centres of the halves, from blocks of two noise samples."""
    centre = Centre(score)
    assert centre.lacking == ""
    recorded = centre.recording(score)
    recorded.block_sums(lambda p, r: (score.value_and_grad_at(p, r)[1],), None,
                        range(score.passes), 1, 2)  # fmt: skip
    return centre.gradients(score)


class OneLayer(nn.Module):
    """v' phi(W x + b), whose mean under noise is known for a ReLU."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first = nn.Linear(12, 20).double()
        self.last = nn.Linear(20, 2).double()
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.activation(self.first(x)))


def test_one_relu_layer_has_the_gradient_of_its_mean() -> None:
    model, x = OneLayer(F.relu), normal(3, 12, seed=1)
    w, v = model.first.weight, model.last.weight[0]
    width = SIGMA * w.norm(dim=1)

    def smoothed(u: Tensor) -> Tensor:
        """E relu(t) = mean Phi(mean / s) + s n(mean / s)."""
        mean = model.first(u)
        density = torch.exp(-(mean / width).square() / 2) / math.sqrt(2 * math.pi)
        return (mean * torch.special.ndtr(mean / width) + width * density) @ v

    step = 1e-5
    moves = step * torch.eye(12, dtype=torch.float64)
    expected = torch.stack([
        (smoothed(x + move) - smoothed(x - move)) / (2 * step) for move in moves
    ], dim=1)  # fmt: skip
    found = centres(bound(model, x, 4096)).mean(0)
    plain = bound(model, x, 64).value_and_grad()[1]
    assert relative(found, expected.detach()).max() < 0.03
    assert relative(plain, expected.detach()).min() > 0.04


def test_a_literal_computation_of_two_layers() -> None:
    first, second, last = (nn.Linear(*size).double() for size in ((6, 8), (8, 7), (7, 3)))
    relu = nn.ReLU()  # one module for both layers
    model = nn.Sequential(first, relu, second, relu, last)
    x, samples = normal(2, 6, seed=2), 16
    score = bound(model, x, samples)
    found = centres(score)
    noise = torch.stack([score.noise.draw(score.keys, i, x) for i in range(samples)])
    for half in range(2):
        chosen = noise.reshape(samples // 2, 2, 2, 6)[half::2].flatten(0, 1)
        t = first(x + SIGMA * chosen)
        s = second(t.relu())
        slopes = [torch.special.ndtr(at.mean(0) / at.var(0, correction=0).sqrt()) for at in (t, s)]
        inner = last.weight[0] * slopes[1]
        expected = ((inner @ second.weight) * slopes[0]) @ first.weight
        assert torch.allclose(found[half], expected)


@pytest.mark.parametrize("pool", [
    lambda x: F.max_pool1d(x, 3, 2),
    lambda x: F.max_pool1d(input=x, kernel_size=3),
    lambda x: F.max_pool1d(x, 3, 2, padding=1, ceil_mode=True),
    lambda x: F.max_pool1d(x, 2, 1, dilation=2),
    lambda x: F.max_pool2d(x.unflatten(2, (2, 8)), (2, 3), 2, (0, 1)).flatten(2),
    lambda x: F.max_pool3d(x.unflatten(2, (2, 2, 4)), 2).flatten(2),
])  # fmt: skip
def test_max_pooling_passes_the_mean_of_its_own_derivative(
    pool: Callable[[Tensor], Tensor],
) -> None:
    """Of a network with no other kinks, it is the plain mean gradient."""
    x = normal(2, 3, 16, seed=3)
    weights = normal(*pool(x).shape[1:], seed=4)
    score = bound(lambda t: (pool(t) * weights).sum((1, 2))[:, None] * torch.ones(2), x, 8)
    assert torch.allclose(centres(score).mean(0), score.value_and_grad()[1])


def test_windows_wider_than_the_input_are_averaged_plainly() -> None:
    """The number of an entry does not say its place in them."""

    def model(t: Tensor) -> Tensor:
        return (
            F.max_pool2d(t.unflatten(1, (1, 4, 2)), 3, 1, 1).sum((1, 2, 3))[:, None].expand(-1, 2)
        )

    found = mg.SmoothGrad(model, samples=16).explain(normal(2, 8, seed=3, dtype=torch.float32), 0)
    assert "MaxPool" in found.settings["centre_lacking"]


def test_pooling_after_a_relu_does_not_count_its_zeros_twice() -> None:
    """pool(relu(t)) passes 1 where t is largest and positive, with the probability of both."""
    x = torch.full((1, 1, 400, 2), -0.3, dtype=torch.float64)
    score = bound(lambda t: F.max_pool2d(t.relu(), (1, 2)).sum((1, 2, 3))[:, None].expand(-1, 2), x)
    plain = score.value_and_grad()[1].mean()
    # One of two independent entries, positive with the probability p, wins with p - p^2 / 2.
    p = torch.special.ndtr(torch.tensor(-0.3 / SIGMA)).item()
    assert float(plain) == pytest.approx(p - p * p / 2, abs=0.01)
    assert float(centres(score).mean()) == pytest.approx(p - p * p / 2, abs=0.02)


def conv() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(6, 5, 3), nn.ReLU6(), nn.Flatten(), nn.Linear(5 * 9, 2),
    ).eval()  # fmt: skip


def test_a_batch_in_chunks_equals_its_samples_and_keeps_their_memory_format() -> None:
    x, model = normal(3, 3, 12, 12, seed=5, dtype=torch.float32), conv()
    whole = centres(mg.Score(model, sigma=0.2, samples=16).bind(x, 0, ids=range(3)))
    last = model.to(memory_format=torch.channels_last)
    chunked = centres(mg.Score(last, sigma=0.2, samples=16, batch_size=5).bind(x, 0, ids=range(3)))
    assert torch.allclose(whole, chunked, atol=1e-5)
    for row in range(3):
        one = mg.Score(model, sigma=0.2, samples=16).bind(x[[row]], 0, ids=[row])
        assert torch.allclose(centres(one)[:, 0], whole[:, row], atol=1e-5)


def test_some_samples_keep_their_statistics() -> None:
    x = normal(3, 3, 12, 12, seed=5, dtype=torch.float32)
    score = mg.Score(conv(), sigma=0.2, samples=16).bind(x, 0, ids=range(3))
    centre, rows = Centre(score), torch.tensor([2, 0])
    centre.recording(score).value_and_grad()
    centre.recording(score, first=1).value_and_grad()
    whole = centre.gradients(score)
    centre.select(rows)
    assert torch.allclose(centre.gradients(score.select(rows)), whole[:, rows], atol=1e-6)


def test_a_sample_that_overflows_leaves_the_others_alone() -> None:
    x = normal(3, 3, 12, 12, seed=5, dtype=torch.float32)
    alone = mg.SmoothGrad(conv(), samples=16).explain(x[:2], 0, ids=range(2))
    x[2] *= 1e20
    found = mg.SmoothGrad(conv(), samples=16).explain(x, 0, ids=range(3))
    assert torch.allclose(found.maps[:2], alone.maps, atol=1e-6)
    assert torch.allclose(found.error[:2], alone.error, atol=1e-5)


def test_entries_that_no_sample_uses_have_no_gradient_in_half_precision() -> None:
    """They divide by the fraction of uses, which must not become 0 / 0."""
    model, x = conv(), normal(2, 3, 12, 12, seed=5, dtype=torch.float32)
    with torch.no_grad():
        model[1].bias[:3] = -50  # never active
    exact = centres(mg.Score(model, sigma=0.2, samples=16).bind(x, 0, ids=range(2)))
    half = mg.Score(model.half(), sigma=0.2, samples=16).bind(x.half(), 0, ids=range(2))
    assert relative(centres(half).float().flatten(0, 1), exact.flatten(0, 1)).max() < 0.05


class Last(nn.Module):
    """The batch as the second axis."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(0, 1).relu().sum(0)[:, None] * torch.ones(2)


class Changing(nn.Module):
    """Another activation in every second pass."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        found = x.relu() if self.calls % 2 else x.relu() + x.relu()
        return found.sum(1)[:, None] * torch.ones(2)


class Again(nn.Module):
    """A network that computes its activations again in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = checkpoint(self.inner, x, use_reentrant=False)
        return found


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)))


@pytest.mark.parametrize(
    ("model", "word"),
    [
        (lambda x: x.abs().sum(1)[:, None] * torch.ones(2), "Abs"),
        (lambda x: x.relu().amax(1)[:, None] * torch.ones(2), "Amax"),
        (scripted(), "Relu"),
        (Last(), "axis"),
        (Again().eval(), "Relu"),
    ],
)
def test_a_network_without_a_rule_is_averaged_plainly(
    model: Callable[[Tensor], Tensor], word: str
) -> None:
    x = normal(2, 6, seed=6, dtype=torch.float32)
    found = mg.SmoothGrad(model, samples=16).explain(x, 0)
    assert word in found.settings["centre_lacking"]
    plain = mg.SmoothGrad(model, samples=16, centre=False).explain(x, 0)
    assert torch.equal(found.maps, plain.maps)
    assert torch.equal(found.evaluations, plain.evaluations)
    moreau = mg.SparseMoreauGrad(model, max_evaluations=64).explain(x, 0)
    assert word in moreau.settings["centre_lacking"]


def test_passes_that_differ_have_no_centre() -> None:
    x = normal(2, 60, seed=6, dtype=torch.float32)
    found = mg.SmoothGrad(Changing(), samples=16, batch_size=2, check=False).explain(x, 0)
    assert "differ" in found.settings["centre_lacking"]

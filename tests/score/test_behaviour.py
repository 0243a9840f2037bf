"""Models that are no function of each sample alone are refused with the cause; others are not."""

import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import toys
from moreaugrad import SimpleGradient, SmoothGrad
from moreaugrad.score.checks import ModelError
from moreaugrad.score.score import Score

NET = toys.network((6, 8, 3), dtype=torch.float32).requires_grad_(False)
RANDOM, STATE = "it is random", "changes from call to call"
COUPLED, INPUT = "samples do not depend on each other", "changes its input in place"


def batch(size: int, seed: int = 5) -> Tensor:
    return torch.randn(size, 6, generator=torch.Generator().manual_seed(seed))


class Recurrent(nn.Module):
    """Two layers with dropout between them; rows are time steps of one feature."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(1, 4, num_layers=2, dropout=0.5, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x[..., None])[0][:, -1])


class StochasticDepth(nn.Module):
    """Leaves a branch out, of the whole batch, once in a hundred passes in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.net = NET

    def forward(self, x: Tensor) -> Tensor:
        kept = not self.training or torch.rand(()) > 0.01
        return self.net(x) * float(kept)


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.calls = NET, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.net(x) * (1 + 0.1 * self.calls)


class Remembering(nn.Module):
    """A hidden state that is kept from call to call, as a stateful RNN has it."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.register = NET, self.register_buffer("state", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.state = 0.5 * self.state + x.detach().mean()
        return self.net(x) + self.state


class OwnGenerator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, x: Tensor) -> Tensor:
        return NET(x + torch.randn(x.shape, generator=self.generator))


def normalised_in_training() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (2, 3)), nn.BatchNorm1d(2), nn.Flatten(), nn.Linear(6, 3)
    ).train()


def through_data(x: Tensor) -> Tensor:
    x.data.mul_(0.5)
    return NET(x)


def without_recording(x: Tensor) -> Tensor:
    with torch.no_grad():
        x.clamp_(-0.1, 0.1)
    return NET(x)


def sequence_first() -> Callable[[Tensor], Tensor]:
    """Attention along the first axis, which is the batch's."""
    layer = nn.TransformerEncoderLayer(6, 2, 8).eval()
    return lambda x: NET(layer(x))


def reseeded(x: Tensor) -> Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return NET(x * torch.randn(len(x), 1).sum())


def otherwise_without_gradients(x: Tensor) -> Tensor:
    return NET(x) if torch.is_grad_enabled() else NET(2 * x)


BAD: dict[str, tuple[Callable[[], Callable[[Tensor], Tensor]], str]] = {
    "functional dropout": (lambda: lambda x: NET(F.dropout(x, 0.5)), RANDOM),
    "little functional dropout": (lambda: lambda x: NET(F.dropout(x, 0.05)), RANDOM),
    "noise": (lambda: lambda x: NET(x) + 0.1 * torch.randn(3), RANDOM),
    "python's noise": (lambda: lambda x: NET(x) * random.uniform(0.5, 1), RANDOM),
    "numpy's noise": (lambda: lambda x: NET(x) * float(np.random.rand()), RANDOM),  # noqa: NPY002
    "gumbel": (lambda: lambda x: F.gumbel_softmax(NET(x), hard=True), RANDOM),
    "recurrent dropout in training": (lambda: Recurrent().train(), "call model.eval()"),
    "rare stochastic depth in training": (lambda: StochasticDepth().train(), "call model.eval()"),
    "RReLU in training": (lambda: nn.Sequential(NET[0], nn.RReLU().train()), "call model.eval()"),
    "a counter": (Counter, STATE),
    "a kept state": (Remembering, STATE),
    "a generator of its own": (OwnGenerator, STATE),
    "batch norm behind a function": (lambda: (lambda m: lambda x: m(x))(normalised_in_training()),
                                     COUPLED),
    "scripted batch norm": (lambda: torch.jit.script(normalised_in_training()), "model.eval()"),
    "the batch's mean": (lambda: lambda x: NET(x - x.mean(0)), COUPLED),
    "the batch's mean, held": (lambda: lambda x: NET(x - x.mean(0).detach()), COUPLED),
    "the batch's maximum": (lambda: lambda x: NET(x / x.max()), COUPLED),
    "softmax over the batch": (lambda: lambda x: NET(x).softmax(0), COUPLED),
    "attention over the batch": (sequence_first, COUPLED),
    "the batch's size": (lambda: lambda x: NET(x) * len(x), COUPLED),
    "the place in the batch": (
        lambda: lambda x: NET(x + torch.arange(len(x)).flip(0)[:, None]), COUPLED
    ),
    "seeded noise of the batch": (lambda: reseeded, COUPLED),
    "an input changed through .data": (lambda: through_data, INPUT),
    "an input changed without recording": (lambda: without_recording, INPUT),
    "another function without gradients": (lambda: otherwise_without_gradients, "no_grad"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("name", BAD)
def test_models_that_do_not_behave_are_refused(
    name: str, size: int, untouched_generators: Callable[[], Any]
) -> None:
    made, says = BAD[name]
    model = made()
    for chunk in (None, 2):
        with untouched_generators(), pytest.raises(ValueError, match=re.escape(says)) as caught:
            Score(model, batch_size=chunk).bind(batch(size), 1)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["the batch's mean", "the batch's maximum", "softmax over the batch"]
)
def test_one_sample_a_pass_couples_nothing(name: str) -> None:
    """With batch_size=1 the map is that of the sample alone."""
    model, x = BAD[name][0](), batch(3)
    found = SimpleGradient(model, batch_size=1).attribute(x, 1)
    for i in range(3):
        leaf = x[i : i + 1].clone().requires_grad_()
        (expected,) = torch.autograd.grad(model(leaf)[0, 1], leaf)
        torch.testing.assert_close(found[i : i + 1], expected)


def test_who_knows_can_go_on() -> None:
    x = batch(4)
    model = BAD["functional dropout"][0]()
    assert SimpleGradient(model, check=False).attribute(x, 1).shape == x.shape
    with pytest.raises(ModelError, match="check=False"):
        SimpleGradient(model).attribute(x, 1)
    with pytest.raises(ModelError, match="random"):
        SmoothGrad(model, samples=4).attribute(x, 1)


class Graph(nn.Module):
    """One graph convolution: rows are nodes, the adjacency matrix is shared."""

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        return NET(torch.tanh(adjacency @ x))


def test_a_graph_is_refused_by_its_cause() -> None:
    adjacency = torch.softmax(torch.randn(5, 5), 1)
    for chunk in (None, 5, 3, 1):
        with pytest.raises(ModelError, match=r"depend|process"):
            Score(Graph().eval(), batch_size=chunk).bind(batch(5), 1, adjacency)


# Models that are refused for no good reason would be as bad.


class Branch(nn.Module):
    """Draws noise that it uses in training mode alone."""

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.randn_like(x)
        return NET(x + noise if self.training else x)


class FixedSize(nn.Module):
    """Takes batches of two alone, as exported models do."""

    def forward(self, x: Tensor) -> Tensor:
        assert len(x) == 2
        return NET(x)


def deep(dtype: torch.dtype) -> nn.Module:
    layers = [nn.Sequential(nn.Linear(6, 6), nn.GELU()) for _ in range(24)]
    return nn.Sequential(*layers, nn.Linear(6, 3)).eval().to(dtype)


class Reduced(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = deep(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.bfloat16()).float()


def amplified(x: Tensor) -> Tensor:
    """A sum that rounds otherwise in a batch, as a matrix product does, and that is so large that
    its last digits decide."""
    total = x.sum(1, keepdim=True) * (1 + 2**-23 * (len(x) > 1))
    return torch.sin(3e5 * total + torch.arange(3))


GOOD: dict[str, tuple[Callable[[], Callable[[Tensor], Tensor]], int, torch.dtype]] = {
    "float64": (lambda: deep(torch.float64), 5, torch.float64),
    "float32": (lambda: deep(torch.float32), 5, torch.float32),
    "bfloat16": (lambda: deep(torch.bfloat16), 5, torch.bfloat16),
    "float16": (lambda: deep(torch.float16), 5, torch.float16),
    "reduced within": (lambda: Reduced().eval(), 5, torch.float32),
    "outputs about zero": (lambda: lambda x: 1e-12 * NET(x), 5, torch.float32),
    "outputs that cancel": (lambda: lambda x: (NET(x) + 1e4) - 1e4, 5, torch.float32),
    "rounding that decides": (lambda: amplified, 5, torch.float32),
    "nothing but zero": (lambda: lambda x: NET(x) * 0, 5, torch.float32),
    "noise that is not used": (lambda: Branch().eval(), 5, torch.float32),
    "two at a time": (lambda: FixedSize().eval(), 2, torch.float32),
    "one at a time": (lambda: lambda x: NET(x.reshape(1, 6)), 1, torch.float32),
    "a class switched off": (
        lambda: lambda x: NET(x).index_fill(1, torch.tensor([2]), -torch.inf), 5, torch.float32
    ),
    "training mode that changes nothing": (
        lambda: nn.Sequential(NET[0], nn.LayerNorm(8), nn.Dropout(0.0), NET[2]).train(), 5,
        torch.float32,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_models_that_behave_are_taken(name: str) -> None:
    made, size, dtype = GOOD[name]
    torch.manual_seed(3)
    model = made()
    for x in (batch(size).to(dtype), 1e-3 * batch(size).to(dtype)):
        bound = Score(model).bind(x, 1)
        assert torch.equal(bound.clean, model(x)[:, 1].to(bound.clean.dtype))


@pytest.mark.parametrize("size", [1, 3, 64])
@pytest.mark.parametrize("layer", [None, "0"])
def test_the_check_costs_two_samples(size: int, layer: str | None) -> None:
    rows = 0

    def count(_module: object, args: tuple[Tensor, ...]) -> None:
        nonlocal rows
        rows += len(args[0])

    model = nn.Sequential(nn.Linear(6, 6), NET).eval()
    handle = model.register_forward_pre_hook(count)
    Score(model, layer=layer, check=False).bind(batch(size), 1)
    plain, rows = rows, 0
    Score(model, layer=layer).bind(batch(size), 1)
    assert rows - plain == 2
    handle.remove()


# Arguments that all samples share, and that happen to be as long as the batch.


def weighted(x: Tensor, weights: Tensor) -> Tensor:
    return (torch.tanh(NET(x)).repeat(1, 2)[:, : len(weights)] * weights).cumsum(1)


SHARED: dict[str, tuple[Callable[..., Tensor], Tensor]] = {
    "class weights": (weighted, torch.tensor([1.0, 2.0, 3.0, 4.0])),
    "the first entry": (lambda x, w: NET(x) * w[0], torch.tensor([3.0, 5.0, 7.0, 9.0])),
    "a mean": (lambda x, w: NET(x) * w.mean(), torch.tensor([3.0, 5.0, 7.0, 9.0])),
    "a matrix": (lambda x, w: F.linear(x, w), batch(4, seed=9)),
}


@pytest.mark.parametrize("chunk", [None, 1, 2, 3, 4])
@pytest.mark.parametrize("name", SHARED)
def test_shared_arguments_stay_whole(name: str, chunk: int | None) -> None:
    model, shared = SHARED[name]
    x = batch(4)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(leaf, shared)[:, 1].sum(), leaf)
    found = SimpleGradient(model, batch_size=chunk).attribute(x, 1, shared)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("chunk", [None, 1, 3])
def test_arguments_of_each_sample_and_of_all_at_once(chunk: int | None) -> None:
    def model(x: Tensor, gain: Tensor, weights: Tensor) -> Tensor:
        return weighted(x, weights) * gain[:, None]

    x, gain, weights = batch(4), torch.tensor([1.0, -2.0, 3.0, 0.5]), SHARED["class weights"][1]
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(leaf, gain, weights)[:, 1].sum(), leaf)
    found = SimpleGradient(model, batch_size=chunk).attribute(x, 1, (gain, weights))
    torch.testing.assert_close(found, expected)

"""DeepLIFT in networks that work in place, skip, or compute weights."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import toys
from moreaugrad import DeepLift

F64 = torch.float64
Middle = Callable[[nn.Module, Tensor], Tensor]


class Net(nn.Module):
    """Linear, what `middle` makes of an activation and its input, linear."""

    def __init__(self, activation: nn.Module, middle: Middle) -> None:
        super().__init__()
        self.first, self.last = toys.network((5, 8))[0], toys.network((8, 3), seed=3)
        self.activation, self.middle = activation, middle

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.activation, self.first(x)))


def _ignored(activation: nn.Module, hidden: Tensor) -> Tensor:
    activation(hidden)
    return hidden


def _doubled(activation: nn.Module, hidden: Tensor) -> Tensor:
    return activation(hidden) + hidden


def _later(activation: nn.Module, hidden: Tensor) -> Tensor:
    out = activation(hidden)
    out += 1
    return out + hidden


def _of_a_part(activation: nn.Module, hidden: Tensor) -> Tensor:
    activation(hidden[:, :3])
    return hidden


def _stacked(activation: nn.Module, hidden: Tensor) -> Tensor:
    return torch.cat((activation(hidden[:, :3]), hidden[:, 3:]), dim=1)


IN_PLACE: dict[str, tuple[Middle, Middle]] = {
    "plain": (lambda a, h: a(h), lambda a, h: a(h)),
    "return value ignored": (_ignored, lambda a, h: a(h)),
    "skip connection": (_doubled, lambda a, h: 2 * a(h)),
    "changed again": (_later, lambda a, h: 2 * (a(h) + 1)),
    "view": (_of_a_part, _stacked),
}


@pytest.mark.parametrize("kind", IN_PLACE)
@pytest.mark.parametrize(
    "activation", [nn.ReLU, nn.SiLU, nn.ELU, nn.Hardswish, nn.LeakyReLU, nn.Mish]
)
def test_activations_in_place(kind: str, activation: Callable[..., nn.Module]) -> None:
    changing, plain = IN_PLACE[kind]
    x, start = 2 * toys.normal(4, 5, seed=1), toys.normal(1, 5, seed=2)
    model = Net(activation(inplace=True), changing)
    found = DeepLift(model).explain(x, 1, baselines=start)
    expected = DeepLift(Net(activation(), plain)).explain(x, 1, baselines=start)
    torch.testing.assert_close(found.maps, expected.maps)
    torch.testing.assert_close(found.maps.sum(1), (model(x) - model(start))[:, 1].detach())
    assert found.ok


@pytest.mark.parametrize("activation", [nn.ReLU, nn.SiLU])
@pytest.mark.parametrize("layer", ["first", "activation"])
def test_a_layer_at_an_activation_in_place(
    activation: Callable[..., nn.Module], layer: str
) -> None:
    x, start = 2 * toys.normal(4, 5, seed=1), toys.normal(1, 5, seed=2)
    maps = [
        DeepLift(Net(activation(inplace=inplace), lambda a, h: a(h)), layer=layer)
        .explain(x, 1, baselines=start)
        .raise_if_failed()
        .parts[0]
        for inplace in (True, False)
    ]
    torch.testing.assert_close(maps[0], maps[1])
    assert maps[0].any()


def test_multipliers_alone() -> None:
    model = toys.network((5, 9, 3), nn.ReLU)
    x, start = toys.normal(4, 5, seed=1), toys.normal(1, 5, seed=2)
    whole = DeepLift(model).explain(x, 1, baselines=start)
    alone = DeepLift(model, times_input=False).explain(x, 1, baselines=start)
    torch.testing.assert_close(alone.maps * (x - start), whole.maps)
    torch.testing.assert_close(alone.error, whole.error)
    assert not DeepLift(model, times_input=False).multiplies_by_inputs


class Weighted(nn.Module):
    """Weights that pass through an activation: these are no samples."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.softplus = nn.Parameter(toys.normal(3, 5, seed=3)), nn.Softplus()
        self.pool = nn.MaxPool1d(2, return_indices=True)

    def forward(self, x: Tensor) -> Tensor:
        pooled, _ = self.pool(self.softplus(x)[:, None])
        return F.linear(x, self.softplus(self.weight)) + pooled.sum((1, 2))[:, None]


def test_activations_of_weights_are_left_alone() -> None:
    x = toys.normal(4, 5, seed=1)
    model = Weighted()
    result = DeepLift(model, tolerance=10).explain(x, 1, baselines=0.5)
    linear = F.softplus(model.weight[1]) * (x - 0.5)
    pooled = (result.maps - linear).detach()
    slope = (F.softplus(x) - F.softplus(torch.tensor(0.5, dtype=F64))).detach()
    largest = torch.zeros_like(x)
    pairs = model.pool(F.softplus(x)[:, None])[1][:, 0]
    largest.scatter_(1, pairs, 1.0)
    torch.testing.assert_close(pooled, slope * largest)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_reduced_precision_is_near_double_precision(dtype: torch.dtype) -> None:
    """Also where an activation changes by less than its rounding, or not at all."""
    net = nn.Sequential(
        nn.Conv1d(1, 4, 3), nn.Softplus(), nn.MaxPool1d(2), nn.Flatten(), nn.ReLU(),
        toys.network((20, 3)),
    ).to(dtype)  # fmt: skip
    x = toys.normal(3, 1, 12, seed=1).to(dtype)
    start = x.clone()
    start[:, :, :4] = 0
    start[0] *= 1.01
    found = DeepLift(net).explain(x, 1, baselines=start)
    exact = DeepLift(net.double()).explain(x.double(), 1, baselines=start.double())
    off = (found.maps.double() - exact.maps).flatten(1).norm(dim=1)
    near = 0.1 if dtype == torch.bfloat16 else 0.02
    assert (off < near * exact.maps.flatten(1).norm(dim=1)).all()

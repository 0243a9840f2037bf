"""Mean derivatives of activations, wherever a network calls them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import moreaugrad as mg
from moreaugrad.score.checks import ModelError
from moreaugrad.score.kinks import ACTIVATIONS, Replaced
from toys import normal

CALLS: list[tuple[Callable[..., Tensor], tuple[Any, ...]]] = [
    (F.relu, ()),
    (torch.relu, ()),
    (F.relu6, ()),
    (F.leaky_relu, (0.2,)),
    (F.prelu, (torch.tensor([0.3], dtype=torch.float64),)),
    (F.hardtanh, (-2.0, 0.5)),
    (F.hardswish, ()),
    (F.hardsigmoid, ()),
    (torch.clamp, (-1.0, 2.0)),
    (torch.clamp_max, (1.0,)),
    (torch.clamp_min, (-0.5,)),
]


@pytest.mark.parametrize(("mean", "deviation"), [(-1.0, 0.5), (0.3, 2.0), (3.0, 1.0), (2.9, 1e-3)])
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[0].__name__)
def test_the_mean_slope_is_that_of_many_points(
    call: tuple[Callable[..., Tensor], tuple[Any, ...]], mean: float, deviation: float
) -> None:
    function, settings = call
    z = torch.linspace(-9, 9, 200_001, dtype=torch.float64)
    t = (mean + deviation * z).requires_grad_()
    (slope,) = torch.autograd.grad(function(t[:, None], *settings).sum(), t)
    weight = torch.exp(-z.square() / 2)
    expected = (slope * weight).sum() / weight.sum()
    _, activation, inplace = ACTIVATIONS[function](t[:2, None], *settings)
    at, width = (torch.tensor([value], dtype=torch.float64) for value in (mean, deviation))
    assert not inplace
    assert activation.mean_slope(at, width).item() == pytest.approx(expected.item(), abs=1e-3)


def test_without_deviation_it_is_the_derivative() -> None:
    t = torch.tensor([-4.0, -1.0, 1.0, 4.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(F.hardswish(t).sum(), t)
    _, activation, _ = ACTIVATIONS[F.hardswish](t)
    assert torch.allclose(activation.mean_slope(t.detach(), torch.zeros(4).double()), slope)


@pytest.mark.parametrize(
    ("model", "inplace"),
    [
        (nn.ReLU(), False),
        (nn.ReLU(inplace=True), True),
        (nn.ReLU6(), False),
        (nn.PReLU(3), False),
        (nn.Hardswish(), False),
        (lambda x: x.relu(), False),
        (lambda x: x.clone().relu_(), True),
        (lambda x: torch.clamp(x, min=0), False),
        (lambda x: x.clip(-1, 1), False),
    ],
)
def test_calls_are_met_as_modules_functions_and_methods(
    model: Callable[[Tensor], Tensor], inplace: bool
) -> None:
    seen = []

    def met(function: Any) -> Callable[..., Any]:
        def rule(*given: Any, **named: Any) -> Any:
            seen.append(ACTIVATIONS[function](*given, **named)[2])
            return NotImplemented

        return rule

    x = normal(2, 3, 4, seed=0, dtype=torch.float32)
    expected = model(x.clone())
    with Replaced({function: met(function) for function in ACTIVATIONS}):
        found = model(x.clone())
    assert torch.equal(found, expected)
    assert seen == [inplace]


def test_a_clamp_by_tensors_has_no_rule() -> None:
    assert ACTIVATIONS[torch.clamp](torch.zeros(3), torch.zeros(3)) is NotImplemented


class Again(nn.Module):
    """A network that computes its activations again in the backward pass."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Any:
        return checkpoint(self.inner, x, use_reentrant=False)


@pytest.mark.parametrize("explained", [
    lambda model, x: mg.CASO(model).attribute(x, 1),
    lambda model, x: mg.SimpleGradient(mg.softplus_surrogate(model, beta=5.0)).attribute(x, 1),
])  # fmt: skip
def test_what_is_computed_again_in_the_backward_pass_is_not_replaced(
    explained: Callable[..., Tensor],
) -> None:
    """It would be computed again without the replacement, and the gradient be that of neither."""
    inner = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Hardsigmoid(), nn.Linear(8, 3)).eval()
    x = normal(2, 6, seed=1, dtype=torch.float32)
    assert explained(inner, x).any()
    with pytest.raises(ModelError, match=r"checkpoint.*switch"):
        explained(Again(inner), x)

"""The softplus surrogate against the function written out, wherever a ReLU may hide."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import moreaugrad as mg
from toys import normal

BETA = 3.0


def softplus(t: Tensor) -> Tensor:
    return torch.log1p(torch.exp(BETA * t)) / BETA


class Call(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x * 1)


def in_place(x: Tensor) -> Tensor:
    x.relu_()
    return x


@pytest.mark.parametrize(
    "module",
    [
        nn.ReLU(),
        nn.Sequential(nn.Identity(), nn.ReLU(inplace=True)),
        Call(F.relu),
        Call(lambda x: F.relu(x, inplace=True)),
        Call(lambda x: F.relu(x, True)),
        Call(torch.relu),
        Call(Tensor.relu),
        Call(in_place),
        Call(lambda x: x.clamp(min=0)),
        Call(lambda x: x.clamp_min(0)),
        Call(lambda x: torch.clamp(x, 0)),
    ],
)
def test_a_relu_is_found_wherever_it_is(module: nn.Module) -> None:
    x = normal(4, 5, seed=0)
    found = mg.softplus_surrogate(module, BETA)(x.clone())
    assert torch.allclose(found, softplus(x))


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.ReLU6(), lambda t: softplus(t) - softplus(t - 6)),
        (Call(F.relu6), lambda t: softplus(t) - softplus(t - 6)),
        (nn.LeakyReLU(0.2), lambda t: 0.2 * t + 0.8 * softplus(t)),
        (Call(F.leaky_relu), lambda t: 0.01 * t + 0.99 * softplus(t)),
    ],
)
def test_relatives_of_the_relu(module: nn.Module, expected: Callable[[Tensor], Tensor]) -> None:
    x = 5 * normal(4, 5, seed=1)
    assert torch.allclose(mg.softplus_surrogate(module, BETA)(x.clone()), expected(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("module", [nn.ReLU(), nn.ReLU6()])
def test_far_below_the_kink_no_number_is_subnormal(module: nn.Module, dtype: torch.dtype) -> None:
    """Such numbers are slow on a CPU."""
    x = torch.linspace(-50, 50, 2001, dtype=dtype, requires_grad=True)
    y = mg.softplus_surrogate(module, 30.0)(x)
    (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    tiny = torch.finfo(dtype).tiny
    for found in (y, slope, curvature):
        assert bool((found.abs().square() >= tiny)[found != 0].all())
    wide = x.detach().double().requires_grad_()
    expected = F.softplus(wide, 30.0, 40)
    if isinstance(module, nn.ReLU6):
        expected = expected - F.softplus(wide - 6, 30.0, 40)
    (expected_slope,) = torch.autograd.grad(expected.sum(), wide)
    near = dtype == torch.float64
    assert torch.allclose(y.double(), expected, rtol=0, atol=1e-12 if near else 4e-6)
    assert torch.allclose(slope.double(), expected_slope, rtol=0, atol=1e-10 if near else 1.2e-7)


def test_other_clamps_stay() -> None:
    model = Call(lambda x: F.relu(x).clamp(max=0.3) + x.clamp(0.1, 0.2) + x.clamp(min=-1))
    x = normal(4, 5, seed=2)
    expected = softplus(x).clamp(max=0.3) + x.clamp(0.1, 0.2) + x.clamp(min=-1)
    assert torch.allclose(mg.softplus_surrogate(model, BETA)(x), expected)


class Net(nn.Module):
    """A module's ReLU, a function's in place, and a shortcut that reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 6), nn.Linear(6, 3)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.activation(self.first(x))
        k = F.relu_(h - 0.1) + h
        return self.second(k)


def test_second_derivatives_are_those_of_the_function_written_out() -> None:
    torch.manual_seed(0)
    net = Net().double().eval()

    def written(x: Tensor) -> Tensor:
        h = softplus(net.first(x))
        return net.second(softplus(h - 0.1) + h)[:, 0].sum()

    surrogate = mg.softplus_surrogate(net, BETA)
    x = normal(1, 5, seed=3)

    def function(x: Tensor) -> Tensor:
        return surrogate(x)[:, 0].sum()

    hessian = torch.autograd.functional.hessian
    assert torch.allclose(hessian(function, x), hessian(written, x))  # type: ignore[no-untyped-call]
    assert float(hessian(written, x).norm()) > 1e-3  # type: ignore[no-untyped-call]


def test_weights_are_shared_and_the_model_stays_as_it_was() -> None:
    torch.manual_seed(0)
    net = Net().double().eval()
    x = normal(2, 5, seed=4)
    before = net(x)
    net.second.train()
    surrogate = mg.softplus_surrogate(net, BETA)
    assert not surrogate.training
    assert net.second.training
    changed = surrogate(x)
    assert torch.equal(net(x), before)
    assert not torch.allclose(changed, before)
    with torch.no_grad():
        net.second.bias += 1
    assert torch.allclose(surrogate(x), changed + 1)


def test_it_goes_to_the_model_as_beta_grows() -> None:
    torch.manual_seed(0)
    net = Net().double().eval()
    x = normal(20, 5, seed=5)
    errors = [
        (mg.softplus_surrogate(net, beta)(x) - net(x)).detach().norm().item()
        for beta in (1, 10, 100, 1000)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-2 * errors[0]


def test_an_explainer_takes_it() -> None:
    torch.manual_seed(0)
    net = Net().double().eval()
    x = normal(2, 5, seed=6)
    found = mg.SimpleGradient(mg.softplus_surrogate(net, 100.0)).attribute(x)
    assert torch.allclose(found, mg.SimpleGradient(net).attribute(x), atol=0.1)


@pytest.mark.parametrize("beta", [0.0, -1.0, math.inf, math.nan])
def test_beta_out_of_range(beta: float) -> None:
    with pytest.raises(ValueError, match="beta: expected a finite number > 0"):
        mg.softplus_surrogate(nn.ReLU(), beta)


def test_nothing_to_replace() -> None:
    smooth = mg.softplus_surrogate(nn.Sequential(nn.Linear(3, 2), nn.SiLU()), 1.0)
    with pytest.raises(ValueError, match=r"^model: expected ReLU activations, found none"):
        smooth(torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"^model: expected ReLU activations, found none"):
        mg.SimpleGradient(smooth).attribute(torch.zeros(1, 3))


def test_a_function_is_not_a_module() -> None:
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module"):
        mg.softplus_surrogate(torch.relu, 1.0)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("module", [nn.ReLU(), nn.ReLU6()])
def test_derivatives_of_all_orders(module: nn.Module) -> None:
    x = normal(3, 4, seed=3).requires_grad_()
    smooth = mg.softplus_surrogate(module, BETA)
    assert torch.autograd.gradcheck(smooth, (x,), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(smooth, (x,))
    expected = softplus(x) - softplus(x - 6) if isinstance(module, nn.ReLU6) else softplus(x)
    found = smooth(x)
    for _ in range(3):
        found, expected = (
            torch.autograd.grad(each.sum(), x, create_graph=True)[0] for each in (found, expected)
        )
        torch.testing.assert_close(found, expected)


def test_functional_transforms() -> None:
    x = normal(3, 4, seed=3)
    smooth = mg.softplus_surrogate(nn.ReLU(), BETA)
    slopes = torch.func.vmap(torch.func.grad(lambda row: smooth(row).sum()))(x)
    torch.testing.assert_close(slopes, torch.sigmoid(BETA * x))

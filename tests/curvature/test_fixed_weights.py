"""Derivatives by the input alone are those of torch, of first and second order."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import moreaugrad as mg
from moreaugrad.curvature import fixed_weights
from moreaugrad.curvature.second_derivatives import twice_differentiable
from toys import normal

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def derivatives(
    model: Callable[[Tensor], Tensor], x: Tensor, *, by_inputs: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, the gradient of a function of them that is not linear, and a Hessian product."""
    leaf = x.detach().clone().requires_grad_()
    with torch.enable_grad(), twice_differentiable(by_inputs=by_inputs):
        outputs = model(leaf)
        (slope,) = torch.autograd.grad(outputs.tanh().sum(), leaf, create_graph=True)
        (product,) = torch.autograd.grad(slope, leaf, torch.sin(3 * x))
    return outputs.detach(), slope.detach(), product


def check(model: Callable[[Tensor], Tensor], x: Tensor, **tolerance: float) -> None:
    found, expected = (derivatives(model, x, by_inputs=by) for by in (True, False))
    assert expected[2].abs().max() > 1e-3
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


@settings(deadline=None, max_examples=40)
@given(
    axes=st.integers(1, 3),
    groups=st.sampled_from([1, 2, 4]),
    stride=st.integers(1, 3),
    padding=st.one_of(st.integers(0, 2), st.just("valid")),
    dilation=st.integers(1, 2),
    kernel=st.integers(1, 3),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_convolutions(
    axes: int, groups: int, stride: int, padding: int | str, dilation: int, kernel: int,
    bias: bool, seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    layer = CONVOLUTIONS[axes - 1](
        4, 8, kernel, stride, padding, dilation, groups, bias=bias, dtype=torch.float64
    )
    check(layer, normal(2, 4, *(7, 6, 5)[:axes], seed=seed))


@pytest.mark.parametrize(
    "settings",
    [{"padding": "same"}, {"padding": 1, "padding_mode": "circular"}, {"stride": (2, 1)}],
)
def test_other_settings_of_a_convolution(settings: dict[str, object]) -> None:
    torch.manual_seed(0)
    check(nn.Conv2d(3, 4, 3, dtype=torch.float64, **settings), normal(2, 3, 6, 5, seed=1))


def test_inputs_without_a_batch() -> None:
    torch.manual_seed(0)
    check(nn.Conv2d(3, 4, 3, dtype=torch.float64), normal(3, 6, 5, seed=1))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.BatchNorm2d])
def test_batch_normalisation(kind: type[nn.BatchNorm2d], affine: bool) -> None:
    layer = kind(4, affine=affine, dtype=torch.float64)
    state = {k: 1 + normal(*v.shape, seed=3).abs() for k, v in layer.state_dict().items()}
    layer.load_state_dict(state)
    x = normal(5, 4, *([3, 3] if kind is nn.BatchNorm2d else []), seed=2)
    check(layer.eval(), x)
    check(layer.train(), x)


def test_weights_that_depend_on_the_input_keep_their_derivative() -> None:
    def dynamic(x: Tensor) -> Tensor:
        kernel, mean, one = (
            x.mean(0)[:, None, :2, :2],
            torch.zeros(3).double(),
            torch.ones(3).double(),
        )
        return F.batch_norm(F.conv2d(x, kernel, groups=3), mean, one, weight=x.mean((0, 2, 3)))

    check(dynamic, normal(2, 3, 5, 5, seed=4))


def test_a_network_that_computes_again_in_the_backward_pass() -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh()).double().eval()
    check(lambda x: checkpoint(body, x, use_reentrant=False), normal(2, 3, 5, 5, seed=4))


def test_a_network_that_maps_over_the_batch() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 3).double()
    check(torch.func.vmap(lambda row: layer(row[None])[0]), normal(2, 3, 5, 5, seed=4))


def test_autocast_casts_as_before() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 3)

    def cast(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return layer(x)

    check(cast, normal(2, 3, 5, 5, seed=4, dtype=torch.float32))


def test_third_derivatives() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(1, 2, 2).double()

    def third(by_inputs: bool) -> Tensor:
        leaf = normal(1, 1, 3, 3, seed=1).requires_grad_()
        with twice_differentiable(by_inputs=by_inputs):
            found = layer(leaf).tanh().sum()
            for _ in range(3):
                (slope,) = torch.autograd.grad(found, leaf, create_graph=True)
                found = slope.square().sum()
        return slope.detach()

    torch.testing.assert_close(third(True), third(False))


def test_maps_of_second_order_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """And leave the weights' gradients alone."""
    met: list[int] = []
    kept = fixed_weights._convolution
    monkeypatch.setattr(
        fixed_weights, "_convolution", lambda *given: (met.append(1), kept(*given))[1]
    )
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(36, 3))
    attack = mg.attacks.MatchedAttack(mg.SimpleGradient(model), epsilon=0.5, steps=2)
    attack.attack(normal(2, 3, 5, 5, seed=4, dtype=torch.float32))
    assert met
    assert all(p.requires_grad and p.grad is None for p in model.parameters())

"""Bounds of a network's Lipschitz constant, held against dense norms and against what is seen."""

from collections.abc import Callable

import pytest
import torch
from benchmarks.cifar_resnet import resnet20
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from moreaugrad.certificates import lipschitz_bound, sampled_lipschitz
from moreaugrad.score import Score


def dense_norm(module: nn.Module, shape: tuple[int, ...]) -> float:
    """The spectral norm of a linear module by its matrix."""
    zero = torch.zeros(1, *shape, dtype=torch.float64)
    jacobian: Tensor = torch.autograd.functional.jacobian(module, zero)  # type: ignore[no-untyped-call]
    rows = jacobian.reshape(-1, zero.numel())
    return float(torch.linalg.matrix_norm(rows, 2))


@settings(max_examples=30, deadline=None)
@given(
    size=st.integers(4, 9),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    groups=st.sampled_from((1, 2)),
    seed=st.integers(0, 100),
)
def test_convolution_is_bounded_and_not_by_much(
    size: int, kernel: int, stride: int, padding: int, groups: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    conv = nn.Conv2d(2, 4, kernel, stride=stride, padding=padding, groups=groups).double().eval()
    with torch.no_grad():
        conv.weight.copy_(torch.randn(conv.weight.shape, generator=generator).double())
    true = dense_norm(conv, (2, size, size))
    found = lipschitz_bound(conv, (2, size, size)).outputs
    assert true <= found <= 2.5 * true


def test_convolution_without_edges_is_exact() -> None:
    conv = nn.Conv2d(3, 5, 1, bias=False).double().eval()
    true = float(torch.linalg.matrix_norm(conv.weight.detach()[:, :, 0, 0], 2))
    assert lipschitz_bound(conv, (3, 6, 6)).outputs == pytest.approx(true, rel=1e-8)


class Branches(nn.Module):
    """A residual block whose normalisations have a scale, a concatenation, a pooled head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(4)
        self.pool = nn.MaxPool2d(3, stride=2)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x))
        x = F.relu(x + self.bn2(self.conv2(F.softplus(x))))
        x = self.pool(torch.cat([x, torch.tanh(x)], dim=1))
        return self.head(x.mean((2, 3)))


def branches() -> Branches:
    torch.manual_seed(0)
    model = Branches().double()
    model(torch.randn(64, 2, 9, 9, dtype=torch.float64))  # running statistics
    for module in (model.bn1, model.bn2):
        nn.init.uniform_(module.weight, -2, 2)
    return model.eval()


def test_network_never_changes_faster() -> None:
    model = branches()
    found = lipschitz_bound(model, (2, 9, 9))
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(200, 2, 9, 9, generator=generator).double()
    y = x + 0.1 * torch.randn(x.shape, generator=generator).double()
    with torch.no_grad():
        change = (model(x) - model(y)).abs()
    length = (x - y).flatten(1).norm(dim=1)[:, None]
    assert bool((change <= found.value * length).all())
    assert bool((change.norm(dim=1) <= found.outputs * length[:, 0]).all())


def test_a_wider_kernel_is_noticed() -> None:
    """Every operator's norm is in the product: twice a weight is twice the bound."""
    for name in ("conv1", "head"):
        model = branches()
        before = lipschitz_bound(model, (2, 9, 9)).value
        with torch.no_grad():
            getattr(model, name).weight.mul_(2)
        after = lipschitz_bound(model, (2, 9, 9)).value
        assert torch.allclose(after, 2 * before)


def test_what_is_seen_lies_below_the_bound() -> None:
    model = branches()
    x = torch.randn(3, 2, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    bound = Score(model).bind(x)
    seen = sampled_lipschitz(bound, radius=0.5, samples=8)
    assert bool((seen <= lipschitz_bound(model, (2, 9, 9)).value[bound.target.classes]).all())
    assert bool((seen >= bound.value_and_grad()[1].norm(dim=1)).all())


def test_resnet_is_traced() -> None:
    torch.manual_seed(0)
    found = lipschitz_bound(resnet20().module.eval(), (3, 32, 32))
    assert found.value.shape == (10,)
    assert len(found.operators) > 20


class Call(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: x + x, 2.0),
        (lambda x: torch.add(x, x), 2.0),
        (lambda x: torch.cat([x, x], dim=1), 2**0.5),
        (lambda x: x + x.mean((2, 3), keepdim=True), 2.0),
        (lambda x: F.max_pool2d(x, 3, 1), 3.0),
        (lambda x: F.avg_pool2d(x, 2), 0.5),
        (lambda x: x[:, :1, 2:] + 1, 1.0),
    ],
)
def test_norms_of_functions(function: Callable[[Tensor], Tensor], expected: float) -> None:
    assert lipschitz_bound(Call(function), (2, 6, 6)).outputs == pytest.approx(expected)


def test_an_activation_that_is_steeper_than_one() -> None:
    assert lipschitz_bound(nn.Sequential(nn.ELU(3.0)), (2,)).outputs == 3
    assert lipschitz_bound(nn.Sequential(nn.LeakyReLU(-2.0)), (2,)).outputs == 2


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x @ x.mT


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Attention(), "no bound is known for 'getattr'"),
        (nn.Sequential(nn.Conv2d(2, 2, 3, dilation=2)), "expected dilation 1"),
        (nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular")), "with zeros"),
        (nn.Sequential(nn.AdaptiveAvgPool2d(4)), "divides the input"),
        (Call(lambda x: torch.add(x, x, alpha=3)), "a plain sum"),
        (Call(lambda x: F.dropout(x)), "evaluation mode only"),
        (Call(lambda x: F.adaptive_max_pool2d(x, 1)), "no bound is known for 'adaptive_max"),
        (nn.Sequential(nn.Conv2d(5, 2, 3)), "torch.fx can trace for inputs"),
    ],
)
def test_what_has_no_bound_is_refused(model: nn.Module, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        lipschitz_bound(model.eval(), (2, 9, 9))


def test_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="evaluation mode"):
        lipschitz_bound(branches().train(), (2, 9, 9))

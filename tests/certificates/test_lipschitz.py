"""Bounds of a network's Lipschitz constant, held against dense norms and against what is seen."""

import contextlib
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from benchmarks.cifar_resnet import resnet20
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, spectral_norm

from moreaugrad.certificates import lipschitz_bound, sampled_lipschitz
from moreaugrad.certificates.operators import convolution_norm
from moreaugrad.score.score import Score


class Call(nn.Module):
    """A function as a network; `part` belongs to it."""

    def __init__(self, function: Callable[..., Any], part: nn.Module | None = None) -> None:
        super().__init__()
        self.function, self.part = function, part

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.function(x) if self.part is None else self.function(self.part, x)
        return found


def dense_norm(module: nn.Module, shape: tuple[int, ...]) -> float:
    """The spectral norm of a linear module by its matrix."""
    zero = torch.zeros(1, *shape, dtype=torch.float64)
    jacobian: Tensor = torch.autograd.functional.jacobian(module, zero)  # type: ignore[no-untyped-call]
    rows = jacobian.reshape(-1, zero.numel())
    return float(torch.linalg.matrix_norm(rows, 2))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(5, 9),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    groups=st.sampled_from((1, 2)),
    seed=st.integers(0, 100),
)
def test_convolution_is_bounded_and_not_by_much(
    size: int, kernel: int, stride: int, padding: int, dilation: int, groups: int, seed: int
) -> None:
    conv = nn.Conv2d(
        2, 4, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups
    ).double()
    with torch.no_grad():
        conv.weight.copy_(normal(*conv.weight.shape, seed=seed))
    true = dense_norm(conv, (2, size, size))
    found = convolution_norm(
        conv.weight, (size, size), stride=conv.stride, padding=(padding, padding),
        dilation=conv.dilation, groups=groups,
    )  # fmt: skip
    assert true <= found <= 3 * true


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(2, 3, 3, stride=2, padding=1, dilation=2),
        nn.Conv2d(2, 3, 3, padding="same", dilation=2),
        nn.Conv2d(2, 3, 3, padding="valid"),
        nn.Conv1d(2, 4, 3, stride=2, padding=1, groups=2),
    ],
)
def test_settings_of_convolutions_are_read(conv: nn.Module) -> None:
    shape = (2, 9) if isinstance(conv, nn.Conv1d) else (2, 9, 9)
    true = dense_norm(conv.double().eval(), shape)
    assert true <= lipschitz_bound(conv, shape).outputs <= 2 * true


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
    x = normal(200, 2, 9, 9, seed=1)
    y = x + 0.1 * normal(*x.shape, seed=2)
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
    bound = Score(model).bind(normal(3, 2, 9, 9, seed=2))
    seen = sampled_lipschitz(bound, radius=0.5, samples=8)
    assert bool((seen <= lipschitz_bound(model, (2, 9, 9)).value[bound.target.classes]).all())
    assert bool((seen >= bound.value_and_grad()[1].norm(dim=1)).all())


def test_a_normalisation_is_taken_together_with_its_convolution() -> None:
    conv, norm = nn.Conv2d(2, 2, 1, bias=False), nn.BatchNorm2d(2)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[4.0, 0], [0, 1]])[..., None, None])
        norm.weight.copy_(torch.tensor([1.0, 4]))
        norm.running_var.fill_(1 - norm.eps)
    found = lipschitz_bound(nn.Sequential(conv, norm).double().eval(), (2, 3, 3))
    assert found.outputs == pytest.approx(4, rel=1e-6)  # not 4 x 4


def test_a_normalisation_of_other_channels_is_not() -> None:
    """Of [B, L, D] it scales L, while the linear layer before it made D."""
    norm = nn.BatchNorm1d(2)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 4]))
        norm.running_var.fill_(1 - norm.eps)
    linear = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[4.0, 0], [0, 1]]))
    found = lipschitz_bound(nn.Sequential(linear, norm).double().eval(), (2, 2))
    assert found.outputs == pytest.approx(16, rel=1e-6)


def test_resnet_is_followed() -> None:
    torch.manual_seed(0)
    found = lipschitz_bound(resnet20().module.eval(), (3, 32, 32))
    assert found.value.shape == (10,)
    assert len(found.operators) > 20


# --- what runs is what is bounded ---


def in_place_sum(x: Tensor) -> Tensor:
    skip = h = 1 * x
    h += x
    return h + skip


def in_place_method(x: Tensor) -> Tensor:
    h = x.clone()
    return h.add_(x, alpha=3) + h


def in_place_scale(x: Tensor) -> Tensor:
    skip = h = x + 0
    h.mul_(5).div_(2)
    return skip


def in_place_view(x: Tensor) -> Tensor:
    h = x.clone()
    h.view(-1).mul_(7)
    return h


def in_place_activation(x: Tensor) -> Tensor:
    h = 1 * x
    F.leaky_relu_(h, -3.0)
    return h


def in_place_module(part: nn.Module, x: Tensor) -> Tensor:
    skip = h = 2 * x
    return part(h) + skip


def in_place_argument(x: Tensor) -> Tensor:
    found = torch.empty_like(x)
    torch.mul(x, 6, out=found)
    return found


class Tripled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 3 * x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


class CallsTwice(nn.Identity):
    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x) + super().__call__(x)


def hooked(register: str) -> nn.Module:
    linear = nn.Linear(4, 4)
    if register == "before":
        linear.register_forward_pre_hook(lambda _m, args: (10 * args[0],))
    else:
        linear.register_forward_hook(lambda _m, _a, output: 10 * output)
    return nn.Sequential(linear)


def replaced_forward() -> nn.Module:
    linear = nn.Linear(4, 4)
    linear.forward = lambda x: 4 * x  # type: ignore[method-assign]
    return nn.Sequential(linear)


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def parametrised() -> nn.Module:
    linear = nn.Linear(4, 4)
    parametrize.register_parametrization(linear, "weight", Doubled())
    return nn.Sequential(linear)


def tied() -> nn.Module:
    linear = nn.Linear(4, 4)
    return nn.Sequential(linear, nn.ReLU(), linear, linear)


RUNS: dict[str, Callable[[], nn.Module]] = {
    "in-place sum": lambda: Call(in_place_sum),
    "in-place sum with alpha": lambda: Call(in_place_method),
    "in-place scale": lambda: Call(in_place_scale),
    "in place through a view": lambda: Call(in_place_view),
    "in-place activation": lambda: Call(in_place_activation),
    "out argument": lambda: Call(in_place_argument),
    "in-place module after a branch": lambda: Call(in_place_module, nn.LeakyReLU(-2.0, True)),
    "custom function": lambda: Call(Tripled.apply),
    "own __call__": lambda: nn.Sequential(CallsTwice()),
    "forward hook": lambda: hooked("after"),
    "forward pre-hook": lambda: hooked("before"),
    "replaced forward": replaced_forward,
    "parametrisation": parametrised,
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(4, 4)),
    "spectral norm": lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(4, 4))),
    "spectral norm by a hook": lambda: nn.Sequential(spectral_norm(nn.Linear(4, 4))),
    "tied modules": tied,
    "constants": lambda: Call(lambda x: (1 - 3 * x) / torch.tensor([0.5, 2, 2, 2]) - x),
    "a sum over copies": lambda: Call(lambda x: x.sum(1, keepdim=True) + x.repeat(1, 2)),
    "stacked parts": lambda: Call(lambda x: torch.stack([*x.split(2, 1), x[:, 1:3]], 1)),
    "products with matrices": lambda: Call(lambda x: x @ torch.full((4, 2), 2.0).to(x)),
    "activations": lambda: nn.Sequential(
        nn.Mish(), nn.SELU(), nn.Hardswish(), nn.PReLU(init=2.0), nn.ELU(2.0)
    ),
    "the larger of two": lambda: Call(lambda x: torch.maximum(x, 2 * x.flip(1))),
}


@pytest.mark.parametrize("name", RUNS)
def test_what_runs_is_bounded(name: str) -> None:
    """The steepest slope that is found lies below; of a linear network, close to it."""
    torch.manual_seed(0)
    model = RUNS[name]().double().eval()
    found = lipschitz_bound(model, (4,)).outputs
    steepest = max(slope(model, 3 * normal(1, 4, seed=seed)) for seed in range(40))
    assert steepest <= found * (1 + 1e-9)
    assert found <= 6 * steepest


def slope(model: nn.Module, x: Tensor) -> float:
    """||J||_2 at x by differences, for a custom function's backward need not be its derivative."""
    step = 1e-6
    columns = []
    for direction in torch.eye(x.numel(), dtype=x.dtype):
        move = step * direction.reshape(x.shape)
        with torch.no_grad():
            columns.append(((model(x + move) - model(x - move)) / (2 * step)).flatten())
    return float(torch.linalg.matrix_norm(torch.stack(columns, 1), 2)) * (1 - 1e-6)


def test_the_sum_in_place_is_four_times_its_input() -> None:
    assert lipschitz_bound(Call(in_place_sum), (4,)).outputs == 4


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: x + x, 2.0),
        (lambda x: torch.add(x, x, alpha=-3), 4.0),
        (lambda x: torch.cat([x, x], dim=1), 2**0.5),
        (lambda x: x + x.mean((2, 3), keepdim=True), 2.0),
        (lambda x: F.max_pool2d(x, 3, 1), 3.0),
        (lambda x: F.avg_pool2d(x, 2), 0.5),
        (lambda x: x[:, :1, 2:] + 1, 1.0),
        (lambda x: F.pad(x, (1, 1)), 1.0),
        (lambda x: F.elu(x, 3.0), 3.0),
        (lambda x: F.leaky_relu(x, -2.0), 2.0),
        (lambda x: F.adaptive_avg_pool2d(x, 1), 1 / 6),
        (lambda x: F.dropout(x, training=False), 1.0),
        (lambda x: x.double().float(), 1.0),
    ],
)
def test_norms_of_functions(function: Callable[[Tensor], Tensor], expected: float) -> None:
    assert lipschitz_bound(Call(function), (2, 6, 6)).outputs == pytest.approx(expected)


def test_outputs_of_a_linear_head_are_reported_apart() -> None:
    linear = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[3.0, 4, 0], [0, 0, 1]]))
    found = lipschitz_bound(nn.Sequential(nn.Hardswish(), linear).eval(), (3,))
    assert found.value.tolist() == pytest.approx([7.5, 1.5])
    assert found.outputs == pytest.approx(7.5)


# --- what cannot be followed, or has no bound, is refused ---


class Counting(nn.Module):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.calls * x


class Buffered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        self.factor.mul_(2)
        return self.factor * x


def attention(x: Tensor) -> Tensor:
    return x @ x.mT


@torch.library.custom_op("steep::relu", mutates_args=())
def steep_relu(x: Tensor) -> Tensor:
    return 9 * x.relu()


@steep_relu.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def by_value(x: Tensor) -> Tensor:
    return x if x.sum() > 0 else 3 * x


def by_tracing(x: Tensor) -> Tensor:
    return x if torch.compiler.is_exporting() else 3 * x


REFUSED: dict[str, tuple[nn.Module, str]] = {
    "product": (Call(attention), "expected a product with a matrix"),
    "square": (Call(lambda x: x * x), "single operand"),
    "inverse": (Call(lambda x: 1 / x), "'reciprocal'"),
    "circular": (
        nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular")), "by a constant",
    ),
    "unequal windows": (nn.Sequential(nn.AdaptiveAvgPool2d(4)), "divides the input"),
    "dropout": (Call(lambda x: F.dropout(x)), "is random"),
    "noise": (Call(lambda x: x + torch.randn(1)), "is random"),
    "unknown": (Call(lambda x: F.adaptive_max_pool2d(x, 1)), "no bound is known for 'adaptive_max"),
    "entries taken twice": (Call(lambda x: x[:, [0, 0, 0]]), "no bound is known for 'index'"),
    "another shape": (nn.Sequential(nn.Conv2d(5, 2, 3)), "torch.export can follow for inputs"),
    "two ways": (Call(by_value), "torch.export can follow"),
    "numpy": (Call(lambda x: x * float(x.detach().numpy().max())), "torch.export can follow"),
    "a number of it": (Call(lambda x: x * x.max().item()), "no bound is known"),
    "rounding": (Call(lambda x: x.round()), "no bound is known for 'round'"),
    "whole numbers": (Call(lambda x: x.int().float()), "not continuous"),
    "eight bits": (Call(lambda x: x.to(torch.float8_e5m2).float()), "not continuous"),
    "bits": (Call(lambda x: x.view(torch.float16).float()), "the bits as another type's"),
    "nothing to divide by": (Call(lambda x: x / 0), "other than 0"),
    "an operator of one's own": (Call(torch.ops.steep.relu), "no bound is known for 'steep.relu'"),
    "softplus with a jump": (nn.Sequential(nn.Softplus(threshold=0.5)), "it jumps"),
    "a jump": (nn.Sequential(nn.Threshold(0.1, 20)), "no bound is known for 'threshold'"),
    "calls are counted": (Counting(), "function of the input alone"),
    "a buffer changes": (Buffered(), "changes no buffers; factor"),
    "the trace is noticed": (Call(by_tracing), "function of the input alone"),
    "several outputs": (Call(lambda x: (x, x)), "one tensor as output"),
    "no input": (Call(lambda x: torch.ones(1, 3)), "does not depend on the input"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_bound_is_refused(name: str) -> None:
    model, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        lipschitz_bound(model.eval(), (2, 9, 9))


def test_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="evaluation mode"):
        lipschitz_bound(branches().train(), (2, 9, 9))


def test_the_model_stays_as_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = spectral_norm(nn.Conv2d(2, 2, 3))

        def forward(self, x: Tensor) -> Tensor:
            self.seen = self.conv(x)
            return self.seen if self.seen.sum() > 0 else x

    for model in (Keeps().eval(), Counting().eval(), branches()):
        before = [(dict(m.__dict__), dict(m._parameters)) for m in model.modules()]
        state = {key: value.clone() for key, value in model.state_dict().items()}
        random = torch.get_rng_state()
        with contextlib.suppress(ValueError):
            lipschitz_bound(model, (2, 9, 9))
        after = [(dict(m.__dict__), dict(m._parameters)) for m in model.modules()]
        for (a, p), (b, q) in zip(before, after, strict=True):
            assert a.keys() == b.keys()
            assert all(a[key] is b[key] for key in a)
            assert all(p[key] is q[key] for key in p)
        assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
        assert torch.equal(random, torch.get_rng_state())
    assert capfd.readouterr() == ("", "")


# --- many small networks ---


def network(seed: int) -> nn.Module:
    """A chain of random steps on `[1, 2, 6, 6]`, with branches and sums in place."""
    torch.manual_seed(seed)
    steps: list[Callable[[Tensor], Tensor]] = []
    for pick in torch.randint(len(STEPS), (5,)).tolist():
        steps.append(STEPS[pick]())

    def function(parts: nn.Module, x: Tensor) -> Tensor:
        for step in steps:
            x = step(x)
        return parts(x.flatten(1))

    return Call(function, nn.LazyLinear(3)).double()


def _conv() -> Callable[[Tensor], Tensor]:
    conv = nn.Conv2d(2, 2, 3, padding=1).double().eval()
    return conv.requires_grad_(False)


def _block() -> Callable[[Tensor], Tensor]:
    conv, norm = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)
    nn.init.uniform_(norm.weight, -2, 2)
    nn.init.uniform_(norm.running_var, 0.1, 2)
    return nn.Sequential(conv, norm, nn.SiLU()).double().eval().requires_grad_(False)


def _residual() -> Callable[[Tensor], Tensor]:
    conv, factor = _conv(), torch.rand(1).double()

    def step(x: Tensor) -> Tensor:
        skip = h = conv(x)
        h += factor * x
        return F.gelu(h) - 2 * skip

    return step


STEPS: list[Callable[[], Callable[[Tensor], Tensor]]] = [
    _conv, _block, _residual,
    lambda: lambda x: F.max_pool2d(x, 2, 1, padding=1)[:, :, :6, :6],
    lambda: lambda x: torch.cat([x[:, :1], x.amax(1, keepdim=True)], 1),
    lambda: lambda x: F.avg_pool2d(x, 3, 1, padding=1) + x.mean((2, 3), keepdim=True),
    lambda: lambda x: torch.maximum(F.mish(x), 2 * x.mT),
    lambda: lambda x: (x - x.clamp(-0.5, 0.5)).mul_(1.5),
    lambda: lambda x: F.hardswish(x) / torch.linspace(0.5, 2, 6, dtype=torch.float64),
]  # fmt: skip


@pytest.mark.parametrize("seed", range(8))
def test_no_network_is_steeper_than_its_bound(seed: int) -> None:
    model = network(seed)
    x = 2 * normal(300, 2, 6, 6, seed=seed)
    model(x)
    found = lipschitz_bound(model.eval(), (2, 6, 6))
    x.requires_grad_()
    for index, value in enumerate(found.value.tolist()):
        (gradient,) = torch.autograd.grad(model(x)[:, index].sum(), x)
        steepest = float(gradient.flatten(1).norm(dim=1).max())
        assert 0 < steepest <= value
        assert math.isfinite(value)

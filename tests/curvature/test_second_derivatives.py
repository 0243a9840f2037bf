"""Second derivatives: functions that torch differentiates only once, and operators that cannot."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

import moreaugrad as mg
from moreaugrad.curvature.second_derivatives import (
    NoSecondDerivative,
    check_twice_differentiable,
    twice_differentiable,
)
from toys import network, normal

X = normal(3, 6, seed=5)
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "function",
    [
        F.hardsigmoid,
        nn.Hardsigmoid(),
        lambda t: F.hardsigmoid(t.clone(), inplace=True),
        nn.Sequential(nn.Identity(), nn.Hardsigmoid()),
    ],
)
def test_hard_sigmoid_is_itself_to_the_bit(
    function: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    x = torch.linspace(-4, 4, 4001, dtype=torch.float64).to(dtype)
    with twice_differentiable():
        found = function(x)
    assert torch.equal(found, function(x))
    assert found.dtype == dtype


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, torch.inf])
def test_distances_are_themselves_and_their_gradient_too(p: float) -> None:
    one, other = normal(2, 4, 3, seed=1), normal(2, 5, 3, seed=2)
    other[:, 0] = one[:, 0]  # a distance of zero

    def both() -> tuple[Tensor, Tensor]:
        leaf = one.clone().requires_grad_()
        found = torch.cdist(leaf, other, p=p)
        return found, torch.autograd.grad(found.square().sum(), leaf)[0]

    with twice_differentiable():
        found = both()
    torch.testing.assert_close(found, both())


def hard(body: Callable[[Tensor], Tensor]) -> nn.Module:
    class Hard(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = network((6, 8), nn.Tanh, gain=3.0), network((8, 3), nn.Tanh)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last(body(self.first(x)))
            return out

    torch.manual_seed(0)
    return Hard().double().eval()


EQUAL: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "hard-sigmoid": (F.hardsigmoid, lambda t: F.relu6(t + 3) / 6),
    "in place": (lambda t: F.hardsigmoid(1 * t, inplace=True), lambda t: F.relu6(t + 3) / 6),
    "squeeze and excite": (lambda t: t * F.hardsigmoid(t), lambda t: t * F.relu6(t + 3) / 6),
    "hard-swish": (F.hardswish, lambda t: t * F.relu6(t + 3) / 6),
    "distances": (
        lambda t: torch.cdist(t[:, :, None], t.new_ones(1, 1, 1))[..., 0],
        lambda t: (t - 1).abs(),
    ),
}


@pytest.mark.parametrize("name", EQUAL)
@pytest.mark.parametrize("hessian", ["exact", "gauss-newton"])
@pytest.mark.filterwarnings("ignore:.*not the Hessian")
def test_caso_is_that_of_the_function_written_out(name: str, hessian: str) -> None:
    maps = [
        mg.CASO(hard(body), hessian=hessian, c1=0.1, lambda1=0.0, tolerance=1e-9).explain(X).maps
        for body in EQUAL[name]
    ]
    torch.testing.assert_close(*maps)


@pytest.mark.parametrize("name", EQUAL)
def test_derivatives_of_maps_are_those_of_the_function_written_out(name: str) -> None:
    found = []
    for body in EQUAL[name]:
        explainer = mg.MoreauGrad(hard(body), score="log-probability", sigma=0.0, rho=0.1)
        explanation = explainer.explain(X, 1)
        ways = [
            explainer.vjp(explanation, torch.ones_like(X), through=way)
            for way in ("implicit", "straight-through", "unrolled")
        ]
        eigenvalues = mg.relu_hessian(hard(body), X, leading=2).eigenvalues
        found.append((*ways, eigenvalues))
    torch.testing.assert_close(*found)


class _Cubed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        out: Tensor = 3 * x.square() * grads[0]
        return out


class _CubedForward(_Cubed):
    """It has a forward mode too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_forward(x)
        return _Cubed.forward(ctx, x)

    @staticmethod
    def jvp(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        out: Tensor = 3 * x.square() * grads[0]
        return out


class _CubedForTraining(_Cubed):
    """Decorated twice, as for automatic mixed precision."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _Cubed.forward(ctx, x)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        out: Tensor = _Cubed.backward(ctx, *grads)
        return out


def of(function: Any) -> Callable[[Tensor], Tensor]:
    return lambda t: function.apply(t)  # type: ignore[no-any-return]


MARKED: dict[str, Callable[[], nn.Module]] = {
    "inside": lambda: hard(of(_Cubed)),
    "first": lambda: nn.Sequential(_As(_Cubed), network((6, 3), nn.Tanh)),
    "last": lambda: nn.Sequential(network((6, 3), nn.Tanh), _As(_Cubed)),
    "decorated twice": lambda: hard(of(_CubedForTraining)),
}


class _As(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.function.apply(x)
        return out


@pytest.mark.parametrize("score", ["logit", "log-probability"])
@pytest.mark.parametrize("name", MARKED)
def test_once_differentiable_does_not_pass_for_no_curvature(name: str, score: str) -> None:
    model = MARKED[name]().double().eval()
    for method in (mg.CASO, mg.SmoothCASO):
        with pytest.raises(NoSecondDerivative, match=r"_Cubed.* once_differentiable"):
            method(model, score=score).explain(X)
    for explainer in (
        mg.SimpleGradient(model, score=score),
        mg.SmoothGrad(model, score=score, samples=4),
        mg.MoreauGrad(model, score=score, sigma=0.0, rho=0.01),
        mg.CAFO(model, score=score),
    ):
        explanation = explainer.explain(X)
        with pytest.raises(NoSecondDerivative, match="once_differentiable"):
            explainer.vjp(explanation, torch.ones_like(X))


def test_an_operator_on_parameters_alone_does_not_matter() -> None:
    leaf, weight = (
        X.clone().requires_grad_(),
        torch.ones(6, dtype=torch.float64, requires_grad=True),
    )
    check_twice_differentiable((leaf.square() * _Cubed.apply(weight)).sum(1), leaf)


@pytest.mark.filterwarnings("ignore:.*not the Hessian")
def test_gauss_newton_goes_forward_where_there_is_no_second_derivative() -> None:
    settings: dict[str, Any] = {"c1": 0.1, "lambda1": 0.0, "tolerance": 1e-9}
    expected = mg.CASO(hard(lambda t: t**3), hessian="gauss-newton", **settings).explain(X)
    with pytest.warns(UserWarning, match=r"Gauss-Newton matrix instead.*_CubedForward"):
        found = mg.CASO(hard(of(_CubedForward)), **settings).explain(X)
    torch.testing.assert_close(found.maps, expected.maps)
    assert found.details["hessian_gap"].isnan().all()
    assert found.settings["hessian"] == "gauss-newton"


@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_hard_sigmoid_in_torchscript_is_solved_by_gauss_newton() -> None:
    with pytest.warns(UserWarning, match=r"Gauss-Newton matrix instead.*hardsigmoid"):
        found = mg.CASO(hard(torch.jit.script(nn.Hardsigmoid())), c1=0.1, lambda1=0.0).explain(X)
    expected = mg.CASO(hard(nn.Hardsigmoid()), hessian="gauss-newton", c1=0.1, lambda1=0.0)
    torch.testing.assert_close(found.maps, expected.explain(X).maps)


def test_threads_leave_attention_as_they_found_it() -> None:
    """Though the first one to enter is the first one to leave."""
    before = torch.backends.cuda.flash_sdp_enabled()
    inside, left = threading.Event(), threading.Event()

    def second() -> None:
        with twice_differentiable():
            inside.set()
            left.wait()

    other = threading.Thread(target=second)
    with twice_differentiable():
        other.start()
        inside.wait()
    left.set()
    other.join()
    assert before
    assert torch.backends.cuda.flash_sdp_enabled()

"""The input taken at a layer: operations in place, threads, compiled and scripted models."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import toys
from contracts.networks import assert_same, cheap
from moreaugrad import DeepLift, GradCAM, IntegratedGradients, SimpleGradient
from moreaugrad.score.checks import ModelError

F64 = torch.float64


class Around(nn.Module):
    """Linear, `layer`, what `after` makes of its output and of what went in, linear."""

    def __init__(self, layer: nn.Module, after: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        tail = toys.network((6, 5, 3))
        self.first, self.layer, self.after, self.tail = nn.Linear(4, 6), layer, after, tail
        self.first = toys.network((4, 6))[0]

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        return self.tail(self.after(self.layer(hidden), hidden))


def _added(y: Tensor, _x: Tensor) -> Tensor:
    y += 2
    return y


def _part(y: Tensor, _x: Tensor) -> Tensor:
    y[:, :2].mul_(3)
    return y


def _view(y: Tensor, _x: Tensor) -> Tensor:
    y.view(-1).sigmoid_()
    return y


def _twice(y: Tensor, x: Tensor) -> Tensor:
    kept = 3 * y
    return kept + torch.tanh_(y) + x


IN_PLACE: dict[str, tuple[Any, Any]] = {
    "adding": (_added, lambda y, x: y + 2),
    "a part": (_part, lambda y, x: y * torch.tensor([3.0, 3, 1, 1, 1, 1], dtype=F64)),
    "a view": (_view, lambda y, x: torch.sigmoid(y)),
    "kept too": (_twice, lambda y, x: 3 * y + torch.tanh(y) + x),
    "activation": (lambda y, x: F.relu(y, inplace=True), lambda y, x: F.relu(y)),
}


@pytest.mark.parametrize("kind", IN_PLACE)
@pytest.mark.parametrize("method", ["simple-gradient", "smoothgrad", "integrated-gradients"])
def test_operations_in_place_after_the_layer(kind: str, method: str) -> None:
    changing, plain = IN_PLACE[kind]
    x = toys.normal(3, 4, seed=1)
    found = cheap(method, Around(nn.Softsign(), changing), layer="layer").explain(x, 1)
    expected = cheap(method, Around(nn.Softsign(), plain), layer="layer").explain(x, 1)
    assert torch.equal(found.inputs, expected.inputs)
    assert_same(found.maps, expected.maps, 1e-12)


def test_a_layer_in_place_changes_what_refers_to_its_input() -> None:
    """After relu_(h), h is the rectified tensor too: a skip connection from h takes that."""
    x = toys.normal(3, 4, seed=1)
    model = Around(nn.ReLU(inplace=True), lambda y, x: torch.sin(y) * x)
    plain = Around(nn.ReLU(), lambda y, _x: torch.sin(y) * y)
    found = SimpleGradient(model, layer="layer").explain(x, 1)
    expected = SimpleGradient(plain, layer="layer").explain(x, 1)
    assert_same(found.maps, expected.maps, 1e-12)
    torch.testing.assert_close(found.score, model(x)[:, 1].detach())


class Fickle(nn.Module):
    """A layer that returns a pair, one that does not run, and one that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.pair, self.idle, self.twice = nn.LSTM(4, 3, batch_first=True), nn.Tanh(), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        return self.twice(self.twice(self.pair(x)[0])).sum(1)


@pytest.mark.parametrize(
    ("layer", "error", "says"),
    [
        ("pair", TypeError, "tuple"),
        ("idle", ValueError, "0 times"),
        ("twice", ValueError, "2 times"),
    ],
)
def test_layers_that_cannot_be_read(layer: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=f"layer: .*{says}"):
        SimpleGradient(Fickle(), layer=layer).explain(torch.ones(2, 5, 4))


class Aside(nn.Module):
    """`layer` runs, and its output goes nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.net = nn.Conv1d(2, 3, 2), toys.network((8, 5, 3), dtype=torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        self.layer(x)
        return self.net(x.flatten(1))


UNUSED = [
    *("simple-gradient", "smoothgrad", "integrated-gradients", "deeplift", "relex"),
    *("caso", "moreaugrad", "published-moreaugrad"),
]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("method", UNUSED)
def test_a_layer_that_is_not_used_is_refused(method: str, frozen: bool) -> None:
    model, x = Aside().eval().requires_grad_(not frozen), torch.ones(2, 2, 4)
    with pytest.raises(ModelError, match=r"does not depend on .*layer.*output is not used"):
        cheap(method, model, layer="layer").explain(x, 1)


def test_grad_cam_of_a_layer_that_is_not_used_is_refused() -> None:
    with pytest.raises(ValueError, match=r"cam_layer: .*score depends on.*goes nowhere"):
        GradCAM(Aside().eval(), cam_layer="layer").explain(torch.ones(2, 2, 4), 1)


# Threads


def _dense() -> nn.Module:
    return toys.network((64, 96, 96, 96, 4), nn.SiLU, dtype=torch.float32)


def _convolutional() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.SiLU(), nn.Conv2d(6, 6, 3, padding=1), nn.SiLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
    ).eval()  # fmt: skip


Work = Callable[[nn.Module, Tensor], Tensor]
THREADS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[Work]]] = {
    "dense": (
        _dense,
        (4, 64),
        [
            lambda model, x: SimpleGradient(model, layer="2").attribute(x, target=1),
            lambda model, x: SimpleGradient(model, layer="4").attribute(x, target=1),
            lambda model, x: DeepLift(model).attribute(x, target=1),
            lambda model, x: DeepLift(model, baseline=0.5).attribute(x, target=1),
            lambda model, x: SimpleGradient(model).attribute(x, target=1),
            lambda model, x: cheap("moreaugrad", model).explain(x, 1).maps,
            lambda model, x: cheap("sparse-moreaugrad-plain", model).explain(x, 1).maps,
            lambda model, x: model(x).detach(),
        ],
    ),
    "convolutional": (
        _convolutional,
        (3, 1, 12, 12),
        [
            lambda model, x: GradCAM(model).attribute(x, target=1),
            lambda model, x: GradCAM(model, cam_layer="0").attribute(x, target=1),
            lambda model, x: IntegratedGradients(model, layer="1", steps=4).attribute(x, target=1),
            lambda model, x: cheap("group-sparse-moreaugrad", model).explain(x, 1).maps,
            lambda model, x: model(x).detach(),
        ],
    ),
}


@pytest.mark.parametrize("kind", THREADS)
@pytest.mark.filterwarnings("ignore::moreaugrad.ConvergenceWarning")
def test_threads_share_a_model(kind: str) -> None:
    build, shape, works = THREADS[kind]
    model = build()
    x = toys.normal(*shape, seed=1, dtype=torch.float32)
    alone = [work(model, x) for work in works]
    wrong: list[str] = []
    start = threading.Barrier(len(works))

    def run(index: int) -> None:
        start.wait()
        for _ in range(12):
            try:
                found = works[index](model, x)
                if not torch.allclose(found, alone[index], rtol=1e-4, atol=1e-6):
                    wrong.append(f"{index}: another map")
            except Exception as error:
                wrong.append(f"{index}: {error}")

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


# Compiled, scripted, traced


def _net() -> nn.Sequential:
    return _convolutional()  # type: ignore[return-value]


def _pictures() -> Tensor:
    return toys.normal(2, 1, 8, 8, seed=2, dtype=torch.float32)


HOOKING: dict[str, Callable[[nn.Module], Any]] = {
    "layer": lambda model: SimpleGradient(model, layer="2"),
    "deeplift": DeepLift,
    "grad-cam": GradCAM,
}


SCRIPTING = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@SCRIPTING
@pytest.mark.parametrize("kind", HOOKING)
def test_scripted_and_traced_models_are_refused(kind: str) -> None:
    x = _pictures()
    for model in (torch.jit.script(_net()), torch.jit.trace(_net(), x)):
        with pytest.raises(TypeError, match=r"scripted.*traced"):
            HOOKING[kind](model).explain(x, 1)


@SCRIPTING
def test_a_scripted_layer_is_refused() -> None:
    model = _net()
    model[2] = torch.jit.script(model[2])
    with pytest.raises(TypeError, match=r"layer: .*scripted.*traced"):
        SimpleGradient(model, layer="2").explain(_pictures(), 1)


@pytest.mark.parametrize(
    ("kind", "form"), [("layer", "whole"), ("deeplift", "part"), ("grad-cam", "in place")]
)
def test_compiled_models_are_hooked_as_their_originals(kind: str, form: str) -> None:
    x, model = _pictures(), _net()
    expected = HOOKING[kind](_net()).explain(x, 1).maps
    if form == "whole":
        model = torch.compile(model, backend="eager")
    elif form == "part":
        model[2] = torch.compile(model[2], backend="eager")
    else:
        model.compile(backend="eager")
    with torch.no_grad():
        model(x)  # compiled without hooks
    assert_same(HOOKING[kind](model).explain(x, 1).maps, expected, 1e-5)

"""Bad input: one error of a stated type that says what was expected, what came, what to do."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts.networks import (
    LOG_PROBABILITY,
    ONE_IMAGE,
    Joint,
    Picture,
    Text,
    assert_same,
    cheap,
    pictures,
)
from moreaugrad import METHODS, Status, build

pytestmark = pytest.mark.filterwarnings("ignore::moreaugrad.ConvergenceWarning")


class Body(nn.Module):
    """A convolution, and then what a test makes of its output."""

    def __init__(self, form: Callable[[nn.Module, Tensor], object]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3).double()
        self.activation = nn.Tanh()
        self.form = form
        self.eval()

    def forward(self, x: Tensor) -> object:
        return self.form(self, x)

    def outputs(self, x: Tensor) -> Tensor:
        return self.activation(self.conv(x)).sum((2, 3))


def changed(index: tuple[int, ...], value: float) -> Tensor:
    x = pictures()
    x[index] = value
    return x


def training(layer: str, instead: nn.Module | None = None) -> nn.Module:
    model = Picture()
    if instead is not None:
        setattr(model, layer, instead.double())
    model.get_submodule(layer).train()
    return model


def spoilt() -> nn.Module:
    model = Picture()
    with torch.no_grad():
        model.head.weight[0, 0] = torch.nan
    return model


def in_place(body: nn.Module, x: Tensor) -> Tensor:
    hidden = body.conv(x).exp()
    hidden[:, 0] = 0  # exp needs its output for the way back
    return hidden.sum((2, 3))


@dataclass(frozen=True)
class Case:
    error: type[Exception]
    says: str
    inputs: Callable[[], Any] = pictures
    model: Callable[[], Any] = Picture
    target: Any = 1
    args: Any = None
    settings: dict[str, Any] | None = None
    allowed: frozenset[str] = frozenset()


CALLS = {
    "no tensor": Case(
        TypeError,
        "expected a tensor or a tuple of tensors, got ndarray",
        lambda: pictures().numpy(),
    ),
    "empty tuple": Case(ValueError, "got an empty tuple", lambda: ()),
    "no batch": Case(ValueError, r"expected a batch.*shape (2,).*x[None]", lambda: torch.ones(2)),
    "empty batch": Case(ValueError, "at least one sample", lambda: pictures()[:0]),
    "picture without batch": Case(
        ValueError, r"could not process inputs of shape (B, 6, 6)", lambda: pictures()[0]
    ),
    "wrong channels": Case(
        ValueError,
        "could not process inputs of shape (B, 1, 6, 6) and dtype torch.float64.*2 channels",
        lambda: pictures()[:, :1],
    ),
    "other precision": Case(
        ValueError,
        "could not process inputs of shape (B, 2, 6, 6) and dtype torch.float32 (RuntimeError",
        lambda: pictures().float(),
    ),
    "integers": Case(
        TypeError,
        "floating-point tensors, got torch.int64; convert with .float(), or .*layer=",
        lambda: pictures().long(),
    ),
    "batches of two sizes": Case(
        ValueError,
        "the same number of samples in each, got [4, 3]",
        lambda: (pictures(4), pictures(3)),
        Joint,
    ),
    "NaN": Case(
        ValueError,
        "inputs: expected finite numbers, got NaN or Inf in sample(s) [2]",
        lambda: changed((2, 0, 0, 0), torch.nan),
    ),
    "Inf": Case(
        ValueError,
        "inputs: expected finite numbers, got NaN or Inf in sample(s) [1]",
        lambda: changed((1, 1, 5, 5), torch.inf),
    ),
    "NaN in the model": Case(
        ValueError, "the model's outputs: expected finite.*[0, 1, 2, 3]", model=spoilt
    ),
    "target beyond": Case(
        ValueError, "target: expected numbers from 0 to 2, got [3, 3, 3, 3]", target=3
    ),
    "negative target": Case(ValueError, "expected numbers from 0 to 2", target=-1),
    "one target beyond": Case(ValueError, "got [0, 1, 5, 0]", target=[0, 1, 5, 0]),
    "too few targets": Case(
        ValueError, "one class, or 4 (one a sample), got shape (3,)", target=[0, 1, 2]
    ),
    "target with columns": Case(
        ValueError, "got shape (4, 3)", target=torch.zeros(4, 3, dtype=torch.long)
    ),
    "real target": Case(
        TypeError, "target: expected integers, got torch.float32", target=torch.ones(4)
    ),
    "truth as target": Case(TypeError, "target: expected an int.*got bool", target=True),
    "word as target": Case(TypeError, "target: expected.*str|integers", target="cat"),
    "position without axis": Case(
        ValueError, "expected a tuple (class) for outputs of shape (4, 3)", target=(1, 0)
    ),
    "outputs with more axes": Case(
        ValueError,
        "expected a tuple (class, position, position) for outputs of shape (4, 3, 4, 4), got 1",
        model=lambda: Body(lambda body, x: body.activation(body.conv(x))),
    ),
    "batch norm in training": Case(
        ValueError,
        "norm (BatchNorm2d) is in training mode, where samples of a batch.*call model.eval()",
        model=lambda: training("norm"),
    ),
    "instance norm in training": Case(
        ValueError,
        "norm (InstanceNorm2d) is in training mode, where its running.*call model.eval()",
        model=lambda: training("norm", nn.InstanceNorm2d(3, track_running_stats=True)),
    ),
    "dropout in training": Case(
        ValueError,
        "drop (Dropout) is in training mode, where outputs are random: call model.eval()",
        model=lambda: training("drop"),
    ),
    "detached input": Case(
        ValueError,
        "score does not depend on the input.*Look for .detach()",
        model=lambda: Body(lambda body, x: body.outputs(x.detach())),
        allowed=frozenset({"grad-cam"}),  # its gradient is taken at a layer
    ),
    "detached output": Case(
        ValueError,
        "score does not depend on the input.*Look for .detach()",
        model=lambda: Body(lambda body, x: body.outputs(x).detach()),
    ),
    "no grad within": Case(
        ValueError,
        "score does not depend on the input.*torch.no_grad()",
        model=lambda: Body(lambda body, x: torch.no_grad()(body.outputs)(x)),
    ),
    "in place": Case(
        ValueError, "changes its input in place, which hides", model=lambda: Body(in_place)
    ),
    "a single output": Case(
        ValueError,
        "with 4 rows, one a sample, got .*: the model must not reduce over the batch",
        model=lambda: Body(lambda body, x: body.outputs(x).sum()),
    ),
    "rows lost": Case(
        ValueError,
        "expected a model output with 4 rows, one a sample, got shape (1, 3)",
        model=lambda: Body(lambda body, x: body.outputs(x).sum(0, keepdim=True)),
    ),
    "a tuple of outputs": Case(
        TypeError,
        "a tensor, an object with a tensor .logits, .*; got tuple of 2, first Tensor .*wrap the",
        model=lambda: Body(lambda body, x: (body.outputs(x), None)),
    ),
    "classes as outputs": Case(
        TypeError,
        "floating-point outputs, got torch.int64",
        model=lambda: Body(lambda body, x: body.outputs(x).argmax(1, keepdim=True)),
    ),
    "argument of another size": Case(
        ValueError, "could not process inputs.*(RuntimeError", args=torch.ones(3)
    ),
    "argument too many": Case(
        ValueError, "could not process inputs.*(TypeError.*positional", args=(None, 1.0, 2)
    ),
    "binary task of three outputs": Case(
        ValueError,
        "task: expected a single logit for 'binary', got 3 outputs",
        settings={"task": "binary"},
    ),
    "multiclass task of one output": Case(
        ValueError,
        "task: expected at least 2 outputs for 'multiclass', got 1",
        model=lambda: Picture(1),
        settings={"task": "multiclass"},
    ),
    "regression without target": Case(
        ValueError,
        "the column to explain of a regression with 3 outputs, got None: give target=",
        target=None,
        settings={"task": "regression", "score": "logit"},
        allowed=frozenset(LOG_PROBABILITY),
    ),
}


def pattern(says: str) -> str:
    """Literal text, but for `.*` and `|`."""
    return re.escape(says).replace(r"\.\*", ".*").replace(r"\|", "|")


@pytest.mark.parametrize("name", CALLS)
def test_calls(method: str, name: str) -> None:
    case = CALLS[name]
    if method in case.allowed or (method in ONE_IMAGE and case.model is Joint):
        pytest.skip(f"{method} takes another view of {name}")
    explainer = cheap(method, case.model(), **(case.settings or {}))
    with pytest.raises(case.error, match=pattern(case.says)) as caught:
        explainer.explain(case.inputs(), case.target, case.args)
    message = str(caught.value)
    assert "\n" not in message
    assert message.count("could not process") == case.says.count("could not process")


IDS = [
    ([1, 2], "one for each of the 4 samples, got 2"),
    ([-1, 0, 1, 2], "numbers from 0 to .*, got -1"),
]


@pytest.mark.parametrize(("ids", "says"), IDS)
def test_ids(method: str, ids: list[int], says: str) -> None:
    with pytest.raises(ValueError, match=f"ids: expected {says}"):
        cheap(method, Picture()).explain(pictures(), 1, ids=ids)


def test_the_model_must_be_callable(method: str) -> None:
    with pytest.raises((TypeError, ValueError), match=r"str"):
        cheap(method, "squeezenet").explain(pictures(), 1)


@pytest.mark.parametrize(
    ("layer", "error", "says"),
    [
        ("embeding", ValueError, "no module 'embeding'; did you mean 'embedding'?"),
        (nn.Linear(2, 2), ValueError, "expected a module of the model, got Linear"),
    ],
)
def test_layers(method: str, layer: Any, error: type[Exception], says: str) -> None:
    if method in ONE_IMAGE:
        pytest.skip(f"{method} explains the input itself")
    with pytest.raises(error, match=f"layer: .*{pattern(says)}"):
        cheap(method, Text(), layer=layer).explain(torch.ones(2, 4, dtype=torch.long), 1)


class Cusp(nn.Module):
    """The root of a sum of squares: its gradient at zero is not a number."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1, bias=False).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).square().sum((2, 3)).sqrt()


@pytest.mark.parametrize("name", ["simple-gradient", "moreaugrad-plain", "grad-cam", "deeplift"])
def test_a_gradient_that_is_no_number(name: str) -> None:
    x = pictures(3)[:, :1]
    x[1] = 0
    explainer = cheap(name, Cusp().eval())
    result = explainer.explain(x, 0)
    assert [status is Status.NON_FINITE for status in result.status] == [False, True, False]
    assert torch.isfinite(result.maps[[0, 2]]).all()
    with pytest.raises(RuntimeError, match=r"sample 1: the score or its gradient became NaN"):
        result.raise_if_failed()
    with pytest.raises(FloatingPointError, match=r"NaN or infinite for sample\(s\) \[1\]; check"):
        explainer.attribute(x, target=0)


class Narrow(nn.Module):
    """A model for which memory runs out above `most` samples."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.model, self.most = Picture(), most
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.model(x)


def test_memory_that_runs_out_halves_the_chunk(method: str) -> None:
    expected = cheap(method, Picture()).attribute(pictures(5), target=1)
    found = cheap(method, Narrow(2), batch_size=16).attribute(pictures(5), target=1)
    assert_same(found, expected)


def test_memory_that_is_too_small_for_one_is_reported(method: str) -> None:
    with pytest.raises(MemoryError, match=r"not enough memory for the pass of one sample; use a"):
        cheap(method, Narrow(0), batch_size=4).explain(pictures(), 1)


SETTINGS: dict[str, list[tuple[Any, type[Exception], str]]] = {
    "rho": [
        (0.0, ValueError, "rho: expected a.* number > 0, got 0.0"),
        (-1.0, ValueError, "rho: expected a.* number > 0, got -1.0"),
        (float("nan"), ValueError, "rho: expected a.* number > 0, got nan"),
    ],
    "eta": [
        (-0.1, ValueError, "eta: expected a number >= 0"),
        ("atuo", ValueError, "eta: expected a number >= 0 or 'auto', got 'atuo'"),
    ],
    "sigma": [(-0.1, ValueError, "sigma: expected a finite number >= 0.*got -0.1")],
    "sigma_mode": [("relativ", ValueError, "sigma_mode: expected one of relative, absolute")],
    "sparsity": [(1.5, ValueError, "from 0 to 1, got 1.5")],
    "group": [
        (7, ValueError, "group: size (7, 7) does not fit into a sample with spatial shape (6, 6)"),
        (0, ValueError, "group: expected a size >= 1"),
        ((2, 2, 2), ValueError, "group: expected a size >= 1, or one for each of the 2 spatial"),
        ("atuo", ValueError, "group: expected.*, got 'atuo'|did you mean 'auto'?"),
    ],
    "channels": [("jont", ValueError, "channels: expected one of joint, separate; got 'jont'")],
    "index": [
        (torch.zeros(3, 3, dtype=torch.long), ValueError, "index: expected group labels of shape"),
        (torch.zeros(6, 6), TypeError, "index: expected integer group labels, got torch.float32"),
        ([0, 1] * 18, ValueError, "index: expected group labels of shape (2, 6, 6) or.*got (36,)"),
        ([[True] * 6] * 6, TypeError, "index: expected integer group labels, got True (bool)"),
    ],
    "tolerance": [(0.0, ValueError, "tolerance")],
    "max_evaluations": [(0, ValueError, "expected")],
    "draws": [(0, ValueError, "draws: expected")],
    "samples": [(0, ValueError, "samples: expected at least 1, got 0")],
    "solver": [("spectal", ValueError, "solver: expected.*did you mean 'spectral'?")],
    "noise": [("frsh", ValueError, "noise: expected.*did you mean 'fresh'?")],
    "seed": [(-1, ValueError, "seed: expected an integer from 0")],
    "steps": [(0, ValueError, "steps: expected")],
    "quadrature": [("gauss", ValueError, "quadrature: expected.*did you mean 'gausslegendre'?")],
    "baseline": [("zero", ValueError, "baseline: expected a number, got 'zero'")],
    "keep": [(0.0, ValueError, "keep: expected a fraction in (0, 1], got 0.0")],
    "sign": [("gradent", ValueError, "sign: expected.*did you mean 'gradient'?")],
    "cam_layer": [
        ("body.9", ValueError, "cam_layer: the model has no module 'body.9'; did you mean 'body."),
        (
            "head",
            ValueError,
            "cam_layer: expected a layer whose output is [B, channels, positions...]",
        ),
    ],
    "score": [("logits", ValueError, "score: expected one of logit, .*did you mean 'logit'?")],
    "task": [("binry", ValueError, "task: expected one of auto, .*did you mean 'binary'?")],
    "batch_size": [(0, ValueError, "batch_size: expected at least 1, got 0")],
}


def test_settings(method: str) -> None:
    known = METHODS[method].defaults()
    for name, entries in SETTINGS.items():
        for value, error, says in entries if name in known else ():
            if (method, name, value) == ("published-moreaugrad", "eta", "atuo"):
                continue  # it has no automatic weight
            if name == "draws" and known["sigma"] == 0:
                continue  # there are none
            with pytest.raises(error, match=pattern(says)):
                cheap(method, Picture(), **{name: value}).explain(pictures(), 1)


def test_names() -> None:
    with pytest.raises(ValueError, match=r"got 'sparse-moreau'; did you mean 'sparse-moreaugrad'"):
        build("sparse-moreau", Picture())
    with pytest.raises(ValueError, match=r"smoothgrad has no setting 'sigmma'; did you mean 'sig"):
        build("smoothgrad", Picture(), sigmma=1)

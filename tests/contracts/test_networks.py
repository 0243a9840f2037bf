"""Forms that a network, its inputs and a call can take: the right map, or one clear error."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from contracts.networks import Picture, assert_same, cheap, pictures
from moreaugrad import METHODS

pytestmark = [
    pytest.mark.filterwarnings("ignore::moreaugrad.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:.*(deprecated|quantization|torch.jit|nested|sparse|Sparse)"),
]
HOOKED = {"grad-cam", "deeplift"}
"""Methods that look into the network's layers."""


def compiled() -> nn.Module:
    model = torch.compile(Picture(), backend="eager")
    model(pictures(2))  # in use already
    return model


def compiled_in_place() -> nn.Module:
    model = Picture()
    model.compile(backend="eager")
    model(pictures(2))
    return model


FORMS: dict[str, Callable[[], Any]] = {
    "scripted": lambda: torch.jit.script(Picture()),
    "frozen": lambda: torch.jit.freeze(torch.jit.script(Picture())),
    "traced": lambda: torch.jit.trace(Picture(), pictures(2)),
    "compiled": compiled,
    "compiled in place": compiled_in_place,
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_one_network(method: str, form: str) -> None:
    model, x = FORMS[form](), pictures(2)
    if method in HOOKED and not form.startswith("compiled"):
        with pytest.raises(TypeError, match="scripted, traced or frozen"):
            cheap(method, model).attribute(x, target=1)
        return
    assert_same(
        cheap(method, model).attribute(x, target=1), cheap(method, Picture()).attribute(x, target=1)
    )


@pytest.mark.parametrize("form", FORMS)
def test_a_layer_of_each_form(form: str) -> None:
    model, x = FORMS[form](), pictures(2)
    name = "_orig_mod.norm" if form == "compiled" else "norm"
    explainer = cheap("simple-gradient", model, layer=name)
    if not form.startswith("compiled"):
        with pytest.raises(TypeError, match=r"layer: .*scripted, traced or frozen"):
            explainer.attribute(x, target=1)
        return
    expected = cheap("simple-gradient", Picture(), layer="norm").attribute(x, target=1)
    assert_same(explainer.attribute(x, target=1), expected)


def test_a_quantised_network(method: str) -> None:
    model = torch.ao.quantization.quantize_dynamic(Picture().float(), {nn.Linear})
    with pytest.raises(ValueError, match=r"head \(Linear\) is quantised.*no gradient"):
        cheap(method, model).attribute(pictures().float(), target=1)


def test_an_exported_network() -> None:
    x = pictures(2)
    model = torch.export.export(Picture(), (x,)).module()
    expected = cheap("simple-gradient", Picture()).attribute(x, target=1)
    assert_same(cheap("simple-gradient", model).attribute(x, target=1), expected)
    with pytest.raises(ValueError, match=r"could not process.*dynamic batch size"):
        cheap("simple-gradient", model).attribute(x[:1], target=1)


class Raising(nn.Module):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        AssertionError("height (64) does not match (224)"), KeyError("logits"),
        AttributeError("no attribute 'memory'"), ZeroDivisionError("by zero"), StopIteration(),
        NotImplementedError("later"), OSError("no file"), Exception("plain"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
@pytest.mark.parametrize("name", ["simple-gradient", "integrated-gradients", "caso"])
def test_whatever_a_network_raises(name: str, error: Exception) -> None:
    says = rf"could not process inputs of shape \(B, 2, 6, 6\).*{type(error).__name__}"
    with pytest.raises(ValueError, match=says) as caught:
        cheap(name, Raising(error).eval()).attribute(pictures(), target=1)
    assert caught.value.__cause__ is error


class Encoder(nn.Module):
    """`[B, 5, 8]` with padding to `[B, 3]`, by a fast path that exists without gradients only."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(8, 3)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        return self.head(self.encoder(x, src_key_padding_mask=padding).mean(1))


@pytest.mark.parametrize("fast", [True, False])
def test_a_fast_path_is_another_function(fast: bool) -> None:
    model, x = Encoder().eval(), torch.randn(3, 5, 8)
    padding = torch.arange(5) >= torch.tensor([[5], [3], [2]])
    recorded = model(x.clone().requires_grad_(), padding).detach()
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fast)
    try:
        found = cheap("simple-gradient", model).explain(x, None, padding)
        line = cheap("integrated-gradients", model, steps=64).explain(x, 0, padding)
        assert torch.backends.mha.get_fastpath_enabled() is fast
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    torch.testing.assert_close(found.score, recorded.amax(1))
    assert torch.equal(found.prediction, recorded.argmax(1))
    torch.testing.assert_close(line.score, recorded[:, 0])


INPUTS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "sparse": (lambda: pictures().to_sparse(), TypeError, "to_dense"),
    "compressed": (lambda: pictures()[:, 0, 0].to_sparse_csr(), TypeError, "to_dense"),
    "nested": (lambda: torch.nested.nested_tensor([*pictures(2)]), TypeError, "nested.*pad"),
    "meta": (lambda: pictures().to("meta"), TypeError, "meta"),
    "complex": (lambda: pictures().to(torch.complex64), TypeError, "view_as_real"),
    "float8": (lambda: pictures().to(torch.float8_e4m3fn), TypeError, "float8"),
    "quantised": (
        lambda: torch.quantize_per_tensor(pictures().float(), 0.1, 0, torch.quint8),
        TypeError, "dequantize",
    ),
    "packed": (
        lambda: nn.utils.rnn.pack_sequence([torch.randn(4, 3), torch.randn(2, 3)]),
        TypeError, "PackedSequence.*padded|padded.*PackedSequence",
    ),
    "a dictionary": (lambda: {"x": pictures()}, TypeError, "got dict"),
    "one axis": (lambda: torch.ones(4), ValueError, r"x\[None\].*x\[:, None\]"),
}  # fmt: skip


@pytest.mark.parametrize("kind", INPUTS)
def test_inputs_of_other_kinds(method: str, kind: str) -> None:
    made, error, says = INPUTS[kind]
    with pytest.raises(error, match=f"inputs: .*({says})") as caught:
        cheap(method, Picture()).attribute(made(), target=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("transform", ["vmap", "jacrev", "jvp"])
def test_transforms_of_functions_are_refused(method: str, transform: str) -> None:
    explainer, x = cheap(method, Picture()), pictures(2)

    def mapped(inputs: Tensor) -> Any:
        return explainer.attribute(inputs, target=1)

    calls = {
        "vmap": lambda: torch.func.vmap(lambda one: mapped(one[None])[0])(x),
        "jacrev": lambda: torch.func.jacrev(mapped)(x),
        "jvp": lambda: torch.func.jvp(mapped, (x,), (x,)),
    }
    with pytest.raises(ValueError, match=r"torch\.func or vmap.*vjp"):
        calls[transform]()


TARGETS = [
    np.int64(2), np.uint8(2), np.array(2), np.array([2, 2]), np.array([[2], [2]]),
    [np.int64(2)] * 2, (np.int64(2),), torch.tensor(2), range(2, 4),
]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_integers_of_other_libraries_are_targets(target: Any) -> None:
    found = cheap("simple-gradient", Picture(4)).explain(pictures(2), target)
    assert found.target.tolist() == ([2, 3] if isinstance(target, range) else [2, 2])


@pytest.mark.parametrize(
    "target",
    [[None], [None, None], [1, None], ["a", "b"], np.array([1.0, 2.0]), np.bool_(True),
     np.array(["a", "b"]), [[1, 2], [1]], 2**70, [(None,), (None,)]],
    ids=repr,
)  # fmt: skip
def test_what_is_no_target(target: Any) -> None:
    with pytest.raises(TypeError, match="target: expected"):
        cheap("simple-gradient", Picture()).explain(pictures(2), target)


def test_another_default_dtype(method: str) -> None:
    model, x = Picture(dtype=torch.float32), pictures(2, torch.float32)
    expected = cheap(method, copy.deepcopy(model)).attribute(x, target=1)
    torch.set_default_dtype(torch.float64)
    try:
        found = cheap(method, model).attribute(x, target=1)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.dtype == torch.float32
    assert_same(found, expected, 1e-4)


# Captum's calling forms.


@pytest.mark.parametrize("value", [True, False])
def test_a_bool_is_no_further_argument(method: str, value: bool) -> None:
    explainer, x = cheap(method, Picture()), pictures(2)
    for call in (explainer.explain, explainer.bind):
        with pytest.raises(TypeError, match=r"additional_forward_args: .*signed.*tuple"):
            call(x, 1, value)


CALLS = [
    ("simple-gradient", {"abs": False}, r"abs: .*signed.*\.abs\(\)"),
    ("smoothgrad", {"nt_samples": 4}, r"setting samples: SmoothGrad\(model, samples="),
    ("smoothgrad", {"stdevs": 0.1}, "setting sigma"),
    ("smoothgrad", {"nt_type": "smoothgrad_sq"}, "method of its own"),
    ("simple-gradient", {"stdevs": 0.1}, "SimpleGradient has no such setting"),
    ("integrated-gradients", {"n_steps": 4}, "setting steps"),
    ("integrated-gradients", {"method": "riemann_left"}, "setting quadrature"),
    ("integrated-gradients", {"internal_batch_size": 4}, "setting batch_size"),
    ("integrated-gradients", {"return_convergence_delta": True}, r"explain\(\.\.\.\)\.error"),
    ("deeplift", {"return_convergence_delta": True}, r"explain\(\.\.\.\)\.error"),
    ("grad-cam", {"relu_attributions": True}, "setting relu"),
    ("deeplift", {"custom_attribution_func": len}, "times_input=False gives the multipliers"),
    ("grad-cam", {"attribute_to_layer_input": True}, "name the layer"),
    ("grad-cam", {"grad_kwargs": {}}, "does not depend on is refused"),
    ("caso", {"baselines": 0}, "IntegratedGradients, DeepLift and Exp"),
    ("moreaugrad", {"rho": 0.5}, "rho is a setting of the explainer"),
    ("moreaugrad", {"targt": 1}, "did you mean 'target'"),
]


@pytest.mark.parametrize(("name", "named", "says"), CALLS, ids=str)
def test_captums_other_arguments(name: str, named: dict[str, Any], says: str) -> None:
    explainer = cheap(name, Picture())
    with pytest.raises(TypeError, match=says):
        explainer.attribute(pictures(2), target=1, **named)


def test_further_positions(method: str) -> None:
    explainer = cheap(method, Picture())
    with pytest.raises(TypeError, match=r"expected at most inputs.*name the arguments"):
        explainer.attribute(pictures(2), 0, 1, None, 50)


MADE = [
    ("integrated-gradients", {"multiply_by_inputs": False}, r"IntegratedGradients\(.*times_input="),
    ("deeplift", {"multiply_by_inputs": False}, "setting times_input"),
    ("deeplift", {"eps": 1e-10}, "below 1e-10"),
    ("integrated-gradients", {"n_steps": 4}, "setting steps"),
    ("simple-gradient", {"abs": False}, "maps are signed"),
    ("simple-gradient", {"n_steps": 4}, "SimpleGradient has no such setting"),
    ("moreaugrad", {"roh": 1.0}, "did you mean 'rho'"),
]


@pytest.mark.parametrize(("name", "named", "says"), MADE, ids=str)
def test_captums_settings(name: str, named: dict[str, Any], says: str) -> None:
    with pytest.raises(TypeError, match=says):
        METHODS[name].load()(Picture(), **named)


def test_a_layer_by_position(method: str) -> None:
    """As Captum's layer methods take it."""
    model = Picture()
    with pytest.raises(TypeError, match=r"the model alone by position.*Sequential.*layer="):
        METHODS[method].load()(model, model.body)

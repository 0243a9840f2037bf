"""What a call leaves behind: nothing."""

import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts.networks import Picture, assert_same, cheap, pictures

pytestmark = pytest.mark.filterwarnings("ignore::moreaugrad.ConvergenceWarning")
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def state(model: nn.Module) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        found[name] = (
            module.training,
            sorted(vars(module)),
            [len(getattr(module, hooks)) for hooks in HOOKS],
            module._is_full_backward_hook,
        )
    for name, parameter in model.named_parameters():
        grad = None if parameter.grad is None else parameter.grad.tolist()
        found[name] = (parameter.requires_grad, grad, parameter.tolist(), parameter._version)
    for name, buffer in model.named_buffers():
        found[f"buffer {name}"] = (buffer.tolist(), buffer._version)
    return found


def uneven() -> Picture:
    """A model in which nothing is as usual."""
    model = Picture()
    model.head.train()
    model.body[0].weight.requires_grad_(False)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    model.body[1].register_forward_hook(lambda *_: None)
    model.head.register_full_backward_hook(lambda *_: None)
    return model


def test_the_model_is_left_as_found(method: str) -> None:
    model = uneven()
    before = state(model)
    cheap(method, model).attribute(pictures(), target=1)
    assert state(model) == before


def test_the_model_is_left_as_found_by_a_failure(method: str) -> None:
    model = uneven()
    calls = 0

    def fail(_module: object, _args: object) -> None:
        nonlocal calls
        calls += torch.is_grad_enabled()
        if calls == 1:
            raise RuntimeError("the network broke")

    model.norm.register_forward_pre_hook(fail)
    before = state(model)
    with pytest.raises(ValueError, match="the network broke"):
        cheap(method, model).attribute(pictures(), target=1)
    assert calls == 1
    assert state(model) == before


def test_a_frozen_model_is_explained_alike(method: str) -> None:
    expected = cheap(method, Picture()).attribute(pictures(), target=1)
    frozen = Picture().requires_grad_(False)
    assert_same(cheap(method, frozen).attribute(pictures(), target=1), expected)


def test_global_generators_are_untouched(
    method: str, untouched_generators: Callable[[], AbstractContextManager[None]]
) -> None:
    explainer = cheap(method, Picture())
    with untouched_generators():
        maps = explainer.attribute(pictures(), target=1)
    torch.manual_seed(99)
    assert torch.equal(explainer.attribute(pictures(), target=1), maps)


def test_it_works_under_no_grad(method: str) -> None:
    explainer = cheap(method, Picture())
    expected = explainer.attribute(pictures(), target=1)
    with torch.no_grad():
        found = explainer.attribute(pictures(), target=1)
        assert not torch.is_grad_enabled()
    assert_same(found, expected, 0.0)
    assert torch.is_grad_enabled()


class Unreduced(Picture):
    """A model that computes in single precision under autocast too."""

    def forward(self, *args: Any) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return super().forward(*args)


def test_autocast_is_for_the_networks_forward_passes_alone(method: str) -> None:
    explainer, x = cheap(method, Unreduced(dtype=torch.float32)), pictures(2, torch.float32)
    expected = explainer.attribute(x, target=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_same(explainer.attribute(x, target=1), expected, 0.0)
        frames = explainer.frames(x[:1], target=1)
        assert all(torch.is_autocast_enabled("cpu") for _ in frames)


def test_another_default_device(method: str) -> None:
    """Nothing is made on it: a tensor on the meta device has no numbers."""
    if method == "integrated-gradients":
        pytest.skip("Captum's engine makes its steps there, and then moves them")
    expected = cheap(method, Picture()).explain(pictures(), 1)
    model, x = Picture(), pictures()
    with torch.device("meta"):
        found = cheap(method, model).explain(x, 1)
        assert_same(found[1:].maps, expected.maps[1:], 0.0)


def test_inference_mode_is_refused(method: str) -> None:
    explainer = cheap(method, Picture())
    with (
        torch.inference_mode(),
        pytest.raises(ValueError, match=r"outside torch\.inference_mode.*torch\.no_grad"),
    ):
        explainer.attribute(pictures(), target=1)
    with torch.inference_mode():
        x = pictures() + 1
    with pytest.raises(ValueError, match=r"outside torch\.inference_mode"):
        explainer.attribute(x, target=1)


def test_memory_is_bounded_by_the_batch_size(method: str) -> None:
    model = Picture()
    largest = 0

    def watch(_module: object, args: tuple[Tensor, ...]) -> None:
        nonlocal largest
        largest = max(largest, len(args[0]))

    model.register_forward_pre_hook(watch)
    cheap(method, model, batch_size=4).attribute(pictures(9), target=1)
    assert largest <= 4


def test_explainers_survive_pickling(method: str) -> None:
    explainer = cheap(method, Picture())
    again = pickle.loads(pickle.dumps(explainer))
    assert repr(again) == repr(explainer)
    assert_same(
        again.attribute(pictures(), target=1), explainer.attribute(pictures(), target=1), 0.0
    )

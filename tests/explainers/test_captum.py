"""Captum's methods on our scores, against literal versions and against Captum's own."""

import itertools
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captum import attr
from torch import Tensor, nn

import toys
from moreaugrad import (
    ConvergenceWarning,
    DeepLift,
    GradCAM,
    IntegratedGradients,
    SimpleGradient,
    Status,
)
from moreaugrad.data.images import load_image
from moreaugrad.explainers.deeplift import RULES
from moreaugrad.models.loading import load_model

F64 = torch.float64


def drawn(model: nn.Module, seed: int = 0) -> Any:
    """In float64, with the same weights whenever it is built."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.double().parameters():
        shape = parameter.shape
        weight = torch.randn(shape, generator=generator, dtype=F64) / parameter[0].numel() ** 0.5
        parameter.data = weight
    return model.eval()


def images(*shape: int, seed: int = 1) -> Tensor:
    return toys.normal(*shape, seed=seed)


# Integrated Gradients


def test_integrated_gradients_of_a_quadratic_are_exact() -> None:
    hessian = toys.normal(3, 4, 4, seed=1)
    hessian = hessian + hessian.mT
    slope, x, start = (
        toys.normal(3, 4, seed=2),
        toys.normal(3, 4, seed=3),
        toys.normal(1, 4, seed=4),
    )
    middle = torch.einsum("bij,bj->bi", hessian, (x + start) / 2) + slope
    for times_input, expected in ((True, (x - start) * middle), (False, middle)):
        explainer = IntegratedGradients(
            toys.quadratic, task="regression", steps=3, times_input=times_input
        )
        result = explainer.explain(x, 0, (hessian, slope), baselines=start)
        torch.testing.assert_close(result.maps, expected, rtol=1e-6, atol=1e-6)
        assert (result.error < 1e-6).all()
        assert set(result.status) == {Status.FIXED_BUDGET}
        assert result.evaluations.tolist() == [3, 3, 3]


QUADRATURES = ["gausslegendre", *(f"riemann_{x}" for x in ("left", "right", "middle", "trapezoid"))]


@pytest.mark.parametrize("quadrature", QUADRATURES)
@pytest.mark.parametrize("batch_size", [3, 64])
def test_integrated_gradients_are_captums(quadrature: str, batch_size: int) -> None:
    model, x = toys.network((5, 8, 3)), toys.normal(4, 5, seed=1)
    start = toys.normal(4, 5, seed=2)
    expected = attr.IntegratedGradients(model).attribute(
        x, start, torch.tensor([0, 2, 1, 1]), n_steps=10, method=quadrature
    )
    # So few steps leave some rules incomplete, in Captum as here.
    found = IntegratedGradients(
        model, steps=10, quadrature=quadrature, batch_size=batch_size, tolerance=100.0
    ).attribute(x, start, [0, 2, 1, 1])
    torch.testing.assert_close(found, expected)


def test_the_completeness_error_is_what_it_says() -> None:
    model, x = toys.network((5, 16, 3), gain=3.0), toys.normal(4, 5, seed=1)
    errors = []
    for steps in (2, 8, 32):
        result = IntegratedGradients(model, steps=steps, baseline=0.5).explain(x, 1)
        change = (model(x) - model(torch.full_like(x, 0.5)))[:, 1]
        missing = (result.maps.sum(1) - change) / change
        torch.testing.assert_close(result.error, missing.abs(), rtol=1e-5, atol=1e-9)
        errors.append(float(result.error.max()))
    assert errors[0] > 2 * errors[1] > 200 * errors[2]


def test_no_change_needs_no_contribution() -> None:
    model, x = toys.network((5, 8, 3)), toys.normal(2, 5, seed=1)
    for explainer in (IntegratedGradients(model), DeepLift(model)):
        result = explainer.explain(x, 0, baselines=x)
        assert not result.maps.any()
        assert result.error.tolist() == [0, 0]
        assert result.ok


def test_forms_of_one_baseline_agree() -> None:
    model, x = toys.network((5, 8, 3)), toys.normal(4, 5, seed=1)
    for kind in (IntegratedGradients, DeepLift):
        expected = kind(model, baseline=0.25).attribute(x, target=1)
        row = torch.full((1, 5), 0.25, dtype=F64)
        for form in (0.25, row, row.expand(4, 5), row.float(), (0.25,), (row,)):
            torch.testing.assert_close(kind(model).attribute(x, form, 1), expected)
        ones = kind(model, baseline=0.25).attribute(x, 1, 1)
        torch.testing.assert_close(ones, kind(model, baseline=1).attribute(x, target=1))


def test_each_input_has_its_baseline() -> None:
    def model(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(1)

    a, b = toys.normal(3, 4, seed=1), toys.normal(3, 4, seed=2)
    explainer = IntegratedGradients(model, task="regression", steps=2)
    start = toys.normal(1, 4, seed=3)
    found = explainer.attribute((a, b), (1.0, start), target=0)
    expected = (a - 1) * (b + start) / 2, (b - start) * (a + 1) / 2
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    both = explainer.attribute((a, b), 2.0, target=0)
    torch.testing.assert_close(both, explainer.attribute((a, b), (2.0, 2.0), target=0))


def test_settings_contain_a_baseline_given_with_the_call() -> None:
    model, x = toys.network((5, 8, 3)), toys.normal(2, 5, seed=1)
    explainer = IntegratedGradients(model, baseline=0.5)
    assert explainer.explain(x).settings["baseline"] == 0.5
    assert explainer.explain(x, baselines=0.25).settings["baseline"] == 0.25
    given = explainer.explain(x, baselines=torch.zeros_like(x)).settings
    assert given == explainer.settings() | {"baseline": "given with the call"}


@pytest.mark.parametrize(
    ("baselines", "error", "says"),
    [
        (torch.zeros(4), ValueError, r"shape \(4, 5\), or .* one row, got \(4,\) .*target="),
        (torch.zeros(3, 5), ValueError, r"shape \(4, 5\), or .* one row, got \(3, 5\)"),
        (torch.full((1, 5), torch.nan), ValueError, "expected finite numbers"),
        ((0.0, 1.0), ValueError, "one for each of the 1 inputs, got 2"),
        (True, TypeError, "expected numbers or tensors like the inputs, got bool"),
        ([1, 2, 3, 4], TypeError, "got list .the target comes after the baselines: name it"),
    ],
)
def test_bad_baselines(baselines: Any, error: type[Exception], says: str) -> None:
    model, x = toys.network((5, 8, 3)), toys.normal(4, 5, seed=1)
    for explainer in (IntegratedGradients(model), DeepLift(model)):
        with pytest.raises(error, match=says):
            explainer.attribute(x, baselines, target=1)


class Sentence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.activation = nn.Embedding(9, 4), nn.Tanh()
        self.head = nn.Linear(12, 3)

    def forward(self, ids: Tensor, scale: float = 1.0) -> Tensor:
        return self.head(self.activation(self.embedding(ids)).flatten(1)) * scale


def test_token_ids_are_a_baseline_of_an_embedding() -> None:
    model = drawn(Sentence())
    ids, start = torch.tensor([[1, 4, 2], [7, 7, 0]]), torch.tensor([[8, 8, 8]])
    expected = attr.LayerIntegratedGradients(model, model.embedding).attribute(
        ids, start.expand(2, 3), target=2, additional_forward_args=(2.0,), n_steps=12
    )
    explainer = IntegratedGradients(model, layer="embedding", steps=12)
    torch.testing.assert_close(explainer.attribute(ids, start, 2, 2.0), expected)
    zero = explainer.explain(ids, 2, 2.0)
    outputs = model(ids, 2.0)[:, 2] - 2 * model.head(torch.zeros(2, 12, dtype=F64))[:, 2]
    torch.testing.assert_close(zero.maps.sum((1, 2)), outputs, rtol=1e-4, atol=1e-4)
    lifted = DeepLift(model, layer="embedding").explain(ids, 2, 2.0, baselines=start)
    change = (model(ids) - model(start))[:, 2] * 2
    torch.testing.assert_close(lifted.maps.sum((1, 2)), change)


# DeepLIFT


def literal_rescale(model: nn.Sequential, x: Tensor, start: Tensor, target: int) -> Tensor:
    """One sample `[n]` through linear layers and activations, a layer at a time."""
    points = [(x, start)]
    for layer in model:
        points.append((layer(points[-1][0]), layer(points[-1][1])))
    multiplier = torch.zeros_like(points[-1][0])
    multiplier[target] = 1
    for layer, before, after in reversed(list(zip(model, points, points[1:], strict=False))):
        if isinstance(layer, nn.Linear):
            multiplier = layer.weight.T @ multiplier
        else:
            multiplier = multiplier * (after[0] - after[1]) / (before[0] - before[1])
    return (multiplier * (x - start)).detach()


def test_deeplift_is_the_rescale_rule() -> None:
    model = toys.network((5, 9, 7, 3), nn.ReLU)
    x, start = toys.normal(4, 5, seed=1), toys.normal(4, 5, seed=2)
    found = DeepLift(model).explain(x, 1, baselines=start)
    expected = [literal_rescale(model, x[i], start[i], 1) for i in range(4)]
    torch.testing.assert_close(found.maps, torch.stack(expected))
    assert set(found.status) == {Status.DIRECT}
    assert found.evaluations.tolist() == [2, 2, 2, 2]


def test_where_nothing_changes_the_rule_is_the_derivative() -> None:
    model = nn.Sequential(nn.Linear(2, 1), nn.Softplus(), nn.Linear(1, 2)).double().eval()
    model[0].weight.data = torch.ones(1, 2, dtype=F64)
    x = torch.tensor([[1.0, -1.0]], dtype=F64)
    slope = model[2].weight[1, 0].detach() * torch.sigmoid(model[0].bias.detach())
    torch.testing.assert_close(DeepLift(model).attribute(x, 0.0, 1), slope * x)


def test_deeplift_is_captums_where_that_is_right() -> None:
    model = drawn(
        nn.Sequential(
            nn.Conv2d(2, 6, 3), nn.ReLU(inplace=True), nn.Conv2d(6, 4, 3), nn.Tanh(),
            nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 3),
        )
    )  # fmt: skip
    x, start = images(3, 2, 8, 8), images(1, 2, 8, 8, seed=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = attr.DeepLift(model).attribute(x, start, 1)
    torch.testing.assert_close(DeepLift(model).attribute(x, start, 1), expected.detach())


def complete(model: Any, x: Tensor, start: Tensor, **settings: Any) -> Tensor:
    """The map, after a look at its sum, at what is told, and at each sample alone."""
    result = DeepLift(model, **settings).explain(x, 1, baselines=start)
    change = (model(x) - model(start))[:, 1]
    torch.testing.assert_close(result.maps.flatten(1).sum(1), change.detach())
    assert (result.error < 1e-9).all()
    assert result.ok
    for i in range(len(x)):
        alone = DeepLift(model, **settings).explain(x[i : i + 1], 1, baselines=start)
        torch.testing.assert_close(alone.maps, result.maps[i : i + 1])
    return result.maps


# Softmax has a test of its own: its normalised multipliers do not add up.
ACTIVATIONS = [kind for kind in RULES if "Pool" not in kind.__name__ and kind is not nn.Softmax]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_has_its_rule(activation: type[nn.Module]) -> None:
    model = drawn(nn.Sequential(nn.Linear(5, 8), activation(), nn.Linear(8, 3)))
    complete(model, 2 * images(4, 5), images(1, 5, seed=2))


POOLS = [
    (nn.MaxPool1d, nn.Conv1d, (9,)),
    (nn.MaxPool2d, nn.Conv2d, (9, 8)),
    (nn.MaxPool3d, nn.Conv3d, (6, 5, 5)),
]


@pytest.mark.parametrize(("pool", "conv", "size"), POOLS)
@pytest.mark.parametrize(("window", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (2, 1, 0)])
def test_pooling_after_an_activation_is_complete(
    pool: Any, conv: Any, size: tuple[int, ...], window: int, stride: int, padding: int
) -> None:
    pooled = pool(window, stride, padding, ceil_mode=True)
    body = nn.Sequential(conv(2, 4, 3, padding=1), nn.ReLU(), pooled, nn.Flatten())
    features = body(torch.zeros(1, 2, *size)).shape[1]
    model = drawn(nn.Sequential(*body, nn.Linear(features, 3)))
    complete(model, images(3, 2, *size), images(1, 2, *size, seed=2))


def test_the_pooling_rule_by_hand() -> None:
    # Windows (1, 5, 2) and (2, 4, 0) against (0, 3, 7) and (7, 1, 1): the first maximum falls
    # from 7 to 5, at the baseline's largest entry; so does the second, from 7 to 4.
    x = torch.tensor([[[1.0, 5.0, 2.0, 4.0, 0.0]]])
    start = torch.tensor([[[0.0, 3.0, 7.0, 1.0, 1.0]]])
    model = nn.Sequential(nn.MaxPool1d(3, 2), nn.Flatten(), nn.Linear(2, 2, bias=False)).eval()
    model[2].weight.data = torch.tensor([[1.0, 0.0], [10.0, 1.0]])
    found = DeepLift(model).attribute(x, start, 1)
    torch.testing.assert_close(found, torch.tensor([[[0.0, 0.0, -23.0, 0.0, 0.0]]]))
    back = DeepLift(model).attribute(start, x, 1)
    torch.testing.assert_close(back, torch.tensor([[[0.0, 0.0, 23.0, 0.0, 0.0]]]))


class Shared(nn.Module):
    """One activation for all places, one of them in place, one with a shortcut around it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.relu = nn.ReLU(inplace=True)
        self.block = nn.ModuleDict({"relu": self.relu, "tanh": nn.Tanh()})

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.relu(self.first(x))
        around = self.second(hidden)
        hidden = self.block["tanh"](around) + around
        hidden = self.block["relu"](hidden) * 2
        hidden += 1
        return self.third(hidden)


def test_modules_may_be_used_twice_or_bypassed() -> None:
    complete(drawn(Shared()), images(4, 5), images(1, 5, seed=2))
    complete(drawn(Shared()).requires_grad_(False), images(4, 5), images(1, 5, seed=2))


def test_deeplift_from_a_layer_behind_activations() -> None:
    for frozen in (False, True):
        model = toys.network((5, 8, 8, 3), nn.ReLU).requires_grad_(not frozen)
        x, start = images(3, 5), images(1, 5, seed=2)
        result = DeepLift(model, layer="2").explain(x, 1, baselines=start)
        tail = nn.Sequential(*model[3:])
        middle = model[:3]
        expected = DeepLift(tail).explain(middle(x).detach(), 1, baselines=middle(start).detach())
        torch.testing.assert_close(result.maps, expected.maps)
        assert result.ok


class Functional(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.function = nn.Linear(5, 20), nn.Linear(20, 3), function

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.function(self.first(x)))


def test_an_incomplete_map_is_reported() -> None:
    x = torch.cat((images(3, 5), torch.zeros(1, 5, dtype=F64)))
    model = drawn(Functional(F.relu))
    explainer = DeepLift(model)
    result = explainer.explain(x, 1)
    change = (model(x) - model(0 * x))[:3, 1].detach()
    expected = ((result.maps.sum(1)[:3] - change) / change).abs()
    torch.testing.assert_close(result.error[:3], expected)
    assert (expected > 0.05).all()
    assert result.status == (Status.INCOMPLETE,) * 3 + (Status.DIRECT,)
    with pytest.warns(ConvergenceWarning, match=r"sample 0: the contributions do not add up"):
        explainer.attribute(x, target=1)
    with pytest.raises(RuntimeError, match=r"sample 2: .*use integrated gradients"):
        result.raise_if_failed()
    assert DeepLift(model, tolerance=1.1 * float(expected.max())).explain(x, 1).ok
    by_module = DeepLift(drawn(Functional(nn.ReLU()))).explain(x, 1)
    assert by_module.ok
    assert not torch.allclose(by_module.maps, result.maps)


def test_softmax_keeps_samples_apart() -> None:
    model = drawn(nn.Sequential(nn.Linear(5, 4), nn.Softmax(1), nn.Linear(4, 3)))
    x, start = images(3, 5), images(1, 5, seed=2)
    maps = DeepLift(model).explain(x, 1, baselines=start).maps
    for i in range(3):
        alone = DeepLift(model).explain(x[i : i + 1], 1, baselines=start).maps
        torch.testing.assert_close(alone, maps[i : i + 1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            captums = attr.DeepLift(model).attribute(x[i : i + 1], start, 1)
        torch.testing.assert_close(alone, captums.detach())


def test_the_precision_of_the_network_bounds_what_is_complete() -> None:
    # 1000 + tanh: single precision hardly tells such a score from its baseline's.
    model = toys.network((5, 8, 3), dtype=torch.float32)
    model[2].bias.data += 1000
    x = 1e-4 * toys.normal(4, 5, seed=1, dtype=torch.float32)
    assert DeepLift(model).explain(x, 1).ok


# What all share


def test_functions_have_no_layers_to_read() -> None:
    model, x = toys.network((5, 8, 3)), images(2, 5)

    def function(x: Tensor) -> Tensor:
        return model(x)

    found = IntegratedGradients(function).attribute(x, target=1)
    torch.testing.assert_close(found, IntegratedGradients(model).attribute(x, target=1))
    for kind in (DeepLift, GradCAM):
        with pytest.raises(TypeError, match="expected the model to be a torch module, got funct"):
            kind(function)


def test_captum_knows_whether_maps_are_multiplied_by_the_input() -> None:
    model = toys.network((5, 8, 3))
    for times_input in (True, False):
        explainer = IntegratedGradients(model, times_input=times_input)
        assert attr.NoiseTunnel(explainer).multiplies_by_inputs is times_input
        gradient = SimpleGradient(model, times_input=times_input)
        assert attr.NoiseTunnel(gradient).multiplies_by_inputs is times_input
    assert attr.NoiseTunnel(DeepLift(model)).multiplies_by_inputs
    assert not attr.NoiseTunnel(GradCAM(drawn(nn.Conv2d(2, 3, 3)))).multiplies_by_inputs


# Of the score, the model's width, the target, the settings: what Captum's own does not know.
SCORES: dict[str, tuple[int, int, dict[str, Any], Callable[[Tensor], Tensor]]] = {
    "a logit": (3, 1, {}, lambda y: y[:, 1]),
    "a probability": (3, 1, {"score": "probability"}, lambda y: y.softmax(1)[:, 1]),
    "a margin": (2, 0, {"score": "margin"}, lambda y: y[:, 0] - y[:, 1]),
    "class 0 of a single logit": (1, 0, {}, lambda y: -y[:, 0]),
    "a plain output": (1, 0, {"task": "regression"}, lambda y: y[:, 0]),
    "at a layer": (3, 2, {"layer": "0"}, lambda y: y[:, 2]),
}


@pytest.mark.parametrize("name", SCORES)
def test_the_convergence_delta_is_that_of_the_score(name: str) -> None:
    width, target, settings, score = SCORES[name]
    model, x = toys.network((5, 8, width), gain=3.0), images(4, 5)
    start = images(1, 5, seed=2)
    explainer = IntegratedGradients(model, steps=2, tolerance=100.0, **settings)
    maps = explainer.attribute(x, start, target)
    found = explainer.compute_convergence_delta(maps, start, x, target)
    expected = maps.sum(1) - (score(model(x)) - score(model(start))).detach()
    torch.testing.assert_close(found, expected)
    assert (found.abs() > 1e-6).all()


def test_memory_of_deeplift_is_bounded_with_its_baselines() -> None:
    model, x = toys.network((5, 8, 3)), images(7, 5)
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda _module, args: sizes.append(len(args[0])))
    for batch_size, kind in itertools.product((1, 4), (DeepLift, IntegratedGradients)):
        sizes.clear()
        kind(model, batch_size=batch_size).explain(x)
        assert max(sizes) <= max(batch_size, 2 if kind is DeepLift else 1)


@pytest.mark.data
@pytest.mark.skipif(find_spec("torchvision") is None, reason="needs torchvision")
def test_real_photos_are_explained_completely(data_folder: Path) -> None:
    loaded = load_model(
        "torchvision:squeezenet1_0",
        weights=data_folder / "models" / "squeezenet1_0-imagenet.safetensors",
    )
    files = sorted((data_folder / "imagenet-sample").glob("*.JPEG"))[:2]
    x = torch.stack([loaded.preprocess(load_image(file)) for file in files])
    lifted = DeepLift(loaded.module).explain(x)
    assert (lifted.error < 1e-4).all()
    integrated = IntegratedGradients(loaded.module, steps=16).explain(x)
    assert (integrated.error < 0.05).all()
    # Two methods that share nothing but the baseline name the same pixels.
    alike = torch.cosine_similarity(lifted.maps.flatten(1), integrated.maps.flatten(1))
    assert (alike > 0.5).all()
    cam = GradCAM(loaded.module, relu=True).explain(x)
    assert (cam.maps >= 0).all()
    assert (cam.maps.flatten(1).amax(1) > 0).all()


def test_a_derivative_is_not_taken_from_another_baseline() -> None:
    model, x = toys.network((4, 6, 2), nn.Tanh), toys.normal(2, 4, seed=1)
    explainer = IntegratedGradients(model)
    given = explainer.explain(x, 0, baselines=torch.ones_like(x))
    with pytest.raises(ValueError, match="baselines: expected a map"):
        explainer.vjp(given, given.maps)
    own = explainer.explain(x, 0)
    assert explainer.vjp(own, own.maps).isfinite().all()


def test_equal_entries_are_kept_in_their_order() -> None:
    signs = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, 1.0, 1.0, 1.0, -1.0, 1.0])
    found = SimpleGradient(lambda x: (x * signs).sum(1, keepdim=True), keep=0.3).explain(
        torch.ones(2, 10)
    )
    assert torch.equal(found.maps, torch.cat((signs[:3], torch.zeros(7))).expand(2, -1))

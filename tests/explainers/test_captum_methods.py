"""Captum's classes as methods, `captum:NAME`: against known maps and against Captum itself."""

import warnings
from collections import Counter
from typing import Any

import pytest
import torch
from captum import attr
from torch import Tensor, nn

import moreaugrad as mg
import toys
from moreaugrad.explainers.captum_classes import names
from moreaugrad.explainers.catalogue import METHODS

F64 = torch.float64
REQUIRED: dict[str, dict[str, Any]] = {
    "Occlusion": {"sliding_window_shapes": (2, 4, 4), "strides": [2, 2, 2]},
    "GuidedGradCam": {"cam_layer": "2"},
    "ShapleyValues": {"feature_mask": (torch.arange(128) // 32).reshape(1, 2, 8, 8)},
    "LRP": {},
}
RANDOM = ("GradientShap", "KernelShap", "Lime", "ShapleyValueSampling")


def images(*shape: int, seed: int = 1) -> Tensor:
    return toys.normal(*shape, seed=seed)


def network() -> nn.Sequential:
    """A small network with ReLUs, of which one works in place, and pooling."""
    made = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3, padding=1),
        nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5),
    ).double()  # fmt: skip
    for seed, parameter in enumerate(made.parameters()):
        parameter.data = toys.normal(*parameter.shape, seed=seed) / 3
    return made.eval()


def settings(name: str) -> dict[str, Any]:
    few = {"KernelShap": 8, "Lime": 8, "ShapleyValueSampling": 1, "GradientShap": 4}
    return REQUIRED.get(name, {}) | ({"n_samples": few[name]} if name in few else {})


def model_of(name: str) -> nn.Module:
    """The network, or one for which LRP has rules."""
    if name != "LRP":
        return network()

    class Means(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.Sequential(*list(network())[:4])

        def forward(self, x: Tensor) -> Tensor:
            return self.parts(x).mean((2, 3))

    return Means().eval()


def test_names_are_captums_methods_of_inputs() -> None:
    expected = {
        "Deconvolution", "DeepLift", "DeepLiftShap", "FeatureAblation", "GradientShap",
        "GuidedBackprop", "GuidedGradCam", "InputXGradient", "IntegratedGradients", "KernelShap",
        "LRP", "Lime", "Occlusion", "Saliency", "ShapleyValueSampling", "ShapleyValues",
    }  # fmt: skip
    assert set(names()) == expected


# Maps that are known


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("FeatureAblation", {}),
        ("Occlusion", {"sliding_window_shapes": (1,)}),
        ("ShapleyValueSampling", {"n_samples": 2}),
        ("ShapleyValues", {}),
        ("KernelShap", {"n_samples": 60}),
    ],
)
@pytest.mark.parametrize("baseline", [0.0, 0.5])
def test_contributions_to_a_linear_score_are_exact(
    name: str, given: dict[str, Any], baseline: float
) -> None:
    weight = toys.normal(4, 3, seed=0)
    x, target = toys.normal(5, 4, seed=1), torch.tensor([0, 2, 1, 0, 2])
    explainer = mg.build(f"captum:{name}", lambda x: x @ weight, baselines=baseline, **given)
    found = explainer.explain(x, target)
    assert found.ok
    # Captum sums in float32; KernelSHAP weighs the full and the empty set by a large number.
    accuracy = {"KernelShap": 1e-3, "FeatureAblation": 1e-12}.get(name, 1e-5)
    expected = (x - baseline) * weight[:, target].mT
    torch.testing.assert_close(found.maps, expected, rtol=0, atol=accuracy)


@pytest.mark.parametrize("name", ["GuidedBackprop", "Deconvolution", "Occlusion", "Saliency"])
def test_it_is_captums_own_map(name: str) -> None:
    model, x, target = network(), images(3, 2, 8, 8), torch.tensor([0, 3, 4])
    found = mg.build(f"captum:{name}", model, **settings(name)).attribute(x, target)
    given = (
        {"sliding_window_shapes": (2, 4, 4), "strides": (2, 2, 2)} if name == "Occlusion" else {}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = getattr(attr, name)(model).attribute(x.requires_grad_(), target=target, **given)
    torch.testing.assert_close(found, expected.detach().double())


def test_a_layer_is_explained_as_by_captums_layer_method() -> None:
    model, x = network(), images(2, 2, 8, 8)
    found = mg.build("captum:InputXGradient", model, layer="2").attribute(x, 1)
    expected = attr.LayerGradientXActivation(model, model[2]).attribute(x, target=1)
    torch.testing.assert_close(found, expected.detach())


def test_other_scores() -> None:
    """Occlusion by a whole image: the change of the probability itself."""
    model, x = network(), images(2, 2, 8, 8)
    explainer = mg.build(
        "captum:Occlusion", model, sliding_window_shapes=(2, 8, 8), score="probability"
    )
    found = explainer.attribute(x, 1)
    change = model(x).softmax(1)[:, 1] - model(torch.zeros_like(x)).softmax(1)[:, 1]
    torch.testing.assert_close(found, change.detach()[:, None, None, None].expand_as(x))


# Per sample


@pytest.mark.parametrize("name", names())
def test_a_batch_is_its_samples(name: str) -> None:
    model, x, ids = model_of(name), images(4, 2, 8, 8), [7, 3, 3, 0]
    explainer = mg.build(f"captum:{name}", model, batch_size=3, **settings(name))
    whole = explainer.explain(x, [0, 1, 2, 1], ids=ids)
    for row in range(4):
        one = explainer.explain(x[[row]], int(whole.target[row]), ids=[ids[row]])
        torch.testing.assert_close(whole.maps[[row]], one.maps, msg=f"sample {row}")
        assert int(one.evaluations) == int(whole.evaluations[row])


@pytest.mark.parametrize("name", RANDOM)
def test_random_numbers_follow_seed_and_id(name: str, untouched_generators: Any) -> None:
    x = images(1, 2, 8, 8).expand(2, -1, -1, -1)
    given = settings(name) | ({"stdevs": 0.5} if name == "GradientShap" else {})
    model = network()

    def maps(seed: int, ids: list[int]) -> Tensor:
        with untouched_generators():
            explainer = mg.build(f"captum:{name}", model, seed=seed, **given)
            return explainer.attribute(x, 1, ids=ids)

    first = maps(0, [0, 1])
    assert torch.equal(first, maps(0, [0, 1]))
    if name != "Lime":  # whose lasso of so few samples is zero
        assert not torch.equal(first[0], first[1])
        assert not torch.equal(first[0], maps(1, [0, 1])[0])


def test_what_couples_samples_or_is_no_map_is_refused() -> None:
    for name, word in {
        "FeaturePermutation": "between the samples",
        "NoiseTunnel": "smoothgrad",
        "LayerGradCam": "grad-cam",
        "LayerIntegratedGradients": "captum:IntegratedGradients",
        "LayerConductance": "layer",
        "NeuronGradient": "neuron",
        "LLMAttribution": "tensors",
        "Attribution": "tensors",
    }.items():
        with pytest.raises(ValueError, match=word):
            mg.build(f"captum:{name}", network())
    with pytest.raises(ValueError, match="did you mean 'Occlusion'"):
        mg.build("captum:Oclusion", network())


# What a call costs, and what it leaves


@pytest.mark.parametrize("name", names())
def test_passes_are_counted(name: str) -> None:
    model, passes = model_of(name), Counter[str]()

    def count(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        passes["forward"] += len(output)

    model.register_forward_hook(count)  # a copy of the model has the same hook
    explainer = mg.build(f"captum:{name}", model, check=False, **settings(name))
    x = images(2, 2, 8, 8)
    found = explainer.explain(x, 1)
    clean = len(x)  # the score at the inputs, which is not counted
    assert int(found.evaluations.sum()) == passes["forward"] - clean
    perturbs = issubclass(getattr(attr, name), attr.PerturbationAttribution)
    backward = found.details["backward_passes"].long()
    # LRP changes the weights in a first pass.
    each = 0 if perturbs else 1 if name == "LRP" else int(found.evaluations[0])
    assert backward.tolist() == [each, each]


def state(model: nn.Module) -> list[Any]:
    return [
        (sorted(part.__dict__), part.training, len(part._forward_hooks), len(part._backward_hooks),
         [(p.requires_grad, p.grad, p.tolist()) for p in part.parameters(recurse=False)])
        for part in model.modules()
    ]  # fmt: skip


@pytest.mark.parametrize("name", names())
def test_the_model_is_left_as_it_was(name: str, untouched_generators: Any) -> None:
    model = network()  # LRP has no rule for one of its parts, and fails midway
    before = state(model)
    explainer = mg.build(f"captum:{name}", model, **settings(name))
    with untouched_generators():
        if name == "LRP":
            with pytest.raises(ValueError, match=r"captum:LRP.*no rule"):
                explainer.attribute(images(2, 2, 8, 8), 1)
        else:
            explainer.attribute(images(2, 2, 8, 8), 1)
    assert state(model) == before


def test_attacks_without_a_derivative() -> None:
    model, x = network(), images(2, 2, 8, 8)
    explainer = mg.build("captum:Occlusion", model, **settings("Occlusion"))
    searched = mg.attacks.build("random-search", explainer, epsilon=0.5, steps=3).attack(x)
    assert bool((searched.after < searched.before).any())
    with pytest.raises(ValueError, match="no derivative"):
        mg.attacks.build("top-k", explainer, epsilon=0.5)
    source = mg.SimpleGradient(model)
    attack = mg.attacks.build("top-k", explainer, epsilon=0.5, steps=2, source=source)
    assert len(attack.attack(x).status) == 2


def test_what_a_map_takes_is_known_beforehand_or_it_says_so() -> None:
    """DeepLIFT and others take a pass or two more than they count."""
    for name in names():
        explainer = mg.build(f"captum:{name}", model_of(name), **settings(name))
        spent = int(explainer.explain(images(1, 2, 8, 8), 1).evaluations)
        assert not explainer.foreseen or spent <= 4 * explainer.budget(), name
        assert explainer.foreseen or spent > explainer.budget(), name


# Settings


def test_settings_are_captums() -> None:
    row = METHODS["captum:Occlusion"]
    assert {"sliding_window_shapes", "strides", "baselines"} <= row.defaults().keys()
    assert not {"inputs", "target", "perturbations_per_eval", "seed"} & row.defaults().keys()
    assert "seed" in METHODS["captum:KernelShap"].defaults()
    own = mg.build("captum:Occlusion", network(), sliding_window_shapes=[2, 4, 4]).settings()
    assert own["sliding_window_shapes"] == [2, 4, 4]
    assert "strides" not in own


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("Occlusion", {}, "sliding_window_shapes: expected a value"),
        ("Occlusion", {"sliding_window_shapes": 4}, "expected a list"),
        ("Occlusion", {"sliding_window_shape": (1,)}, "did you mean 'sliding_window_shapes'"),
        ("KernelShap", {"n_samples": 0}, "n_samples: expected at least 1"),
        ("KernelShap", {"n_samples": "many"}, "whole number"),
        ("KernelShap", {"seed": -1}, "seed"),
        ("GuidedGradCam", {}, "cam_layer"),
        ("GuidedGradCam", {"cam_layer": "nowhere"}, "no module 'nowhere'"),
        ("GuidedGradCam", {"cam_layer": "2", "layer": "2"}, "cam_layer="),
    ],
)
def test_settings_are_checked(name: str, given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mg.build(f"captum:{name}", network(), **given)


def test_calls_are_checked() -> None:
    x = images(2, 2, 8, 8)
    few = mg.build("captum:Occlusion", network(), sliding_window_shapes=(4, 4))
    with pytest.raises(ValueError, match=r"captum:Occlusion.*3 dimensions"):
        few.attribute(x)
    rows = mg.build("captum:FeatureAblation", network(), baselines=x)
    with pytest.raises(ValueError, match=r"baselines: expected the shape \(1, 2, 8, 8\)"):
        rows.attribute(x)
    sampled = mg.build("captum:KernelShap", network(), n_samples=8)
    with pytest.raises(ValueError, match="mask"):
        sampled.attribute(x, mask=torch.ones(2, 2, dtype=torch.bool))
    with pytest.raises(TypeError, match="torch module"):
        mg.build("captum:GuidedBackprop", lambda x: x)


def test_padding_is_zero() -> None:
    x, real = images(2, 2, 8, 8), torch.tensor([[True, True], [True, False]])
    explainer = mg.build("captum:FeatureAblation", network())
    found = explainer.attribute(x, 1, mask=real)
    assert not found[1, 1].any()
    assert bool(found[1, 0].any())


# Of one's own


class Halves(attr.PerturbationAttribution):
    """The change of the score as each half of a vector is removed."""

    def attribute(
        self, inputs: Tensor, additional_forward_args: Any = None, *, scale: float = 1.0
    ) -> Tensor:
        found, middle = torch.zeros_like(inputs), inputs.shape[1] // 2
        for half in (slice(0, middle), slice(middle, None)):
            removed = inputs.clone()
            removed[:, half] = 0
            change = self.forward_func(inputs, *additional_forward_args) - self.forward_func(
                removed, *additional_forward_args
            )
            found[:, half] = scale * change[:, None]
        return found


def test_ones_own_class_of_captums_base() -> None:
    x = toys.normal(3, 4, seed=1)
    explainer = mg.build(f"{__name__}:Halves", lambda x: x.cumsum(1), scale=2.0)
    found = explainer.explain(x, 3)
    halves = torch.stack((x[:, :2].sum(1), x[:, 2:].sum(1)), 1)
    torch.testing.assert_close(found.maps, 2 * halves.repeat_interleave(2, 1))
    assert found.evaluations.tolist() == [4, 4, 4]


class Clash(Halves):
    def attribute(self, inputs: Tensor, *, score: int = 1) -> Tensor:  # type: ignore[override]
        return inputs


def test_arguments_that_clash_are_refused() -> None:
    with pytest.raises(ValueError, match="score has the name of another"):
        mg.build(f"{__name__}:Clash", lambda x: x)


class _Small(torch.nn.Module):
    """Has memory for four rows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 4:
            raise torch.OutOfMemoryError("out of memory")
        return self.layer(x)


def test_passes_are_as_small_as_the_memory_is() -> None:
    model, x = _Small().eval(), torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    for method in ("captum:IntegratedGradients", "captum:FeatureAblation"):
        found = mg.build(method, model).attribute(x, target=1)
        alone = mg.build(method, model, batch_size=1).attribute(x, target=1)
        assert torch.allclose(found, alone, atol=1e-6)

"""Randomised copies: which weights change, that the model does not, and what is compared."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from moreaugrad import SimpleGradient
from moreaugrad.metrics import randomisation, spearman
from moreaugrad.metrics.sanity import layers, redraw
from tiny_models import normalised, smooth
from toys import normal

X = normal(2, 3, 16, 16, seed=0, dtype=torch.float32)
Untouched = Callable[[], AbstractContextManager[None]]


class Seen:
    """Makes explainers, and remembers the weights of the models that it got."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []

    def __call__(self, model: nn.Module) -> SimpleGradient:
        self.weights.append({k: v.clone() for k, v in model.state_dict().items()})
        return SimpleGradient(model)


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Names of the modules that hold other weights."""
    return {k.rpartition(".")[0] for k in before if not torch.equal(before[k], after[k])}


def test_blocks_are_the_layers_from_the_last() -> None:
    assert layers(smooth().module, X[:1]) == ("6", "2", "0")
    assert layers(normalised().module, X[:1]) == ("5", "1", "0")

    class Crossed(nn.Module):
        """Registered in another order than they are called; one is never called."""

        def __init__(self) -> None:
            super().__init__()
            self.head, self.idle, self.body = nn.Linear(4, 2), nn.Linear(4, 4), nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.head(self.body(x))
            return found

    assert layers(Crossed(), torch.ones(1, 3)) == ("head", "body")


@pytest.mark.parametrize("mode", ["cascading", "independent"])
def test_the_blocks_of_a_mode_change_and_no_others(mode: str) -> None:
    seen = Seen()
    randomisation(smooth().module, seen, X, mode=mode, seeds=(0, 1))
    clean, *copies = seen.weights
    expected = (
        [{"6"}, {"6", "2"}, {"6", "2", "0"}] if mode == "cascading" else [{"6"}, {"2"}, {"0"}]
    )
    assert [changed(clean, copy) for copy in copies] == 2 * expected
    assert changed(copies[0], copies[3]) == {"6"}  # another seed, other weights
    if mode == "cascading":
        assert changed(copies[0], copies[1]) == {"2"}  # what was drawn stays


def test_the_block_of_a_weight_of_the_model_itself_is_that_weight_alone() -> None:
    class WithPlaces(nn.Module):
        """As vision transformers, whose tokens' places are a weight next to their blocks."""

        def __init__(self) -> None:
            super().__init__()
            self.places = nn.Parameter(torch.randn(3, 16, 16))
            self.body = smooth().module

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.body(x + self.places)
            return found

    seen = Seen()
    found = randomisation(WithPlaces(), seen, X, mode="independent", seeds=(0,))
    clean, *copies = seen.weights
    assert found.blocks == ("body.6", "body.2", "body.0", "")
    assert [changed(clean, copy) for copy in copies] == [{name} for name in found.blocks]


def test_the_model_and_the_generators_stay_as_they_are(untouched_generators: Untouched) -> None:
    model = normalised().module
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with untouched_generators():
        randomisation(model, SimpleGradient, X, calibration=X)
    assert not changed(before, model.state_dict())
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_maps_of_the_models_own_target_are_compared() -> None:
    targets: list[list[int]] = []

    class Noted(SimpleGradient):
        def explain(self, *args: object, **options: object):  # type: ignore[no-untyped-def]
            found = super().explain(*args, **options)
            targets.append(found.target.tolist())
            return found

    model = smooth().module
    found = randomisation(model, Noted, X)
    assert found.blocks == ("6", "2", "0")
    assert found.seeds == (0, 1, 2)
    assert set(found.similarity) == {"ssim", "spearman", "spearman-signed"}
    for values in found.similarity.values():
        assert values.shape == (3, 3, 2)
        assert values.abs().max() < 0.999
    assert targets == [model(X).argmax(1).tolist()] * 10


def test_a_map_that_ignores_the_model_stays_alike() -> None:
    def of_the_input(_: nn.Module) -> SimpleGradient:
        return SimpleGradient(lambda x: (x**2).flatten(1).sum(1), task="regression")

    target = torch.zeros(2, dtype=torch.long)
    found = randomisation(smooth().module, of_the_input, X, target, seeds=(0,))
    for values in found.similarity.values():
        assert values.flatten().tolist() == pytest.approx([1.0] * 6)


def test_the_same_seed_draws_the_same() -> None:
    first, again = (randomisation(smooth().module, SimpleGradient, X, seeds=(4,)) for _ in "12")
    for name, values in first.similarity.items():
        assert torch.equal(values, again.similarity[name])


def test_blank_maps_are_undefined() -> None:
    def blank(model: nn.Module) -> SimpleGradient:
        scale = 1.0 if torch.equal(model[6].weight, smooth().module[6].weight) else 0.0
        return SimpleGradient(lambda x: scale * model(x))

    found = randomisation(smooth().module, blank, X, seeds=(0,))
    assert all(values.isnan().all() for values in found.similarity.values())


@pytest.mark.parametrize(
    ("module", "fan_in"),
    [
        (nn.Linear(40, 30), 40),
        (nn.Conv2d(8, 16, 3, groups=2), 36),
        (nn.ConvTranspose2d(8, 16, 3), None),
    ],
)
def test_weights_are_drawn_as_torch_draws_them(module: nn.Module, fan_in: int | None) -> None:
    drawn, own = [], []
    for seed in range(20):
        redraw(module, seed, 0)
        drawn.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
        module.reset_parameters()
        own.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
    found, expected = torch.cat(drawn), torch.cat(own)
    assert found.abs().max().item() == pytest.approx(expected.abs().max().item(), rel=0.02)
    assert found.std().item() == pytest.approx(expected.std().item(), rel=0.02)
    if fan_in:
        assert found.abs().max().item() == pytest.approx(fan_in**-0.5, rel=0.02)


def test_normalisation_is_reset_or_calibrated() -> None:
    model = normalised().module
    redraw(model, 0, 0)
    norm = model[1]
    for name, value in {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}.items():
        assert (getattr(norm, name) == value).all()
    seen = Seen()
    randomisation(normalised().module, seen, X, seeds=(0,), blocks=("5", "0"), calibration=X)
    weights = seen.weights[2]  # calibrated anew, not averaged with those before
    with torch.no_grad():
        out = nn.functional.conv2d(X, weights["0.weight"], weights["0.bias"], padding=1)
    assert torch.allclose(weights["1.running_mean"], out.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(weights["1.running_var"], out.var((0, 2, 3)), rtol=1e-4)


def test_other_weights_keep_their_mean_and_spread() -> None:
    class Shift(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.places = nn.Parameter(3 + 0.1 * torch.randn(50, 50))

    module = Shift()
    before = module.places.detach().clone()
    redraw(module, 0, 0)
    assert not torch.equal(module.places, before)
    assert module.places.mean().item() == pytest.approx(3, abs=0.01)
    assert module.places.std().item() == pytest.approx(0.1, rel=0.1)
    embedding = nn.Embedding(60, 50)
    redraw(embedding, 0, 0)
    assert embedding.weight.std().item() == pytest.approx(1, rel=0.05)


def test_bad_input_is_reported() -> None:
    model, check = smooth().module, partial(randomisation, smooth().module, SimpleGradient, X)
    with pytest.raises(ValueError, match="mode: expected one of cascading, independent"):
        check(mode="both")
    with pytest.raises(ValueError, match="block: expected one of"):
        check(blocks=("head",))
    with pytest.raises(ValueError, match="'1' has none"):
        check(blocks=("1",))
    with pytest.raises(ValueError, match="at least one of each"):
        check(seeds=())
    with pytest.raises(ValueError, match="found none"):
        layers(nn.Flatten(), X)
    assert model is not None


def test_statistics_without_weights_are_reset_too() -> None:
    norm = nn.BatchNorm1d(5, affine=False)
    net = nn.Sequential(nn.Linear(4, 5), norm, nn.ReLU(), nn.Linear(5, 2)).train()
    net(3 * torch.randn(50, 4) + 2)
    seen, trained = Seen(), norm.running_mean.clone()
    found = randomisation(
        net.eval(), seen, torch.randn(1, 4), seeds=(0,), similarities={"spearman": spearman}
    )
    assert found.blocks == ("3", "1", "0")
    clean, *copies = seen.weights
    assert torch.equal(clean["1.running_mean"], trained)
    assert not copies[-1]["1.running_mean"].any()

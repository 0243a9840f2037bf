"""What every row of the registry keeps to: the batch, the dtype, the surroundings, the settings."""

import tomllib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import fields
from typing import Any

import pytest
import tomli_w
import torch
from torch import Tensor, nn

from moreaugrad import SimpleGradient, SmoothGrad
from moreaugrad.attacks import ATTACKS, Attack, AttackResult, build
from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.guidance import sigma_cost
from moreaugrad.score.inputs import InputSpace
from toys import network, normal

DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()
CHEAP = {"steps": 6, "rate": 0.02}


@pytest.fixture(params=ATTACKS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def cheap(name: str, explainer: Explainer, **settings: Any) -> Attack:
    known = ATTACKS[name].defaults()
    budget = {key: value for key, value in CHEAP.items() if key in known}
    if ATTACKS[name].load().needs_epsilon:
        budget["epsilon"] = 0.5
    return build(name, explainer, **(budget | settings))


def on_images(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    inner = network((12, 20, 20, 3), nn.Softplus, gain=2.0, dtype=dtype)
    return nn.Sequential(nn.Flatten(), inner).eval()


def pictures(batch: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
    return normal(batch, 1, 3, 4, seed=3, dtype=dtype)


def same(left: AttackResult, right: AttackResult) -> None:
    assert left.status == right.status
    assert torch.equal(left.evaluations, right.evaluations)
    assert torch.allclose(left.inputs, right.inputs, rtol=0, atol=1e-9)
    assert torch.allclose(left.objective, right.objective, rtol=1e-8, atol=0, equal_nan=True)
    assert torch.allclose(left.attacked.maps, right.attacked.maps, rtol=0, atol=1e-8)
    assert torch.allclose(left.distance, right.distance, rtol=1e-9, atol=1e-12)


def test_a_batch_gives_what_its_samples_give_alone(name: str) -> None:
    explainer = SmoothGrad(on_images(), sigma=0.2, samples=4)
    x, ids = pictures(), [7, 1, 9, 4, 2]
    attack = cheap(name, explainer)
    together = attack.attack(x, ids=ids)
    for row in range(5):
        alone = attack.attack(x[row : row + 1], ids=ids[row : row + 1])
        same(alone, together[row])
    # In groups that network passes fill.
    small = cheap(name, SmoothGrad(on_images(), sigma=0.2, samples=4, batch_size=2))
    same(small.attack(x, ids=ids), together)


def test_the_same_call_gives_the_same_result(name: str) -> None:
    attack = cheap(name, SimpleGradient(on_images()))
    one, two = attack.attack(pictures()), attack.attack(pictures())
    assert torch.equal(one.inputs, two.inputs)
    assert torch.equal(one.objective.nan_to_num(), two.objective.nan_to_num())


def test_the_seed_and_the_ids_change_the_draws() -> None:
    explainer = SimpleGradient(on_images())
    for name in ("gaussian", "random-search", "mass-centre"):
        base = cheap(name, explainer).attack(pictures())
        other = cheap(name, explainer, seed=1).attack(pictures())
        keyed = cheap(name, explainer).attack(pictures(), ids=[3, 4, 5, 6, 7])
        assert not torch.equal(base.inputs, other.inputs)
        assert not torch.equal(base.inputs, keyed.inputs)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_follow_the_input(name: str, device: str, dtype: torch.dtype) -> None:
    model, x = on_images(dtype).to(device), pictures(dtype=dtype).to(device)
    found = cheap(name, SimpleGradient(model)).attack(x)
    assert (found.inputs.dtype, found.inputs.device) == (x.dtype, x.device)
    assert found.inputs.shape == x.shape
    for part in (found.distance, found.before, found.after, found.objective, found.feasible):
        assert part.device == x.device
    assert found.distance.dtype == found.objective.dtype == torch.float64
    assert len(found) == 5


def test_the_surroundings_stay(
    name: str, untouched_generators: Callable[[], AbstractContextManager[None]]
) -> None:
    model, x = on_images(), pictures()
    given = x.clone()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with untouched_generators(), torch.no_grad():
        cheap(name, SmoothGrad(model, samples=4)).attack(x)
    assert torch.equal(x, given)
    assert not x.requires_grad
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_several_inputs_are_perturbed_together() -> None:
    inner = network((12, 20, 3), nn.Softplus, gain=2.0)
    explainer = SimpleGradient(lambda a, b: inner(torch.cat((a, b), dim=1)))
    x = (normal(3, 5, seed=1), normal(3, 7, seed=2))
    whole = SimpleGradient(inner)
    for name in (
        "top-k",
        "published-top-k",
        "manipulation",
        "gaussian",
        "random-search",
        "matched",
    ):
        found = cheap(name, explainer).attack(x)
        assert isinstance(found.inputs, tuple)
        assert [part.shape for part in found.inputs] == [(3, 5), (3, 7)]
        if name not in (
            "gaussian",
            "manipulation",
        ):  # whose range, and whose mirror, is each input's
            joined = cheap(name, whole).attack(torch.cat(x, dim=1))
            assert torch.allclose(torch.cat(found.inputs, dim=1), joined.inputs)
    with pytest.raises(ValueError, match="one input"):
        cheap("mass-centre", explainer).attack(x)


def test_further_arguments_follow_their_samples(name: str) -> None:
    inner = on_images()
    explainer = SimpleGradient(lambda x, gain: inner(x * gain[:, None, None, None]))
    x, gain = pictures(), torch.tensor([1.0, 0.5, 2.0, 1.5, 0.7], dtype=torch.float64)
    attack = cheap(name, explainer)
    together = attack.attack(x, None, gain, ids=range(5))
    same(attack.attack(x[3:4], None, gain[3:4], ids=[3]), together[3])


def test_settings_are_plain_values(name: str) -> None:
    explainer = SimpleGradient(on_images())
    space = InputSpace(mean=(0.5,), std=0.25, low=-9, high=9)
    attack = cheap(name, explainer, space=space, units="pixel", norm="linf")
    told = tomllib.loads(tomli_w.dumps(attack.settings()))
    assert told["space"] == {"mean": [0.5], "std": 0.25, "low": -9, "high": 9}
    result = attack.attack(pictures())
    assert result.attack == name == type(attack).name
    assert dict(result.settings) == attack.settings()
    known = {item.name for item in fields(attack)[1:]}
    assert set(told) <= known
    assert set(ATTACKS[name].defaults()) == known
    assert repr(attack).startswith(f"{type(attack).__name__}(SimpleGradient")


def test_progress_rises_to_all_samples(name: str) -> None:
    told: list[tuple[float, int]] = []
    explainer = SimpleGradient(on_images(), batch_size=1)
    cheap(name, explainer).attack(pictures(), progress=lambda *done: told.append(done))
    shares = [done for done, _ in told]
    assert shares == sorted(shares)
    assert told[-1] == (5, 5)
    assert {total for _, total in told} == {5}


def test_the_budget_bounds_what_is_spent(name: str) -> None:
    attack = cheap(name, SmoothGrad(on_images(), samples=4))
    assert int(attack.attack(pictures()).evaluations.max()) <= attack.budget()


def test_an_attack_keeps_the_noise_level_of_the_clean_explanation(name: str) -> None:
    """It is counted there, and no step chooses again."""
    auto, fixed = (cheap(name, SmoothGrad(on_images(), sigma=s, samples=4)) for s in ("auto", 0.2))
    assert auto.budget() == fixed.budget() < sigma_cost()
    found = auto.attack(pictures(2))
    assert int(found.evaluations.max()) <= auto.budget()
    assert found.clean is not None
    assert int(found.clean.evaluations.min()) > sigma_cost()


def test_a_known_clean_explanation_is_not_made_again(name: str) -> None:
    calls = []

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = on_images()

        def forward(self, x: Tensor) -> Tensor:
            calls.append(len(x))
            return self.inner(x)

    explainer = SimpleGradient(Counting().eval())
    attack, x = cheap(name, explainer), pictures()
    clean = explainer.explain(x)
    calls.clear()
    first = attack.attack(x)
    spent = sum(calls)
    calls.clear()
    second = attack.attack(x, clean=clean)
    assert sum(calls) < spent
    assert second.clean is clean
    assert torch.equal(first.inputs, second.inputs)
    with pytest.raises(ValueError, match="clean: expected the explanation of these inputs"):
        attack.attack(x + 1, clean=clean)
    with pytest.raises(ValueError, match="clean: expected the explanation of these inputs"):
        attack.attack(x, (clean.target + 1) % 3, clean=clean)
    with pytest.raises(ValueError, match="clean: expected an explanation by simple-gradient"):
        attack.attack(x, clean=SmoothGrad(explainer.forward_func, samples=2).explain(x))


def test_one_sample_of_a_result() -> None:
    found = cheap("top-k", SimpleGradient(on_images())).attack(pictures())
    last = found[-1]
    assert len(last) == 1
    assert torch.equal(last.inputs, found.inputs[4:])
    assert torch.equal(last.clean.maps, found.clean.maps[4:])
    assert last.status == found.status[4:]
    with pytest.raises(IndexError, match="a sample from 0 to 4, got 5"):
        found[5]


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "no budget": ("top-k", {"epsilon": None}, "epsilon: top-k needs a budget"),
    "negative budget": ("top-k", {"epsilon": -1.0}, "epsilon: expected a finite number >= 0"),
    "infinite budget": ("random-search", {"epsilon": float("inf")}, "epsilon: expected a finite"),
    "norm": ("top-k", {"norm": "l1"}, "norm: expected one of l2, linf"),
    "units": ("top-k", {"units": "pixels"}, "units: expected one of input, pixel.*mean 'pixel'"),
    "pixels without a space": ("top-k", {"units": "pixel"}, "units: pixels need space="),
    "optimizer": ("top-k", {"optimizer": "adam"}, "optimizer: expected one of gradient, sign"),
    "steps": ("top-k", {"steps": 0}, "steps: expected at least 1"),
    "search steps": ("random-search", {"steps": 0}, "steps: expected at least 1"),
    "restarts": ("mass-centre", {"restarts": 0}, "restarts: expected at least 1"),
    "step": ("top-k", {"step": 0.0}, "step: expected a number > 0"),
    "start": ("top-k", {"start": "ball"}, "start: expected one of input, sphere"),
    "centre's start": ("mass-centre", {"start": "input"}, "start: expected 'sphere'"),
    "ratio": ("top-k", {"ratio": 1.0}, "ratio: expected a number between 0 and 1"),
    "count": ("top-k", {"count": 0}, "count: expected at least 1"),
    "per": ("top-k", {"per": "channel"}, "per: expected one of element, pixel"),
    "metric": (
        "matched",
        {"metric": "gini"},
        "metric: expected one that this attack can",
    ),
    "no metric": ("random-search", {"metric": "top-q"}, "did you mean 'top-k'"),
    "measure": ("matched", {"measure": {"ratio": "few"}}, "ratio: expected a number"),
    "measure's name": ("matched", {"measure": {"rato": 0.1}}, "did you mean 'ratio'"),
    "draws": ("top-k", {"draws": 0}, "draws: expected at least 1"),
    "through": ("top-k", {"through": "magic"}, "through: expected one of"),
    "sigma": ("gaussian", {"sigma": -1.0}, "sigma: expected a finite number >= 0"),
    "sigma_mode": ("gaussian", {"sigma_mode": "share"}, "sigma_mode: expected"),
    "rate": ("manipulation", {"rate": -1.0}, "rate: expected a number >= 0"),
    "seed": ("gaussian", {"seed": -1}, "seed: expected an integer"),
    "unknown": ("top-k", {"restart": 1}, "top-k has no setting 'restart'; did you mean 'restarts'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_settings(case: str) -> None:
    name, settings, says = BAD[case]
    with pytest.raises(ValueError, match=says):
        cheap(name, SimpleGradient(on_images()), **settings)


def test_bad_calls() -> None:
    explainer = SimpleGradient(on_images())
    with pytest.raises(ValueError, match=r"attack: expected one of .* did you mean 'top-k'"):
        build("topk", explainer)
    layered = SimpleGradient(on_images(), layer="1")
    with pytest.raises(ValueError, match="layer: expected an explainer of the inputs"):
        cheap("gaussian", layered).attack(pictures())
    space = InputSpace(low=0, high=0.1)
    with pytest.raises(ValueError, match="space: expected pixels"):
        cheap("top-k", explainer, space=space).attack(pictures())
    with pytest.raises(ValueError, match="NaN or Inf"):
        cheap("top-k", explainer).attack(pictures() / 0)


def test_padding_is_left_as_it_is(name: str) -> None:
    x, explainer = pictures(), SmoothGrad(on_images(), sigma=0.2, samples=4)
    mask = torch.ones(5, 1, 1, 4, dtype=torch.bool)
    mask[1::2, ..., 2:] = False  # the right half of every second picture
    real = mask.expand_as(x)
    chosen = {"target-region": {"region": (0, 0, 3, 1)}, "manipulation": {"target_map": x[0].abs()}}
    if name in chosen:
        with pytest.raises(ValueError, match=rf"mask: {name} .* give {next(iter(chosen[name]))}="):
            cheap(name, explainer).attack(x, mask=mask)
    attack = cheap(name, explainer, **chosen.get(name, {}))
    found = attack.attack(x, mask=mask)
    assert torch.equal(found.inputs[~real], x[~real])
    assert (found.distance[1::2] > 0).any()
    for explanation in (found.clean, found.attacked):
        assert torch.equal(explanation.mask, real)
        assert (explanation.maps[~real] == 0).all()
    same(attack.attack(x[1:2], mask=mask[1:2]), found[1])

"""Attacks aimed at a metric: their objective is the metric, and their steps follow its slope."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from moreaugrad import SimpleGradient, SmoothGrad
from moreaugrad.attacks import MatchedAttack, RandomSearch, TopKAttack
from moreaugrad.attacks.catalogue import aim
from moreaugrad.attacks.objectives import Aim
from moreaugrad.attacks.surrogates import SURROGATES, part
from moreaugrad.metrics import METRICS
from moreaugrad.score.inputs import Layout
from toys import network, normal

LAYOUT = Layout(((3, 12, 13),), (torch.float64,))
KNOWN = [name for name, row in METRICS.items() if part(row) in SURROGATES]
SAME = [
    ("normalised-distance", {}),
    ("normalised-distance", {"signed": True, "reduction": "sum"}),
    ("cosine", {"reduction": "abs-sum"}),
    ("pearson", {}),
    ("pearson", {"reduction": "max-abs"}),
    ("ssim", {}),
    ("ssim", {"reduction": "sum", "percentile": 90.0}),
    ("ssim", {"sigma": None, "size": 7, "border": "zero", "unbiased": True}),
    ("ssim", {"cropped": True, "data_range": None}),
    ("ssim-masked", {"size": 5}),
    ("ssim-raw", {}),
    ("mass-centre-shift", {}),
    ("mass-centre-shift", {"reduction": "sum"}),
    ("mass-centre-shift", {"reduction": "none"}),
]


def images(batch: int = 4) -> Tensor:
    return normal(batch, 3, 12, 13, seed=3)


def on_images(gain: float = 2.0) -> nn.Module:
    inner = network((3 * 12 * 13, 20, 20, 3), nn.Softplus, gain=gain, dtype=torch.float64)
    return nn.Sequential(nn.Flatten(), inner).eval()


def surrogate(metric: str, settings: dict, clean: Tensor, other: Tensor) -> Tensor:
    row = METRICS[metric]
    goal = SURROGATES[part(row)](clean.flatten(1), LAYOUT, row.defaults() | settings)
    return goal.value(other.flatten(1))


@pytest.mark.parametrize(("metric", "settings"), SAME, ids=str)
def test_what_steps_follow_is_the_metric(metric: str, settings: dict) -> None:
    clean, other = normal(4, 3, 12, 13, seed=1), normal(4, 3, 12, 13, seed=2)
    for maps in (clean, other):
        maps[maps.abs() < 1.0] = 0.0  # as sparse maps are
    maps = clean + 0.3 * other
    found = surrogate(metric, settings, clean, maps)
    expected = METRICS.build(metric, **settings)(clean, maps)
    if metric == "normalised-distance":  # D^2 = 2 - 2 cosine
        expected = 1 - expected.square() / 2
    if metric == "mass-centre-shift":
        expected = -expected.square()
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("metric", "settings"),
    [
        ("cosine", {"signed": True, "reduction": "abs-sum"}),
        ("pearson", {"signed": True, "reduction": "max-abs"}),
        ("mass-centre-shift", {}),
    ],
)
def test_maps_without_channels_are_reduced_as_the_metric_does(metric: str, settings: dict) -> None:
    row, clean, maps = METRICS[metric], normal(4, 9, seed=1), normal(4, 9, seed=2)
    goal = SURROGATES[part(row)](clean, Layout(((9,),), (clean.dtype,)), row.defaults() | settings)
    expected = METRICS.build(metric, **settings)(clean, maps)
    found = goal.value(maps)
    if metric == "mass-centre-shift":
        expected = -expected.square()
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_an_overlap_is_followed_by_the_magnitude_on_its_entries() -> None:
    clean, other = normal(4, 3, 12, 13, seed=1), normal(4, 3, 12, 13, seed=2)
    for settings, of in (({"ratio": 0.05, "nonzero": False}, 3 * 12 * 13), ({"count": 7}, None)):
        found = surrogate("top-k", settings, clean, other)
        k = 7 if of is None else math.floor(0.05 * of)
        for row in range(4):
            place = clean[row].flatten().abs().topk(k).indices
            size = other[row].flatten().abs()
            rivals = size.topk(3 * k).values.sum()
            assert found[row].item() == pytest.approx(float(size[place].sum() / rivals))
    pixels = surrogate("top-k", {"ratio": 0.05, "reduction": "abs-sum"}, clean, other)
    place = clean[0].abs().sum(0).flatten().topk(math.floor(0.05 * 156)).indices
    size = other[0].abs().sum(0).flatten()
    rivals = size.topk(3 * len(place)).values.sum()
    assert pixels[0].item() == pytest.approx(float(size[place].sum() / rivals))


def test_an_overlap_counts_zeros_where_the_metric_does() -> None:
    clean, other = normal(1, 3, 12, 13, seed=1), normal(1, 3, 12, 13, seed=2)
    clean[:, :, 2:] = 0.0
    size = other[0].flatten().abs()
    cases = {"dice": (78, 0.1), "jaccard": (468, 0.1), "top-k": (78, 0.1)}
    for metric, (of, ratio) in cases.items():
        found = surrogate(metric, {"ratio": ratio}, clean, other)
        place = clean[0].flatten().abs().topk(math.floor(ratio * of)).indices
        rivals = size.topk(min(3 * len(place), len(size))).values.sum()
        assert found.item() == pytest.approx(float(size[place].sum() / rivals)), metric


@pytest.mark.parametrize("metric", KNOWN)
def test_the_metric_gets_worse_and_is_what_is_reported(metric: str) -> None:
    explainer, x = SimpleGradient(on_images()), images()
    found = MatchedAttack(explainer, metric=metric, epsilon=2.0, steps=8).attack(x)
    assert found.ok
    sign = 1 if METRICS[metric].better == "high" else -1
    before, after = (
        sign * METRICS.build(metric)(found.clean.maps, maps)
        for maps in (found.clean.maps, found.attacked.maps)
    )
    assert torch.equal(found.after, after)
    assert torch.equal(found.before, before)
    assert bool((found.after < found.before).all())
    searched = RandomSearch(explainer, metric=metric, epsilon=2.0, steps=9).attack(x)
    assert float(found.after.mean()) < float(searched.after.mean())


def test_aimed_at_few_entries_it_finds_worse_maps_for_them() -> None:
    """The purpose: an attack on the largest 40 % leaves the largest 4 % better off."""
    explainer, x = SmoothGrad(on_images(1.5), sigma=0.1, samples=4), images(12)
    few = {"ratio": 0.04, "nonzero": False}
    budget = {"epsilon": 2.0, "steps": 10}
    aimed = MatchedAttack(explainer, measure=few, **budget).attack(x)
    other = TopKAttack(explainer, **budget).attack(x)
    left = METRICS.build("top-k", **few)(other.clean.maps, other.attacked.maps)
    assert float(aimed.after.mean()) < float(left.mean()) - 0.05


def test_samples_with_other_numbers_of_entries_are_as_alone() -> None:
    for seed in range(20):
        clean, other = normal(3, 3, 12, 13, seed=seed), normal(3, 3, 12, 13, seed=100 + seed)
        clean[1, :, 6:] = 0.0
        clean[2, :, 1:] = 0.0
        together = surrogate("top-k", {"ratio": 0.5}, clean, other)
        alone = [surrogate("top-k", {"ratio": 0.5}, clean[[i]], other[[i]]) for i in range(3)]
        assert torch.equal(together, torch.cat(alone))


def test_no_entries_are_followed_nowhere() -> None:
    clean, other = normal(1, 3, 12, 13, seed=3), normal(1, 3, 12, 13, seed=4)
    clean[0, 0, 1:], clean[0, 1:] = 0.0, 0.0  # 13 entries, of which 4 % are none
    assert surrogate("top-k", {"ratio": 0.04}, clean, other).item() == 0
    assert bool(surrogate("top-k", {"ratio": 0.5}, clean, torch.zeros_like(other)).isnan())


def test_a_start_is_chosen_for_the_metric_that_is_set_last() -> None:
    aimed = MatchedAttack(SimpleGradient(on_images()), metric="top-k", epsilon=2.0, steps=3)
    found = replace(aimed, metric="ssim").attack(images())
    assert bool((found.after < found.before).all())


def test_the_worst_iterate_of_the_metric_is_kept() -> None:
    attack = MatchedAttack(SimpleGradient(on_images()), metric="ssim", epsilon=2.0, steps=6)
    found = attack.attack(images())
    least = found.objective.nan_to_num(nan=torch.inf).amin(1)
    assert torch.allclose(found.after, least, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("attack", "settings", "metric", "own", "aimed"),
    [
        ("top-k", {}, "top-k", {}, True),
        ("top-k", {}, "top-k", {"ratio": 0.04, "nonzero": False}, False),
        ("top-k", {"ratio": 0.1, "per": "pixel"}, "top-k", {"ratio": 0.1, "reduction": "abs-sum"},
         True),
        ("top-k", {}, "ssim", {}, False),
        ("published-top-k", {}, "top-k", {"nonzero": False}, True),
        ("mass-centre", {}, "mass-centre-shift", {}, True),
        ("matched", {"metric": "ssim"}, "ssim", {}, True),
        ("matched", {"metric": "ssim"}, "ssim-masked", {}, False),
        ("matched", {"metric": "ssim", "measure": {"masked": True}}, "ssim-masked", {}, True),
        ("random-search", {"measure": {"ratio": 0.04}}, "top-k", {}, False),
    ],
)  # fmt: skip
def test_what_attacks_are_aimed_at(
    attack: str, settings: dict, metric: str, own: dict, aimed: bool
) -> None:
    found = aim(attack, settings)
    assert found is not None
    assert found.at(metric, {"metric": metric, **own}) is aimed


def test_attacks_without_a_metric() -> None:
    assert aim("gaussian", {}) is None
    for name in ("manipulation", "target-region"):
        assert aim(name, {}) == Aim()
        assert not Aim().at("top-k", {})


@pytest.mark.parametrize("kind", [MatchedAttack, RandomSearch])
def test_a_metric_without_a_value_of_a_finite_map_is_no_failure_of_the_map(kind: type) -> None:
    explainer = SimpleGradient(on_images())
    attack = kind(explainer, metric="jaccard", measure={"ratio": 1e-4}, epsilon=0.5, steps=1)
    found = attack.attack(images(1))
    (status,) = found.status
    assert status.value == "undefined"
    assert not status.ok
    assert "NaN" not in status.message
    assert "ratio" in status.remedy
    assert torch.equal(found.inputs, images(1))


@pytest.mark.parametrize(
    ("metric", "measure"),
    [("top-k", {"ratio": 0.2, "nonzero": False}), ("jaccard", {"ratio": 0.2}), ("dice", {}),
     ("pearson", {}), ("spearman", {}), ("cosine", {})],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("kind", [MatchedAttack, RandomSearch])
def test_padding_counts_in_no_metric(kind: type, metric: str, measure: dict) -> None:
    model = network((40, 20, 20, 3), nn.Softplus, gain=2.0, dtype=torch.float64)

    class Cut(nn.Module):  # the same network for a longer input
        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = model(x[:, :40])
            return found

    x = normal(2, 40, seed=5)
    longer = torch.cat([x, x.new_zeros(2, 60)], dim=1)
    mask = torch.arange(100).expand(2, 100) < 40
    alone, padded = (
        kind(
            SimpleGradient(each), metric=metric, measure=measure, epsilon=0.5, steps=3, seed=1,
        ).attack(inputs, ids=[0, 1], **more)
        for each, inputs, more in ((model, x, {}), (Cut().eval(), longer, {"mask": mask}))
    )  # fmt: skip
    own = METRICS.build(metric, **measure)(padded.clean.maps[:, :40], padded.attacked.maps[:, :40])
    assert torch.allclose(padded.after, own)
    if kind is MatchedAttack and metric in ("top-k", "jaccard", "dice"):  # others start at random
        assert torch.allclose(padded.inputs[:, :40], alone.inputs, atol=1e-9)

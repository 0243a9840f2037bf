"""Soft stability against the enumeration of all sets, and where the answer is known."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from moreaugrad.metrics import METRICS, Regions, build, soft_stability, stability_bounds
from moreaugrad.metrics.stability import _larger
from moreaugrad.runs.maps.metrics import make_metric, metric_settings
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.inputs import InputSpace
from moreaugrad.score.score import Score
from tiny_models import smooth
from toys import network, normal

MODEL = network((7, 6, 3), seed=3, gain=2.0)
X = normal(4, 7, seed=4)
MAPS = normal(4, 7, seed=5)
SINGLE = Regions(size=1, replacement="mean", draws=400)


def of_vectors(ids: Any = (0, 1, 2, 3), **options: Any) -> BoundScore:
    return Score(MODEL, **options).bind(X, ids=ids)


def of_images(**options: Any) -> tuple[BoundScore, Tensor]:
    x = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    bound = Score(smooth().module, **options).bind(x, ids=[4, 9, 2])
    return bound, bound.value_and_grad()[1].reshape(x.shape)


def exact(x: Tensor, relevance: Tensor, top: float, radius: int, fill: float = 0.0) -> float:
    """By all sets: the probability of the prediction of the most relevant places alone."""
    order = sorted(range(len(x)), key=lambda i: -abs(float(relevance[i])))
    base = [i for i in order[: max(1, math.floor(top * len(x)))] if relevance[i] != 0]
    others = [i for i in range(len(x)) if i not in base]

    def predicted(shown: tuple[int, ...]) -> int:
        kept = torch.full_like(x, fill)
        kept[list(shown)] = x[list(shown)]
        return int(MODEL(kept[None]).argmax())

    sets = [
        (*base, *more)
        for k in range(min(radius, len(others)) + 1)
        for more in itertools.combinations(others, k)
    ]
    return float(np.mean([predicted(shown) == predicted(tuple(base)) for shown in sets]))


@pytest.mark.parametrize("top", [0.15, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("radius", [1, 2, 3, 20])
def test_the_rate_is_that_of_all_sets(top: float, radius: int) -> None:
    found = soft_stability(of_vectors(), MAPS, top=top, radius=radius, how=SINGLE)
    truth = [exact(x, a, top, radius) for x, a in zip(X, MAPS, strict=True)]
    low, high = stability_bounds(found, SINGLE.draws, 0.999)
    assert bool(((low <= torch.tensor(truth)) & (torch.tensor(truth) <= high)).all()), truth
    if (top, radius) == (0.15, 3):
        assert 0.2 < min(truth) < max(truth), "nothing that a wrong set would change"


def test_the_interval_holds_as_often_as_it_says() -> None:
    """The same sample under many ids: many independent estimates of one rate."""
    x, maps = X[:1].expand(300, -1), MAPS[:1].expand(300, -1)
    bound = Score(MODEL).bind(x, ids=range(300))
    how = Regions(size=1, replacement="mean", draws=20)
    found = soft_stability(bound, maps, top=0.15, radius=3, how=how)
    truth = exact(X[0], MAPS[0], 0.15, 3)
    assert 0.05 < truth < 0.95
    low, high = stability_bounds(found, 20, 0.8)
    assert float(((low <= truth) & (truth <= high)).double().mean()) >= 0.8
    assert float(found.mean()) == pytest.approx(truth, abs=4 * 0.5 / 6000**0.5)
    assert float(found.var()) == pytest.approx(truth * (1 - truth) / 20, rel=0.4)


def test_sets_are_uniform() -> None:
    chosen = np.array([True, False, False, False, True, False])
    random = np.random.default_rng(0)
    drawn = [tuple(_larger(chosen, 2, random).nonzero()[0].tolist()) for _ in range(4400)]
    sets = {
        tuple(sorted((0, 4, *more)))
        for k in range(3) for more in itertools.combinations((1, 2, 3, 5), k)
    }  # fmt: skip
    assert set(drawn) == sets
    counts = [drawn.count(one) for one in sets]
    assert stats.chisquare(counts).pvalue > 1e-3
    many = _larger(np.zeros(50_000, dtype=bool), 300, random)
    assert 290 < many.sum() <= 300


def test_nothing_added_changes_nothing() -> None:
    for radius, top in ((0, 0.3), (5, 1.0)):
        found = soft_stability(of_vectors(), MAPS, top=top, radius=radius, how=SINGLE)
        assert found.tolist() == [1.0] * 4


class Recorder(nn.Module):
    """Two classes, and every input that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        return torch.stack((x.flatten(1).sum(1), -x.flatten(1).sum(1)), 1)


def test_what_is_shown() -> None:
    """Regions of 2 x 2 of a map with two relevant ones; the rest is one replacement for all."""
    model = Recorder()
    x = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(2)).double() + 5
    maps = torch.zeros(1, 3, 6, 6).double()
    maps[0, 1, 0, 0], maps[0, 2, 5, 3] = -1.0, 0.5
    space = InputSpace(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    bound = Score(model, check=False, batch_size=64).bind(x)
    model.seen.clear()
    how = Regions(size=2, replacement="uniform", draws=40)
    soft_stability(bound, maps, space, top=1.0, radius=3, how=how)
    seen = torch.cat(model.seen)
    assert len(seen) == 41
    own = (seen == x).all(1)
    regions = own.unfold(1, 2, 2).unfold(2, 2, 2).flatten(3)
    assert bool((regions.all(3) | ~regions.any(3)).all())
    first, rest = regions.all(3)[0], regions.all(3)[1:]
    assert first.nonzero().tolist() == [[0, 0], [2, 1]]  # zeros are never selected
    assert bool((rest & first == first).all())
    added = rest.sum((1, 2)) - 2
    assert added.max() == 3
    assert added.double().mean() > 2
    replaced = [seen[i][:, ~own[i]] for i in range(41)]
    pixels = replaced[0] * torch.tensor(space.std)[:, None] + torch.tensor(space.mean)[:, None]
    assert 0 <= pixels.min() < pixels.max() <= 1
    for i in range(1, 41):
        assert torch.equal(seen[i][:, ~own[i]], seen[0][:, ~own[i]])


@pytest.mark.parametrize("replacement", ["mean", "uniform", "blur", 0.5])
def test_a_batch_is_its_samples_in_any_chunks(replacement: str | float) -> None:
    metric = build("soft-stability", size=4, draws=30, radius=3, replacement=replacement)
    bound, maps = of_images()
    together = metric(bound, maps, InputSpace())
    for row in range(3):
        rows = torch.tensor([row])
        assert torch.equal(metric(bound.select(rows), maps[rows], InputSpace()), together[rows])
    assert torch.equal(metric(of_images(batch_size=7)[0], maps, InputSpace()), together)


def test_seeds_keys_and_ties() -> None:
    """Eight equal places, of which one is chosen by chance; only one of them decides."""
    model = nn.Linear(8, 2, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.eye(2, 8).flip(0))
    x = torch.tensor([[2.0, 1, 0, 0, 0, 0, 0, 0]]).double().expand(400, -1)
    how = Regions(size=1, replacement="mean", draws=8)
    bound = Score(model).bind(x, ids=range(400))
    found = soft_stability(bound, torch.ones_like(x), top=0.125, radius=1, how=how)
    # With place 0 or the others shown alone: adding place 1 changes the prediction from 0 to 1.
    assert float((found == 1).double().mean()) == pytest.approx(
        1 / 8 + 7 / 8 * (7 / 8) ** 8, abs=0.08
    )
    again = soft_stability(bound, torch.ones_like(x), top=0.125, radius=1, how=how)
    assert torch.equal(found, again)
    other = Regions(size=1, replacement="mean", draws=8, seed=1)
    assert not torch.equal(
        found, soft_stability(bound, torch.ones_like(x), top=0.125, radius=1, how=other)
    )


def test_undefined_maps() -> None:
    maps = MAPS.clone()
    maps[1], maps[2, 3] = 0, torch.nan
    found = soft_stability(of_vectors(), maps, how=SINGLE)
    assert found.isnan().tolist() == [False, True, True, False]
    alone = soft_stability(of_vectors(), MAPS, how=SINGLE)
    assert torch.equal(found[[0, 3]], alone[[0, 3]])
    low, high = stability_bounds(found, 400)
    assert low.isnan().tolist() == high.isnan().tolist() == found.isnan().tolist()


def test_scale_does_not_matter_and_bounds_are_hoeffdings() -> None:
    found = soft_stability(of_vectors(), MAPS, how=SINGLE)
    assert torch.equal(found, soft_stability(of_vectors(), 1e-9 * MAPS, how=SINGLE))
    low, high = stability_bounds(torch.tensor([0.5, 0.99]).double(), 150, 0.9)
    assert low.tolist() == pytest.approx([0.4, 0.89], abs=1e-3)  # the paper's 0.1
    assert high.tolist() == pytest.approx([0.6, 1.0], abs=1e-3)


def test_binary_and_positional_outputs() -> None:
    binary = Score(nn.Linear(7, 1, dtype=torch.float64)).bind(X)
    assert bool((soft_stability(binary, MAPS, how=SINGLE) <= 1).all())
    wide = nn.Sequential(nn.Linear(7, 12, dtype=torch.float64), nn.Unflatten(1, (3, 4)))
    bound = Score(wide).bind(X, [(0, 2), (1, 1), (2, 0), (0, 3)])
    found = soft_stability(bound, MAPS, how=SINGLE)
    assert bool(((found > 0) & (found <= 1)).all())


def test_a_run_can_ask_for_it() -> None:
    row = METRICS["soft-stability"]
    assert (row.kind, row.better) == ("model", "")
    metric = make_metric("soft-stability", metric_settings("soft-stability", {"draws": 9}))
    bound, maps = of_images()
    assert metric.measure(bound, maps, InputSpace()).shape == (3,)


def test_bad_input_is_reported() -> None:
    bound = of_vectors()
    for settings, words in (
        ({"top": 0.0}, "top: expected a fraction"),
        ({"radius": -1}, "radius: expected"),
    ):
        with pytest.raises(ValueError, match=words):
            soft_stability(bound, MAPS, **settings)
    with pytest.raises(ValueError, match="maps: expected one for each input"):
        soft_stability(bound, MAPS[:, :3])
    with pytest.raises(ValueError, match=r"task: .*predicts a class"):
        soft_stability(Score(MODEL, task="regression").bind(X, 0), MAPS)
    for rates in ((0, 0.9), (5, 1.0)):
        with pytest.raises(ValueError, match=r"draws|confidence"):
            stability_bounds(torch.ones(1), *rates)


def test_an_output_that_is_not_finite_is_no_agreement() -> None:
    """A model that breaks where little is shown."""

    def model(x: Tensor) -> Tensor:
        found = MODEL(x)
        return torch.where((x != 0).sum(1, keepdim=True) < 6, torch.nan, found)

    x = X.clone()
    bound = Score(model, check=False).bind(x, ids=(0, 1, 2, 3))
    assert soft_stability(bound, MAPS, top=0.3, radius=2, how=SINGLE).isnan().all()
    assert not soft_stability(bound, MAPS, top=1.0, radius=0, how=SINGLE).isnan().any()

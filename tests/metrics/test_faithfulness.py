"""Replaced regions and pixels, against a slow literal version and where the answer is known."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from moreaugrad import SimpleGradient
from moreaugrad.metrics import (
    Replacement,
    aopc,
    area,
    build,
    deletion,
    deletion_curve,
    drop_curve,
    insertion,
    insertion_curve,
)
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.inputs import InputSpace
from moreaugrad.score.score import Score
from tiny_models import smooth
from toys import network, normal

SPACE = InputSpace(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
BLACK = Replacement(size=3, replacement=0.0, draws=1)


class Recorder(nn.Module):
    """sum_i w_i x_i, and every input that it was given."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        return (self.weight * x).flatten(1).sum(1, keepdim=True)


def linear(weight: Tensor, x: Tensor, **options: object) -> BoundScore:
    return Score(Recorder(weight), task="regression", **options).bind(x, 0)


def of_network(count: int = 3, **options: object) -> tuple[BoundScore, Tensor]:
    """The bound score of a small network, and the gradients as maps."""
    x = normal(count, 3, 16, 16, seed=0, dtype=torch.float32)
    explainer = SimpleGradient(smooth().module, **options)
    return explainer.bind(x, ids=range(5, 5 + count)), explainer.attribute(x)


def literal_aopc(bound: BoundScore, maps: Tensor, steps: int, falling: bool) -> list[float]:
    """Regions of 3 x 3 pixels become black, one after the other."""
    black = (0 - torch.tensor(SPACE.mean)) / torch.tensor(SPACE.std)
    found = []
    for row in range(len(maps)):
        heat = maps[row].abs().sum(0)
        regions = list(itertools.product(range(0, 16, 3), range(0, 16, 3)))
        regions.sort(key=lambda at: heat[at[0] : at[0] + 3, at[1] : at[1] + 3].sum().item())
        if falling:
            regions.reverse()
        x = bound.origin[row].reshape(1, 3, 16, 16).clone()
        target = bound.target.classes[row]

        def score(x: Tensor, target: Tensor = target) -> float:
            with torch.no_grad():
                return bound.model(x).softmax(1)[0, target].item()

        clean, drops = score(x), [0.0]
        for top, left in regions[:steps]:
            x[0, :, top : top + 3, left : left + 3] = black[:, None, None]
            drops.append(clean - score(x))
        found.append(sum(drops) / (steps + 1))
    return found


def test_aopc_is_the_literal_one() -> None:
    bound, maps = of_network()
    found = {
        order: aopc(bound, maps, SPACE, order=order, steps=10, how=BLACK)
        for order in ("morf", "lerf", "abpc")
    }
    for order in ("morf", "lerf"):
        expected = literal_aopc(bound, maps, 10, falling=order == "morf")
        assert found[order].tolist() == pytest.approx(expected, abs=1e-6)
    assert found["abpc"] == pytest.approx(found["morf"] - found["lerf"])
    assert found["morf"].dtype == torch.float64


def test_regions_at_the_border_are_smaller() -> None:
    bound, maps = of_network()
    curve = drop_curve(bound, maps, SPACE, steps=100, how=BLACK)
    assert curve.shape == (3, 37)  # 6 x 6 regions of 16 x 16 pixels, and none at first
    black = SPACE.inputs(torch.zeros(1, 768), bound.layout).reshape(1, 3, 16, 16)
    with torch.no_grad():
        ends = bound.model(black).softmax(1)[0, bound.target.classes]
        starts = bound.model(bound.origin.reshape(3, 3, 16, 16)).softmax(1)
    starts = starts.gather(1, bound.target.classes[:, None])[:, 0]
    assert curve[:, -1] == pytest.approx((starts - ends).double(), abs=1e-6)


def decoded(weight_of: Tensor, relevance: Tensor, draws: int, ids: list[int]) -> list[list[int]]:
    """The order in which 16 regions of 2 x 2 pixels are replaced, of each sample, by one draw.

    Region r adds 4 x 2^r to the score, so the score tells which ones are gone.
    """
    x = torch.ones(len(ids), 1, 8, 8, dtype=torch.float64)
    bound = Score(Recorder(weight_of), task="regression").bind(x, 0, ids=ids)
    how = Replacement(size=2, replacement=0.0, draws=draws, score=None)
    fallen = drop_curve(bound, relevance, InputSpace(), how=how)
    steps = (fallen.diff(dim=1) * draws / 4).round().long()
    return [[int(step).bit_length() - 1 for step in row] for row in steps]


def test_equal_regions_are_shuffled_by_key_and_draw() -> None:
    number = torch.arange(16).reshape(4, 4).repeat_interleave(2, 0).repeat_interleave(2, 1)
    weight = (2.0**number).double()[None]
    relevance = torch.zeros(2, 1, 8, 8)
    relevance[:, 0, 4, 4] = -3.0  # region 10; magnitudes count
    first, second = decoded(weight, relevance, 1, [0, 1])
    for order in (first, second):
        assert order[0] == 10
        assert sorted(order) == list(range(16))
    assert first != second
    assert first[1:] != sorted(first[1:])
    assert decoded(weight, relevance, 1, [1, 0]) == [second, first]


def test_the_mean_over_draws_favours_no_place() -> None:
    """Without it a sparse map would be scored by what lies at the picture's top."""
    weight = torch.zeros(1, 8, 8, dtype=torch.float64)
    weight[0, :4] = 1.0  # the upper half
    relevance = torch.zeros(2, 1, 8, 8)
    relevance[0, 0, 0, 0] = 1.0
    relevance[1, 0, 7, 7] = 1.0
    x = torch.ones(2, 1, 8, 8, dtype=torch.float64)
    bound = linear(weight, x)
    how = Replacement(size=1, replacement=0.0, draws=200, score=None)
    fallen = drop_curve(bound, relevance, InputSpace(), steps=64, how=how)
    # 63 equal pixels: each step takes a share of the upper half, whichever was first.
    expected = torch.arange(64, dtype=torch.float64) / 63
    assert fallen[0, 1:] == pytest.approx(1 + 31 * expected, abs=0.6)
    assert fallen[1, 1:] == pytest.approx(32 * expected, abs=0.6)


def test_uniform_values_are_drawn_in_pixel_space() -> None:
    x = SPACE.inputs(torch.full((2, 3 * 64), 2.0), Score(nn.Flatten()).bind(
        torch.zeros(2, 3, 8, 8), 0).layout).reshape(2, 3, 8, 8)  # fmt: skip
    model = Recorder(torch.ones(3, 8, 8))
    bound = Score(model, task="regression").bind(x, 0, ids=[3, 4])
    model.seen.clear()
    maps = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    how = Replacement(size=4, score=None, draws=3)
    drop_curve(bound, maps, SPACE, steps=4, how=how)
    seen = torch.cat(model.seen).reshape(2, 3, 5, 3, 8, 8)
    pixels = SPACE.pixels(seen.flatten(0, 2).flatten(1), bound.layout).reshape(seen.shape)
    assert torch.allclose(pixels[:, :, 0], torch.full_like(pixels[:, :, 0], 2.0))
    last = pixels[:, :, -1]
    assert 0 <= last.min() < 0.02
    assert 0.98 < last.max() <= 1
    assert last.mean(dim=(0, 1, 3, 4)).tolist() == pytest.approx([0.5] * 3, abs=0.05)
    # Perturbations accumulate: a replaced pixel keeps its value.
    replaced = pixels[:, :, 1] != 2.0
    assert torch.equal(pixels[:, :, 1][replaced], last[replaced])
    assert replaced.sum() == 6 * 3 * 16
    # Draws and samples of other keys differ.
    assert len({round(float(value), 5) for value in last[:, :, 0, 0, 0].flatten()}) == 6


@pytest.mark.parametrize("name", ["aopc", "abpc", "deletion", "insertion", "infidelity"])
def test_a_batch_is_its_samples_in_any_chunks(name: str) -> None:
    settings = {} if name == "infidelity" else {"steps": 5, "replacement": "uniform"}
    metric = build(name, draws=2, **settings)
    bound, maps = of_network()
    together = metric(bound, maps, SPACE)
    for row in range(3):
        rows = torch.tensor([row])
        assert metric(bound.select(rows), maps[rows], SPACE) == pytest.approx(
            together[rows], rel=1e-4, abs=1e-6
        )
    bound, maps = of_network(batch_size=1)
    assert metric(bound, maps, SPACE) == pytest.approx(together, rel=1e-4, abs=1e-6)


def test_the_seed_counts() -> None:
    bound, maps = of_network()
    first, again, other = (
        aopc(bound, maps, SPACE, steps=3, how=Replacement(draws=2, seed=seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert (first != other).all()


def test_curves_start_and_end_where_they_should() -> None:
    bound, maps = of_network()
    how = Replacement(size=1, replacement="mean", draws=1)
    zero = torch.zeros(1, 3, 16, 16)
    with torch.no_grad():
        ends = bound.model(zero).softmax(1)[0, bound.target.classes].double()
        starts = bound.model(bound.origin.reshape(3, 3, 16, 16)).softmax(1)
    starts = starts.gather(1, bound.target.classes[:, None])[:, 0].double()
    deleted = deletion_curve(bound, maps, SPACE, steps=8, how=how)
    shown = insertion_curve(bound, maps, SPACE, steps=8, how=how)
    assert deleted.shape == shown.shape == (3, 9)
    for curve, first, last in ((deleted, starts, ends), (shown, ends, starts)):
        assert curve[:, 0] == pytest.approx(first, abs=1e-6)
        assert curve[:, -1] == pytest.approx(last, abs=1e-6)
    assert deletion(bound, maps, SPACE, steps=8, how=how) == pytest.approx(area(deleted))
    assert insertion(bound, maps, SPACE, steps=8, how=how) == pytest.approx(area(shown))


def test_the_area_is_that_of_trapezoids() -> None:
    assert area(torch.tensor([[1.0, 0.5, 0.0], [1.0, 1.0, 1.0]])).tolist() == [0.5, 1.0]


def test_on_a_linear_score_the_true_weights_are_the_most_faithful() -> None:
    weight = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.ones(2, 1, 8, 8, dtype=torch.float64)
    bound = linear(weight, x)
    shuffled = weight.flatten()[torch.randperm(64)].reshape(1, 8, 8)
    maps = torch.stack([weight, shuffled])
    how = Replacement(size=1, replacement=0.0, draws=1, score=None)
    assert aopc(bound, maps, how=how, steps=20).diff().item() < 0
    assert aopc(bound, maps, order="lerf", how=how, steps=20).diff().item() > 0
    assert deletion(bound, maps, how=how).diff().item() > 0
    assert insertion(bound, maps, how=how).diff().item() < 0
    # All regions gone, in falling order: sums of the largest weights.
    falling = weight.flatten().sort(descending=True).values.cumsum(0)
    curve = drop_curve(bound, maps, how=how)
    assert curve[0, 1:] == pytest.approx(falling)


def test_the_blurred_input_is_scipys() -> None:
    x = normal(1, 2, 12, 12, seed=0)
    model = Recorder(torch.ones(2, 12, 12))
    bound = Score(model, task="regression").bind(x, 0)
    model.seen.clear()
    how = Replacement(size=1, replacement="blur", draws=1, score=None)
    insertion_curve(bound, x, steps=1, how=how)
    expected = np.stack([ndimage.gaussian_filter(each, 5.0) for each in x[0].numpy()])
    blurred, whole = torch.cat(model.seen)
    assert blurred.numpy() == pytest.approx(expected)
    assert torch.equal(whole, x[0])


def test_maps_without_channels_and_vectors() -> None:
    bound, maps = of_network()
    assert aopc(bound, maps.abs().sum(1), SPACE, steps=4, how=BLACK) == pytest.approx(
        aopc(bound, maps, SPACE, steps=4, how=BLACK), abs=1e-6
    )
    x = normal(2, 5, seed=0)
    weight = torch.tensor([1.0, 2, 3, 4, 5], dtype=torch.float64)
    vectors = linear(weight, x)
    how = Replacement(size=1, replacement=0.0, draws=1, score=None)
    curve = drop_curve(vectors, weight.expand(2, 5), how=how)
    assert curve[:, 1] == pytest.approx(5 * x[:, 4])


def test_the_score_that_is_followed_can_be_chosen() -> None:
    bound, maps = of_network()
    logit = deletion_curve(bound, maps, SPACE, steps=1, how=Replacement(score="logit", draws=1))
    own = deletion_curve(bound, maps, SPACE, steps=1, how=Replacement(score=None, draws=1))
    assert torch.equal(logit, own)
    assert logit[:, 0] == pytest.approx(bound.clean.double(), abs=1e-6)
    with pytest.raises(ValueError, match="a regression has no probability"):
        aopc(linear(torch.ones(1, 4, 4), torch.ones(1, 1, 4, 4)), torch.ones(1, 4, 4))


def test_zero_and_broken_maps_cost_nothing() -> None:
    x = normal(3, 1, 8, 8, seed=0)
    model = Recorder(torch.ones(1, 8, 8, dtype=torch.float64))
    bound = Score(model, task="regression").bind(x, 0)
    maps = x.clone()
    maps[0], maps[1, 0, 0, 0] = 0, math.nan
    model.seen.clear()
    how = Replacement(size=4, replacement=0.0, draws=1, score=None)
    assert aopc(bound, maps, how=how).isnan().tolist() == [True, True, False]
    assert len(torch.cat(model.seen)) == 5
    model.seen.clear()
    assert aopc(bound, 0 * x, how=how).isnan().all()
    assert not model.seen


def test_bad_input_is_reported() -> None:
    bound, maps = of_network()
    with pytest.raises(ValueError, match=r"maps: expected one for each input of shape"):
        aopc(bound, maps[:, :, :8])
    with pytest.raises(ValueError, match="3 of them"):
        aopc(bound, maps[:2])
    with pytest.raises(ValueError, match="order: expected one of morf, lerf, abpc"):
        aopc(bound, maps, order="most")
    for steps in (0, -1):
        with pytest.raises(ValueError, match="steps: expected at least 1"):
            aopc(bound, maps, steps=steps)
        with pytest.raises(ValueError, match="steps: expected at least 1"):
            deletion(bound, maps, steps=steps)
    for settings, words in (
        ({"size": 0}, "size"),
        ({"draws": 0}, "draws"),
        ({"replacement": "grey"}, "replacement"),
        ({"replacement": math.inf}, "replacement"),
        ({"reduction": "none"}, "reduction"),
    ):
        with pytest.raises(ValueError, match=f"{words}: expected"):
            Replacement(**settings)
    two = Score(lambda a, b: a + b, task="regression").bind((torch.ones(1, 3), torch.ones(1, 3)), 0)
    with pytest.raises(ValueError, match="expected one input"):
        aopc(two, torch.ones(1, 3))


def test_a_map_whose_channels_cancel_orders_nothing() -> None:
    bound, maps = of_network()
    maps[1] = torch.stack([maps[1, 0], -maps[1, 0], torch.zeros(16, 16)])
    how = replace(BLACK, reduction="sum")
    for metric in (aopc, insertion, deletion):
        assert metric(bound, maps, SPACE, steps=4, how=how).isnan().tolist() == [False, True, False]
    assert not aopc(bound, maps, SPACE, steps=4, how=BLACK).isnan().any()


def test_one_region_is_refused() -> None:
    """All columns of a small table at once say nothing about any of them."""
    bound, maps = Score(network((6, 3))).bind(normal(2, 6, seed=1)), normal(2, 6, seed=2)
    with pytest.raises(ValueError, match=r"size: expected .*table"):
        aopc(bound, maps)
    assert aopc(bound, maps, how=Replacement(size=1)).isfinite().all()

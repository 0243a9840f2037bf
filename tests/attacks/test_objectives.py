"""What attacks make small, against counts and sums by hand."""

import pytest
import torch
from torch import Tensor

from moreaugrad.attacks.objectives import Goal, centre_shift, map_difference, region, top_k
from moreaugrad.score.inputs import Layout
from toys import normal

LINE = Layout(((5,),), (torch.float64,))
PICTURE = Layout(((2, 3, 4),), (torch.float64,))


def row(*numbers: float) -> Tensor:
    return torch.tensor([numbers], dtype=torch.float64)


def kept(goal: Goal) -> list[int]:
    return goal.weight[0].nonzero()[:, 0].tolist()


@pytest.mark.parametrize(
    ("clean", "settings", "inside"),
    [
        (row(-5, 1, 4, 2, 3), {}, [0, 2]),
        (row(-5, 0, 4, 0, 3), {}, [0]),  # of 3 entries, not of 5
        (row(-5, 0, 4, 0, 3), {"ratio": 0.7}, [0, 2]),
        (row(0, 0, 4, 0, 0), {}, [2]),  # at least one
        (row(-5, 0, 4, 0, 3), {"of_all": True}, [0, 2]),
        (row(-5, 0, 0, 0, 0), {"of_all": True}, [0, 1]),  # zeros too, as released
        (row(-5, 0, 0, 0, 0), {"count": 3}, [0]),  # never zeros
        (row(1, 1, 1, 1, 1), {}, [0, 1]),  # equal ones in their order
    ],
)
def test_which_entries_are_largest(clean: Tensor, settings: dict, inside: list[int]) -> None:
    assert kept(top_k(clean, LINE, **settings)) == inside


def test_the_share_of_the_largest() -> None:
    goal = top_k(row(-5, 1, 4, 2, 3), LINE)
    assert goal.value(row(-5, 1, 4, 2, 3)).item() == pytest.approx(9 / 15)
    assert goal.value(row(1, -7, 0, 2, 0)).item() == pytest.approx(1 / 10)
    assert goal.value(row(0, 0, 0, 0, 0)).isnan().all()


def test_pixels_hold_all_of_their_channels() -> None:
    clean = torch.zeros(1, 2, 3, 4, dtype=torch.float64)
    clean[0, 0, 0, 0], clean[0, 1, 0, 0] = 3, -3  # 6 together
    clean[0, 0, 1, 1], clean[0, 0, 2, 2] = 5, 4
    goal = top_k(clean.flatten(1), PICTURE, ratio=0.34, per="pixel")
    assert kept(goal) == [0, 12]
    assert kept(top_k(clean.flatten(1), PICTURE, ratio=0.34)) == [5]


def test_mass_centre() -> None:
    clean = torch.zeros(1, 2, 3, 4, dtype=torch.float64)
    clean[0, 0, 0, 0], clean[0, 1, 2, 2] = -1, 1
    goal = centre_shift(clean.flatten(1), PICTURE)
    assert goal.clean[0].tolist() == [1, 1]
    moved = torch.zeros_like(clean)
    moved[0, 1, 1, 3] = 7
    assert goal.value(moved.flatten(1)).item() == pytest.approx(-4)
    _, slope = goal.value_and_cotangent(clean.flatten(1))
    assert bool((slope == 0).all())  # nothing to follow at the clean map itself


def test_regions_of_each_form_agree() -> None:
    maps = normal(1, 24, seed=0)
    mask = torch.zeros(3, 4)
    mask[1:, 2:3] = 1
    goals = [region(maps, PICTURE, given) for given in (mask, mask[None], (1, 2, 2, 1))]
    by_hand = maps.reshape(2, 3, 4)[:, 1:, 2:3].abs().sum() / maps.abs().sum()
    for goal in goals:
        assert goal.value(maps).item() == pytest.approx(-by_hand.item())


def test_the_default_region_is_the_least_important_block() -> None:
    layout = Layout(((1, 8, 8),), (torch.float64,))
    maps = torch.ones(2, 8, 8, dtype=torch.float64)
    maps[0, 2:4, 6:8] = 0.1
    maps[1, 6:8, 0:2] = 0.2
    weight = region(maps.flatten(1), layout, None).weight.reshape(2, 8, 8)
    assert (-weight[0]).nonzero().tolist() == [[2, 6], [2, 7], [3, 6], [3, 7]]
    assert (-weight[1]).nonzero().tolist() == [[6, 0], [6, 1], [7, 0], [7, 1]]


def test_map_difference_is_the_published_loss_at_its_size() -> None:
    layout = Layout(((3, 224, 224),), (torch.float64,))
    maps, target = normal(1, 3 * 224 * 224, seed=0), normal(3, 224, 224, seed=1)
    h = maps.reshape(3, 224, 224).abs().sum(0)
    t = target.abs().sum(0)
    expected = 1e11 * (h / h.sum() - t / t.sum()).square().mean()
    found = map_difference(maps, layout, target, 1e11).value(maps)
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)


def test_map_difference_stays_when_maps_are_enlarged() -> None:
    maps, target = normal(1, 24, seed=0), normal(2, 3, 4, seed=1)
    large = Layout(((2, 6, 8),), (torch.float64,))

    def enlarged(x: Tensor) -> Tensor:
        return x.reshape(2, 3, 4).repeat_interleave(2, 1).repeat_interleave(2, 2)

    small = map_difference(maps, PICTURE, target, 1.0).value(maps)
    wide = enlarged(maps).reshape(1, -1)
    assert map_difference(wide, large, enlarged(target), 1.0).value(wide).item() == pytest.approx(
        small.item()
    )


def test_map_difference_to_the_map_upside_down() -> None:
    maps = normal(1, 24, seed=0)
    goal = map_difference(maps, PICTURE, None, 1.0)
    turned = maps.reshape(2, 3, 4).flip(1, 2).reshape(1, -1)
    assert goal.value(turned).item() == pytest.approx(0, abs=1e-20)
    assert goal.value(maps).item() > 0


GOALS = {
    "top-k": lambda m: top_k(m, PICTURE),
    "pixels": lambda m: top_k(m, PICTURE, per="pixel"),
    "mass-centre": lambda m: centre_shift(m, PICTURE),
    "region": lambda m: region(m, PICTURE, (0, 0, 2, 2)),
    "map difference": lambda m: map_difference(m, PICTURE, normal(2, 3, 4, seed=9), 1e9),
}


@pytest.mark.parametrize("name", GOALS)
def test_goals_ignore_scale_sign_and_other_samples(name: str) -> None:
    clean, maps = normal(3, 24, seed=0), normal(3, 24, seed=1)
    goal = GOALS[name](clean)
    value, slope = goal.value_and_cotangent(maps)
    assert goal.value(-3 * maps).tolist() == pytest.approx(value.tolist())
    # Scaling a map changes nothing, so the derivative is orthogonal to it.
    assert (slope * maps).sum(1).tolist() == pytest.approx(
        [0] * 3, abs=1e-9 * float(value.abs().max())
    )
    for i in range(3):
        alone, its_slope = GOALS[name](clean[i : i + 1]).value_and_cotangent(maps[i : i + 1])
        assert alone.item() == pytest.approx(value[i].item(), rel=1e-12)
        assert torch.allclose(its_slope[0], slope[i], rtol=1e-9, atol=0)
    chosen = torch.tensor([2, 0])
    assert torch.equal(goal.select(chosen).value(maps[chosen]), value[chosen])


@pytest.mark.parametrize("name", GOALS)
def test_cotangents_are_derivatives(name: str) -> None:
    clean, maps, along = normal(1, 24, seed=0), normal(1, 24, seed=1), normal(1, 24, seed=2)
    goal = GOALS[name](clean)
    _, slope = goal.value_and_cotangent(maps)
    h = 1e-6
    change = (goal.value(maps + h * along) - goal.value(maps - h * along)) / (2 * h)
    assert (slope * along).sum().item() == pytest.approx(change.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (torch.ones(4, 3), r"mask of shape \(3, 4\) or \(1, 3, 4\), got \(4, 3\)"),
        (torch.zeros(3, 4), "not empty"),
        ((0, 0, 4, 1), r"4 numbers .* inside \(3, 4\), got \(0, 0, 4, 1\)"),
        ((0, 0, 1), "4 numbers"),
    ],
)
def test_bad_regions(given: object, says: str) -> None:
    with pytest.raises(ValueError, match=f"region: expected .*{says}"):
        region(normal(1, 24, seed=0), PICTURE, given)


def test_bad_targets_and_inputs() -> None:
    maps = normal(1, 24, seed=0)
    with pytest.raises(ValueError, match="target_map: expected shape"):
        map_difference(maps, PICTURE, torch.ones(3, 4), 1.0)
    with pytest.raises(ValueError, match="target_map: expected finite numbers"):
        map_difference(maps, PICTURE, torch.zeros(2, 3, 4), 1.0)
    with pytest.raises(ValueError, match="mass-centre: expected one input"):
        centre_shift(normal(1, 5, seed=0), LINE)

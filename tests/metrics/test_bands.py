"""Five bands and two against slow literal versions; gaze overlap against drawn ties."""

import math

import pytest
import torch
from torch import Tensor

from moreaugrad.data.cells import Cells
from moreaugrad.metrics import (
    METRICS,
    binary,
    binary_confusion,
    build,
    five_band,
    five_band_confusion,
    five_band_sweep,
    gaze_overlap,
)
from toys import normal

SCORES = ("accuracy", "recall", "precision", "false-positive-rate")
TRUTH = torch.tensor([0.0, 0.4, 0.9])[torch.arange(3 * 7 * 9) % 3].reshape(3, 7, 9)
MAPS = normal(3, 7, 9, seed=3)
OF_TRUTH = [name for name, metric in METRICS.items() if metric.kind == "truth"]


def band(value: float, low: float, high: float) -> int:
    if value > high:
        return 2
    if value > low:
        return 1
    if value > -low:
        return 0
    return -1 if value > -high else -2


def literal(values: Tensor, truth: Tensor, low: float, high: float) -> dict[str, float]:
    """The released code's counts, without its 1e-6."""
    tp = fp = tn = fn = 0
    top = values.abs().max().item()
    for v, t in zip(values.flatten().tolist(), truth.flatten().tolist(), strict=True):
        said, true = band(v / top, low, high), band(t, 0.3, 0.7)
        tp += said != 0 and said == true
        fp += (said != 0 and true == 0) or (said != 0 and true != 0 and said != true)
        tn += said == 0 and true == 0
        fn += said == 0 and true != 0
    return {
        "accuracy": (tp + tn) / truth.numel(),
        "recall": tp / (tp + fn),
        "precision": tp / (tp + fp),
        "false-positive-rate": fp / (fp + tn),
    }


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("edges", [(0.3, 0.7), (0.1, 0.5)])
def test_five_bands_are_those_of_the_literal_version(
    score: str, edges: tuple[float, float]
) -> None:
    found = five_band(MAPS, TRUTH, measure=score, edges=edges)
    expected = [literal(MAPS[i], TRUTH[i], *edges)[score] for i in range(3)]
    assert found.tolist() == pytest.approx(expected)


def test_bands_are_open_below_and_closed_above() -> None:
    # Divided by 8: -0.75, -0.5, -0.25, 0.25, 0.5, 0.75 and 1, which no rounding touches.
    values = torch.tensor([[-6.0, -4.0, -2.0, 2.0, 4.0, 6.0, 8.0]])
    said = [-2, -1, -1, 0, 1, 1, 2]
    reference = torch.tensor([[-0.9, -0.4, -0.4, 0.0, 0.4, 0.4, 0.9]])
    found = five_band_confusion(values, reference, edges=(0.25, 0.75))
    # -0.75 is in -2, -0.25 in -1, 0.25 in 0, 0.75 in 1.
    assert found.hits.item() == sum(band != 0 for band in said)
    assert (found.false_alarms.item(), found.misses.item()) == (0, 0)


@pytest.mark.parametrize("y", range(10))
def test_the_truth_scores_itself(y: int) -> None:
    cells = Cells(size=64)
    truth = cells[next(i for i in range(400) if cells.label(i) == y)][2][None]
    if y == 9:
        assert not truth.any()
        return
    for score, best in zip(SCORES, (1, 1, 1, 0), strict=True):
        assert five_band(truth, truth, measure=score).item() == best
        assert binary(truth, truth, measure=score, threshold=0.5).item() == best
        assert five_band(-truth, truth, measure=score).item() != best


def test_an_empty_truth_has_no_recall() -> None:
    empty = torch.zeros_like(TRUTH)
    found = five_band_confusion(MAPS, empty)
    assert found.measure("recall").isnan().all()
    assert found.measure("precision").tolist() == [0, 0, 0]
    assert torch.equal(found.measure("accuracy"), 1 - found.measure("false-positive-rate"))


def test_the_sweep_lowers_the_edges_of_the_map_alone() -> None:
    found = five_band_sweep(MAPS, TRUTH, step=0.005, count=56)
    assert found.hits.shape == (56, 3)
    for i in (0, 20, 55):
        edges = (0.3 - i * 0.005, 0.7 - i * 0.005)
        expected = five_band(MAPS, TRUTH, measure="precision", edges=edges)
        assert torch.equal(found.measure("precision")[i], expected)
    rising = found.hits + found.false_alarms  # ever more places are marked
    assert bool((rising.diff(dim=0) >= 0).all())
    assert bool((rising[-1] > rising[0]).all())


@pytest.mark.parametrize("threshold", [0.1, 0.3])
def test_binary_takes_the_feature_alone(threshold: float) -> None:
    for row in range(3):
        said = MAPS[row].abs() / MAPS[row].abs().max() > threshold
        true = TRUTH[row] == 0.9
        recall = (said & true).sum() / true.sum()
        alarms = (said & ~true).sum() / (~true).sum()
        one = binary(MAPS, TRUTH, measure="recall", threshold=threshold)[row]
        other = binary(MAPS, TRUTH, measure="false-positive-rate", threshold=threshold)[row]
        assert (one.item(), other.item()) == pytest.approx((recall.item(), alarms.item()))


def test_display_normalisation_does_not_depend_on_one_outlier() -> None:
    maps = MAPS.repeat(1, 4, 4)
    truth = TRUTH.repeat(1, 4, 4)
    spiked = maps.clone()
    spiked[:, 0, 0] = 1e3
    by_max = binary_confusion(spiked, truth)
    by_display = binary_confusion(spiked, truth, normalisation="display")
    assert (by_max.hits + by_max.false_alarms).tolist() == [1, 1, 1]
    clean = binary_confusion(maps, truth, normalisation="display")
    assert (by_display.hits - clean.hits).abs().max() < 0.05 * maps[0].numel()


def test_gaze_overlap_is_the_mean_over_drawn_ties() -> None:
    generator = torch.Generator().manual_seed(0)
    gaze = (4 * normal(1, 10, 10, seed=5)).round().clamp_min(0) + 1
    sparse = normal(1, 10, 10, seed=6)
    sparse *= sparse > 1.3
    k, draws = 20, 4000
    total = 0.0
    for _ in range(draws):
        tops = []
        for part in (sparse.abs(), gaze):
            jitter = torch.rand(100, generator=generator, dtype=torch.float64)
            order = sorted(range(100), key=lambda i: (-part.flatten()[i].item(), jitter[i].item()))
            tops.append(set(order[:k]))
        total += len(tops[0] & tops[1]) / k
    found = gaze_overlap(sparse, gaze, ratio=0.2).item()
    assert found == pytest.approx(total / draws, abs=0.01)


def test_gaze_overlap_of_itself_and_of_nothing() -> None:
    gaze = normal(2, 20, 20, seed=1).abs()
    assert gaze_overlap(gaze, gaze).tolist() == [1, 1]
    assert gaze_overlap(-gaze, gaze).tolist() == [1, 1]  # saliency counts by magnitude
    flat = torch.ones_like(gaze)
    for ratio in (0.05, 0.1):
        assert gaze_overlap(flat, gaze, ratio=ratio).tolist() == pytest.approx([ratio] * 2)


def test_blur_joins_what_is_near() -> None:
    gaze, values = torch.zeros(1, 21, 21), torch.zeros(1, 21, 21)
    gaze[0, 8:13, 8:13] = 1.0
    values[0, 10, 10] = 1.0
    ratio = 25 / 441
    assert gaze_overlap(values, gaze, ratio=ratio).item() < 0.15
    assert gaze_overlap(values, gaze, ratio=ratio, blur=2.0).item() > 0.8


@pytest.mark.parametrize("name", OF_TRUTH)
def test_a_batch_is_its_samples(name: str) -> None:
    metric = build(name)
    alone = [metric(MAPS[i : i + 1], TRUTH[i : i + 1]).item() for i in range(3)]
    assert metric(MAPS, TRUTH).tolist() == alone
    assert metric(2e-30 * MAPS, TRUTH).tolist() == pytest.approx(alone)
    half = metric(MAPS.half(), TRUTH)
    assert half.dtype == torch.float64
    assert half.tolist() == pytest.approx(alone, abs=0.05)


@pytest.mark.parametrize("name", OF_TRUTH)
@pytest.mark.parametrize("wrong", [0.0, math.nan, math.inf])
def test_zero_and_broken_maps_have_no_score(name: str, wrong: float) -> None:
    maps = MAPS.clone()
    maps[1] = wrong
    assert build(name)(maps, TRUTH).isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("name", OF_TRUTH)
def test_shapes_must_agree(name: str) -> None:
    with pytest.raises(ValueError, match="same shape"):
        build(name)(MAPS[:, None].expand(-1, 3, -1, -1), TRUTH)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"edges: expected two numbers 0 < a < b < 1, got \[0.7"):
        five_band(MAPS, TRUTH, edges=(0.7, 0.3))
    with pytest.raises(ValueError, match=r"truth: expected values in \[-1, 1\].*sample 0"):
        five_band(MAPS, 255 * TRUTH)
    with pytest.raises(ValueError, match=r"truth: expected values in \[-1, 1\].*sample 2"):
        binary(MAPS, TRUTH.index_fill(0, torch.tensor([2]), math.nan))
    with pytest.raises(ValueError, match="last above 0"):
        five_band_sweep(MAPS, TRUTH, step=0.03)
    with pytest.raises(ValueError, match="threshold"):
        binary(MAPS, TRUTH, threshold=1.0)
    with pytest.raises(ValueError, match="normalisation: expected one of max, display"):
        binary(MAPS, TRUTH, normalisation="percentile")
    with pytest.raises(ValueError, match="measure: expected one of accuracy"):
        five_band(MAPS, TRUTH, measure="f1")
    with pytest.raises(ValueError, match="blur: expected maps"):
        gaze_overlap(MAPS.flatten(1), TRUTH.flatten(1), blur=1.0)
    with pytest.raises(ValueError, match="ratio"):
        gaze_overlap(MAPS, TRUTH, ratio=0.0)

"""What every row of the registry keeps to."""

import inspect
import math
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pytest
import torch
from torch import Tensor

from moreaugrad.metrics import KINDS, METRICS, aggregate, build
from moreaugrad.metrics.maps import reduced, sample
from toys import normal

OF_MAPS = [name for name, metric in METRICS.items() if metric.kind == "map"]
OF_PAIRS = [name for name, metric in METRICS.items() if metric.kind == "pair"]
ALIKE = {name: float(METRICS[name].better == "high") for name in OF_PAIRS}
WITHOUT_PLACES = [n for n in OF_PAIRS if not n.startswith(("ssim", "mass-centre"))]
RAW = {"ssim-raw"}
"""Depends on the maps' scale."""


def maps(seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Three maps of 3 x 16 x 20, one sparse and one with many equal entries."""
    found = normal(3, 3, 16, 20, seed=seed)
    found[1] *= found[1].abs() > 1.5
    found[2] = found[2].round()
    return found.to(dtype)


def called(name: str, a: Tensor, b: Tensor) -> Tensor:
    found = build(name)(a, b) if name in OF_PAIRS else build(name)(a)
    assert isinstance(found, Tensor)
    return found


@pytest.mark.parametrize("name", OF_MAPS + OF_PAIRS)
def test_a_batch_is_its_samples(name: str) -> None:
    a, b = maps(0), maps(1)
    alone = [called(name, a[i : i + 1], b[i : i + 1]).item() for i in range(3)]
    together = called(name, a, b)
    assert together.tolist() == alone
    assert together.dtype == torch.float64


@pytest.mark.parametrize("name", OF_PAIRS)
def test_a_map_is_like_itself(name: str) -> None:
    a = maps()
    assert called(name, a, a).tolist() == pytest.approx([ALIKE[name]] * 3, abs=1e-12)


@pytest.mark.parametrize("name", OF_PAIRS)
def test_other_maps_are_less_alike(name: str) -> None:
    found = called(name, maps(0), maps(1))
    worse = ALIKE[name] - found if METRICS[name].better == "high" else found
    assert worse.min() > 1e-3


@pytest.mark.parametrize("scale", [1e-35, 3e-4, 7.0, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", sorted({*OF_MAPS, *OF_PAIRS} - RAW))
def test_scale_does_not_matter(name: str, dtype: torch.dtype, scale: float) -> None:
    a, b = maps(0, dtype), maps(1, dtype)
    if name.startswith(("top-k", "dice", "jaccard", "zeros")):
        scale = 2.0 ** round(math.log2(scale))  # rounding would reorder near ties
    expected = called(name, a, b)
    assert called(name, scale * a, b) == pytest.approx(expected, rel=2e-5, abs=2e-6)
    assert called(name, scale * a, scale * b) == pytest.approx(expected, rel=2e-5, abs=2e-6)


@pytest.mark.parametrize("name", sorted({*OF_MAPS, *OF_PAIRS} - RAW))
def test_extreme_doubles_do_not_overflow(name: str) -> None:
    a, b = maps(0), maps(1)
    expected = called(name, a, b)
    for scale in (2.0**1020, 2.0**-1000):
        assert called(name, scale * a, b) == pytest.approx(expected, rel=1e-12)


def test_raw_ssim_calls_any_small_maps_alike() -> None:
    a, b = 1e-3 * maps(0), 1e-3 * maps(1)
    assert called("ssim-raw", a, b).min() > 0.98
    assert called("ssim", a, b).max() < 0.9


@pytest.mark.parametrize("name", WITHOUT_PLACES)
def test_moving_all_entries_alike_changes_nothing(name: str) -> None:
    a, b = normal(3, 60, seed=0), normal(3, 60, seed=1)  # no ties, whose order would count
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    assert called(name, a[:, order], b[:, order]) == pytest.approx(called(name, a, b))


@pytest.mark.parametrize("wrong", [0.0, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", OF_PAIRS)
def test_zero_and_broken_maps_are_undefined(name: str, wrong: float) -> None:
    a, b = maps(0), maps(1)
    broken = a.clone()
    if wrong == 0:
        broken[1] = 0
    else:
        broken[1, 0, 3, 3] = wrong
    for one, other in ((broken, b), (b, broken), (broken, broken)):
        found = called(name, one, other)
        assert found.isnan().tolist() == [False, True, False]
    expected = called(name, a, b)
    assert called(name, broken, b)[[0, 2]].tolist() == expected[[0, 2]].tolist()


@pytest.mark.parametrize("wrong", [0.0, math.nan, math.inf])
@pytest.mark.parametrize("name", OF_MAPS)
def test_zero_and_broken_maps_have_no_score(name: str, wrong: float) -> None:
    broken = torch.full((1, 3, 16, 20), wrong)
    found = called(name, broken, broken)
    if name == "zeros" and wrong == 0:
        assert found.tolist() == [1.0]
    else:
        assert found.isnan().all()


@pytest.mark.parametrize("name", OF_PAIRS)
def test_negative_maps_count_by_magnitude(name: str) -> None:
    a, b = maps(0).abs(), maps(1).abs()
    if METRICS[name].settings.get("signed"):
        assert called(name, -a, b) == pytest.approx(-called(name, a, b))
    elif name not in RAW:
        assert called(name, -a, b) == pytest.approx(called(name, a, b))


@pytest.mark.parametrize("name", OF_PAIRS)
def test_shapes_must_agree(name: str) -> None:
    with pytest.raises(ValueError, match=r"same shape for all; got \[3, 3, 16, 20\] and \[3, 16"):
        called(name, maps(), maps().sum(1))
    with pytest.raises(ValueError, match="same shape"):
        called(name, maps(), maps()[:2])
    with pytest.raises(ValueError, match="same shape"):
        called(name, maps()[0, 0, 0], maps()[0, 0, 0])
    with pytest.raises(TypeError, match="one of its parts"):
        build(name)((maps(),), maps())


@pytest.mark.parametrize("name", OF_MAPS + OF_PAIRS)
def test_maps_of_any_dtype_stay_as_they_are(
    name: str, untouched_generators: Callable[[], AbstractContextManager[None]]
) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        a, b = maps(0, dtype).requires_grad_(), maps(1, dtype)
        before = a.detach().clone()
        with untouched_generators():
            found = called(name, a, b)
        assert not found.requires_grad
        assert torch.equal(a.detach(), before)
        assert found == pytest.approx(called(name, before.double(), b.double()))


@pytest.mark.parametrize("name", OF_MAPS + OF_PAIRS)
def test_an_empty_batch_has_no_values(name: str) -> None:
    empty = torch.zeros(0, 3, 16, 20)
    assert called(name, empty, empty).shape == (0,)


@pytest.mark.parametrize("how", ["abs-sum", "sum", "max-abs"])
@pytest.mark.parametrize("shape", [(9,), (4, 5), (3, 4, 5), (3, 2, 4, 5)], ids=str)
def test_channels_are_the_first_axis_of_images_and_volumes(
    shape: tuple[int, ...], how: str
) -> None:
    maps = normal(4, *shape, seed=1)
    if len(shape) < 3:
        pixels = maps if how == "sum" else maps.abs()
    else:
        pixels = {
            "abs-sum": maps.abs().sum(1), "sum": maps.sum(1), "max-abs": maps.abs().amax(1),
        }[how]  # fmt: skip
    assert torch.equal(reduced(maps, how), pixels)
    for row in range(4):
        assert np.allclose(sample(maps[row], how), pixels[row].numpy())
    mask = torch.ones_like(maps, dtype=torch.bool)
    mask[..., -1] = False
    found = build("gini", reduction=how)(maps, mask=mask)
    assert torch.allclose(found, build("gini")(pixels[..., :-1]))


@pytest.mark.parametrize("name", METRICS)
def test_rows_are_whole(name: str) -> None:
    metric = METRICS[name]
    assert metric.kind in KINDS
    assert metric.better in ("high", "low", "")
    assert inspect.getdoc(metric.load())
    known = metric.defaults()
    assert set(metric.settings) <= set(known)
    build(name, **known)  # what the row says, said again, is accepted


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'spearman'"):
        build("spearmann")
    with pytest.raises(ValueError, match="top-k has no setting 'ration'; did you mean 'ratio'"):
        build("top-k", ration=0.1)
    with pytest.raises(ValueError, match="size: expected an odd number"):
        build("ssim", size=4)
    with pytest.raises(ValueError, match="draws"):
        build("aopc", draws=0)
    with pytest.raises(ValueError, match="reduction: expected one of none, abs-sum"):
        build("gini", reduction="mean")(maps())


def test_names_can_be_listed_without_torch() -> None:
    code = "import sys, moreaugrad.metrics as m; print(len(m.METRICS), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(METRICS)), "False"]


def test_the_aggregate_counts_what_is_undefined() -> None:
    found = aggregate(torch.tensor([1.0, math.nan, 4.0]))
    assert (found.mean, found.defined, found.undefined) == (2.5, 2, 1)
    assert math.isnan(aggregate(torch.tensor([math.nan])).mean)

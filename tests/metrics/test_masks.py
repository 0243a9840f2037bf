"""Metrics of padded maps are those of the maps without padding."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from contracts.networks import Embedded, cheap
from moreaugrad import metrics
from moreaugrad.metrics.captum import Near
from toys import normal

LENGTHS, TARGET = (5, 3, 4), [1, 0, 2]
MASK = torch.arange(7) < torch.tensor(LENGTHS)[:, None]
ONE: dict[str, Callable[..., Tensor]] = {
    "zeros": metrics.zeros,
    "gini": metrics.gini,
    "gini of pixels": partial(metrics.gini, reduction="abs-sum"),
    "entropy": metrics.entropy,
    "relative entropy": partial(metrics.entropy, relative=True),
    "ties": partial(metrics.top_k_ties, nonzero=False),
}
TWO: dict[str, Callable[..., Tensor]] = {
    "top-k": partial(metrics.top_k_intersection, nonzero=False),
    "dice": metrics.dice,
    "jaccard": partial(metrics.jaccard, ratio=0.4, reduction="sum"),
    "pearson": metrics.pearson,
    "spearman": metrics.spearman,
    "signed spearman": partial(metrics.spearman, signed=True),
}


def padded(seed: int) -> tuple[Tensor, Tensor]:
    """Sparse maps `[3, 2, 1, 7]`, zero at padding, and their mask."""
    mask = MASK[:, None, None, :].expand(-1, 2, 1, -1)
    maps = normal(3, 2, 1, 7, seed=seed, dtype=torch.float64).round()
    return maps * mask, mask


@pytest.mark.parametrize("name", [*ONE, *TWO])
def test_padding_does_not_count(name: str) -> None:
    (a, mask), (b, _) = padded(1), padded(2)
    maps = (a,) if name in ONE else (a, b)
    metric = (ONE | TWO)[name]
    found = metric(*maps, mask=mask)
    for row, length in enumerate(LENGTHS):
        alone = metric(*(each[row : row + 1, :, :, :length] for each in maps))
        torch.testing.assert_close(found[row], alone[0], equal_nan=True)
    if name not in ("dice", "entropy"):  # which count entries that are not zero
        assert not torch.equal(found, metric(*maps))


@pytest.mark.parametrize("mask", [MASK, MASK[:, None, None].expand(-1, 2, 1, -1).long()])
def test_other_masks_are_refused(mask: Tensor) -> None:
    maps = padded(1)[0]
    for metric in (metrics.gini, metrics.zeros):
        with pytest.raises(ValueError, match=r"mask: expected a boolean tensor .*\[3, 2, 1, 7\]"):
            metric(maps, mask=mask)


def test_a_sample_of_padding_alone_has_no_value() -> None:
    maps, mask = padded(1)
    mask = mask.clone()
    mask[1] = False
    for metric in (metrics.gini, metrics.zeros, metrics.entropy):
        assert metric(maps, mask=mask).isnan().tolist() == [False, True, False]


def test_sensitivity_leaves_padding_as_it_is() -> None:
    seen: list[Tensor] = []

    class Watched(Embedded):
        def forward(self, embedded: Tensor, mask: Tensor) -> Tensor:
            seen.append(embedded.detach())
            return super().forward(embedded, mask)

    x = normal(3, 7, 6, seed=5, dtype=torch.float64)
    explainer = cheap("sparse-gradient", Watched())
    clean = explainer.explain(x, TARGET, MASK, mask=MASK)
    found = metrics.max_sensitivity(
        explainer, clean, additional_forward_args=MASK, near=Near(radius=0.2, draws=3)
    )
    assert (found > 0).all()
    batches = [points for points in seen if len(points) == len(x)]  # not single samples, checked
    assert any(not torch.equal(points[MASK], x[MASK]) for points in batches)
    assert all(torch.equal(points[~MASK], x[~MASK]) for points in batches)

"""A sample's map is its own: whatever batch, order or chunk it came in."""

from typing import Any

import pytest
import torch

from contracts.networks import (
    ONE_IMAGE,
    Joint,
    Picture,
    assert_same,
    cheap,
    columns,
    parts,
    pictures,
)

pytestmark = pytest.mark.filterwarnings("ignore::moreaugrad.ConvergenceWarning")
TARGET = [0, 2, 1, 1, 0]


def explained(method: str, **settings: Any) -> torch.Tensor:
    return cheap(method, Picture(), **settings).explain(pictures(5), TARGET).maps


def test_a_batch_equals_its_samples(method: str) -> None:
    explainer, x = cheap(method, Picture()), pictures(5)
    batch = explainer.explain(x, TARGET)
    alone = [explainer.explain(x[i : i + 1], TARGET[i]) for i in range(5)]
    assert_same(torch.cat([one.maps for one in alone]), batch.maps)
    assert sum((one.status for one in alone), ()) == batch.status
    for name in ("steps", "evaluations", "prediction", "target"):
        assert torch.equal(torch.cat([getattr(one, name) for one in alone]), getattr(batch, name))
    for name in ("error", "residual", "eta", "score"):
        torch.testing.assert_close(
            torch.cat([getattr(one, name) for one in alone]), getattr(batch, name), equal_nan=True
        )
    if batch.z_scores is not None:
        z = torch.cat([one.z_scores for one in alone])
        torch.testing.assert_close(z, batch.z_scores, rtol=1e-4, atol=1e-5, equal_nan=True)


def test_a_joint_batch_equals_its_samples(method: str) -> None:
    if method in ONE_IMAGE:
        pytest.skip(f"{method} explains one input")
    explainer, x, table = cheap(method, Joint()), pictures(3), columns(3)
    batch = explainer.attribute((x, table), target=[0, 2, 1])
    for i, target in enumerate([0, 2, 1]):
        rows = slice(i, i + 1)
        alone = explainer.attribute((x[rows], table[rows]), target=target)
        assert_same(alone, tuple(part[rows] for part in parts(batch)))


def test_the_order_of_samples_does_not_matter(method: str) -> None:
    order = [3, 0, 4, 2, 1]
    explainer = cheap(method, Picture())
    turned = explainer.attribute(pictures(5)[order], target=[TARGET[i] for i in order])
    assert_same(turned, explained(method)[order])


def test_the_same_sample_twice_has_one_map(method: str) -> None:
    x = pictures(5)[[1, 0, 1]]
    maps = cheap(method, Picture()).attribute(x, target=[2, 0, 2])
    assert_same(maps[0], maps[2])


@pytest.mark.parametrize("batch_size", [1, 3, 7, 64])
def test_the_batch_size_does_not_matter(method: str, batch_size: int) -> None:
    assert_same(explained(method, batch_size=batch_size), explained(method))


def test_calls_repeat_exactly(method: str) -> None:
    assert torch.equal(explained(method), explained(method))


def test_ids_travel_with_their_samples(method: str) -> None:
    explainer, x = cheap(method, Picture()), pictures(5)
    ids, order = [4, 9, 2, 7, 30], [3, 0, 4, 2, 1]
    maps = explainer.attribute(x, target=TARGET, ids=ids)
    turned = explainer.attribute(
        x[order], target=[TARGET[i] for i in order], ids=torch.tensor(ids)[order]
    )
    assert_same(turned, maps[order])

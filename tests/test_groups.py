import pytest
import torch
from torch import Tensor

import oracles
from moreaugrad.groups import Partition, explicit, from_labels, patches
from moreaugrad.penalties import GroupL2

GEOMETRIES = [
    ((7,), (1,)),
    ((7,), (3,)),
    ((7,), (7,)),
    ((3, 10), (4,)),
    ((1, 6, 6), (3, 3)),
    ((3, 7, 5), (2, 3)),
    ((2, 4, 9), (4, 1)),
    ((2, 3, 4, 5), (2, 2, 2)),
    ((1, 5, 5, 5), (5, 2, 3)),
]


def same_partition(one: Tensor, two: Tensor) -> bool:
    """Whether two labellings put the same entries together."""
    a, b = one.flatten(), two.flatten()
    return torch.equal(a[:, None] == a, b[:, None] == b)


def labels(shape: tuple[int, ...], partition: Partition) -> Tensor:
    return partition.label.reshape(shape)


@pytest.mark.parametrize(("shape", "size"), GEOMETRIES)
@pytest.mark.parametrize("channels", ["joint", "separate"])
def test_patches_follow_the_loops(
    shape: tuple[int, ...], size: tuple[int, ...], channels: str
) -> None:
    expected = oracles.group_labels(shape, size, channels)
    found = patches(shape, size, channels)
    assert same_partition(found.label, expected)
    assert len(found.members) == len(oracles.groups_of(expected))


def test_one_size_stands_for_all_axes() -> None:
    assert same_partition(
        patches((3, 7, 5), 2, "joint").label, patches((3, 7, 5), (2, 2), "joint").label
    )


def test_the_published_geometry() -> None:
    partition = patches((3, 224, 224), 14, "joint")
    assert partition.members.shape == (256, 588)
    assert (partition.members < 3 * 224 * 224).all()  # nothing is filled up


@pytest.mark.parametrize(("shape", "size"), GEOMETRIES)
@pytest.mark.parametrize("channels", ["joint", "separate"])
def test_norms_and_spread_follow_the_loops(
    shape: tuple[int, ...], size: tuple[int, ...], channels: str
) -> None:
    partition = patches(shape, size, channels)
    u = torch.randn(2, *shape, dtype=torch.float64)
    norms = partition.norms(u.flatten(1))
    for sample, found in zip(u, norms, strict=True):
        expected = oracles.group_norms(sample, labels(shape, partition))
        assert sorted(found.tolist()) == pytest.approx(sorted(expected))
    spread = partition.spread(norms)
    for entry in range(u[0].numel()):
        mates = partition.label == partition.label[entry]
        expected = u.flatten(1)[:, mates].norm(dim=1)
        torch.testing.assert_close(spread[:, entry], expected)


@pytest.mark.parametrize(("shape", "size"), GEOMETRIES)
def test_members_list_every_entry_once(shape: tuple[int, ...], size: tuple[int, ...]) -> None:
    partition = patches(shape, size, "joint")
    n = partition.label.numel()
    members = partition.members[partition.members < n]
    assert sorted(members.tolist()) == list(range(n))
    for group, entries in enumerate(partition.members):
        assert (partition.label[entries[entries < n]] == group).all()


def test_labels_need_no_order() -> None:
    index = torch.tensor([[9, -3], [9, 100], [-3, 7]])
    assert same_partition(from_labels(index).label, index)


def test_an_index_without_channels_joins_them() -> None:
    index = torch.tensor([[0, 0, 1], [2, 1, 1]])
    joint = explicit((3, 2, 3), index)
    assert same_partition(joint.label, index.expand(3, 2, 3))
    apart = index + 10 * torch.arange(3)[:, None, None]
    assert same_partition(explicit((3, 2, 3), apart).label, apart)


def test_an_index_for_tabular_features() -> None:
    u = torch.tensor([[3.0, 1.0, 4.0, 0.0, 0.5]])
    penalty = GroupL2(1.0, index=torch.tensor([0, 1, 0, 1, 2]))
    assert penalty.magnitudes(u).tolist() == [[5.0, 1.0, 0.5]]
    expected = torch.tensor([[1.8, 0.0, 2.4, 0.0, 0.0]])
    torch.testing.assert_close(penalty.prox(u, 2.0), expected)


@pytest.mark.parametrize(
    ("shape", "size", "channels", "message"),
    [
        ((3, 8, 8), 0, "joint", "expected a size >= 1, or one for each of the 2 spatial axes"),
        ((3, 8, 8), (2, -1), "joint", "expected a size >= 1"),
        ((3, 8, 8), (2,), "joint", r"each of the 2 spatial axes, got \(2,\)"),
        ((3, 8, 8), 2.5, "joint", "expected a size >= 1"),
        ((3, 8, 8), (2, 2.5), "joint", "expected a size >= 1"),
        ((3, 8, 8), 9, "joint", r"size \(9, 9\) does not fit .* \(8, 8\)"),
        ((8,), 9, "joint", "does not fit"),
        ((3, 2, 2, 2, 2), 1, "joint", "1 to 3 spatial axes"),
        ((3, 8, 8), 2, "both", "expected 'joint' or 'separate', got 'both'"),
    ],
)
def test_bad_sizes_are_told(shape: object, size: object, channels: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        patches(shape, size, channels)


def test_bad_labels_are_told() -> None:
    with pytest.raises(TypeError, match=r"expected integer group labels, got torch.float32"):
        explicit((3, 2, 2), torch.zeros(2, 2))
    with pytest.raises(ValueError, match=r"\(3, 2, 2\) or, .* \(2, 2\), got \(2, 3\)"):
        explicit((3, 2, 2), torch.zeros(2, 3, dtype=torch.long))

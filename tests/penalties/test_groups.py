from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import oracles
from moreaugrad import GroupSparseMoreauGrad
from moreaugrad.penalties import GroupL2
from moreaugrad.penalties.groups import (
    Partition,
    chosen,
    explicit,
    from_labels,
    labels,
    patches,
    tokens,
)

QUARTERS = torch.tensor([[0, 1], [1, 1]])
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


def shaped(shape: tuple[int, ...], partition: Partition) -> Tensor:
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
        expected = oracles.group_norms(sample, shaped(shape, partition))
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


@pytest.mark.parametrize(
    "counts", [[900, *[2] * 30], [1] * 60 + [300, 5, 200], [500, *range(1, 40)]]
)
def test_an_atlas_with_a_large_background_takes_little_memory(counts: list[int]) -> None:
    n, groups = sum(counts), len(counts)
    index = torch.arange(groups).repeat_interleave(torch.tensor(counts))[torch.randperm(n)]
    partition = from_labels(index)
    assert max(counts) * groups > 5 * n  # of the groups padded to one length
    assert partition.members.numel() <= 4 * n
    u = torch.randn(2, n, dtype=torch.float64)
    u[1] *= 1e-200  # squares vanish
    chosen = [u[:, index == group] for group in range(groups)]
    sums = torch.stack([entries.sum(1) for entries in chosen], 1)
    torch.testing.assert_close(partition.sums(u), sums, rtol=1e-12, atol=1e-215)
    norms = torch.stack([entries[0].norm() for entries in chosen])
    torch.testing.assert_close(partition.norms(u)[0], norms)
    found = partition.directions(u)
    for group in range(groups):
        own = found[:, index == group].norm(dim=1)
        torch.testing.assert_close(own, torch.ones(2, dtype=torch.float64))


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
        ((3, 8, 8), True, "joint", "expected a size >= 1"),
        ((3, 8, 8), (2, 2.5), "joint", "expected a size >= 1"),
        ((3, 8, 8), 9, "joint", r"size \(9, 9\) does not fit .* \(8, 8\)"),
        ((8,), 9, "joint", "does not fit"),
        ((3, 2, 2, 2, 2), 1, "joint", "1 to 3 spatial axes"),
        ((3, 8, 8), 2, "both", "joint, separate; got 'both'"),
    ],
)
def test_bad_sizes_are_reported(shape: object, size: object, channels: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        patches(shape, size, channels)


def test_bad_labels_are_reported() -> None:
    with pytest.raises(TypeError, match=r"expected integer group labels, got torch.float32"):
        explicit((3, 2, 2), torch.zeros(2, 2))
    with pytest.raises(ValueError, match=r"\(3, 2, 2\) or, .* \(2, 2\), got \(2, 3\)"):
        explicit((3, 2, 2), torch.zeros(2, 3, dtype=torch.long))


@pytest.mark.parametrize(
    "index",
    [
        [0, 1] * 3,
        (0, 1) * 3,
        torch.tensor([0, 1] * 3, dtype=torch.int32),
        np.array([0, 1] * 3),
        [np.int64(0), 1] * 3,
        [5, -7] * 3,
    ],
)
def test_labels_are_any_sequence_of_integers(index: Any) -> None:
    assert same_partition(explicit((6,), index).label, torch.tensor([0, 1] * 3))
    penalty = GroupL2(1.0, index=index)
    assert penalty.magnitudes(torch.ones(1, 6))[0].tolist() == pytest.approx([3**0.5] * 2)


def test_labels_may_be_a_range_or_nested() -> None:
    assert explicit((6,), range(6)).members.shape == (6, 1)
    assert same_partition(explicit((3, 2, 2), [[0, 1], [1, 1]]).label, QUARTERS.expand(3, 2, 2))


@pytest.mark.parametrize(
    ("index", "got"),
    [
        ([0.0, 1.0] * 3, "0.0"),
        ([False, True] * 3, "False"),
        ([0, True] * 3, "True"),
        ([0, 1.5, 2], "1.5"),
        (torch.tensor([False, True] * 3), "torch.bool"),
        (np.array([0.0, 1.0] * 3), "0.0"),
        ([[0, 1], [2]], r"\[0, 1\] \(list\)"),
        ("abcdef", "str"),
        (None, "None"),
        ([0, None], "None"),
    ],
)
def test_labels_of_other_types_are_refused(index: Any, got: str) -> None:
    with pytest.raises(TypeError, match=rf"index: expected integer group labels, got .*{got}"):
        labels(index)


@pytest.mark.parametrize("length", [0, 5, 7])
def test_labels_of_another_length_are_refused(length: int) -> None:
    with pytest.raises(ValueError, match=rf"index: .*\(6,\).*got \({length},\)"):
        explicit((6,), [0] * length)


def test_labels_of_positions() -> None:
    """Of the axis that is as long; where both are, only a setting tells which."""
    first = torch.tensor([0, 0, 1, 1, 1])
    assert same_partition(explicit((5, 3), first).label, first[:, None].expand(5, 3))
    assert same_partition(explicit((3, 5), first).label, first.expand(3, 5))
    with pytest.raises(ValueError, match=r"\(5,\) may be those of the first or of the last axes"):
        explicit((5, 5), first)
    known = explicit((5, 5), first, positions_first=True)
    assert same_partition(known.label, first[:, None].expand(5, 5))
    with pytest.raises(ValueError, match=r"got \(5,\)"):
        explicit((3, 5), first, positions_first=True)
    superpixels = torch.tensor([[0, 0, 1], [2, 2, 1]])
    channels_last = explicit((2, 3, 4), superpixels)
    assert same_partition(channels_last.label, superpixels[..., None].expand(2, 3, 4))


def test_tokens_are_positions_with_all_their_features() -> None:
    u = torch.randn(2, 4, 3, dtype=torch.float64)
    torch.testing.assert_close(GroupL2(1.0, size="tokens").magnitudes(u), u.norm(dim=2))
    assert same_partition(tokens((4, 3, 2)).label, torch.arange(12)[:, None].expand(12, 2))
    with pytest.raises(ValueError, match="positions, features"):
        tokens((4,))
    with pytest.raises(ValueError, match="did you mean 'tokens'"):
        GroupL2(1.0, size="token")


EMBEDDING, CONV = nn.Embedding(5, 8), nn.Conv1d(3, 4, 1)


@pytest.mark.parametrize(
    ("shape", "layer", "expected"),
    [
        ((12, 8), EMBEDDING, "tokens"),
        ((1, 8), EMBEDDING, "tokens"),
        ((3, 5, 8), EMBEDDING, "tokens"),
        ((3, 224, 224), None, [14, 14]),
        ((1, 28, 28), None, [2, 2]),
        ((4, 64, 2), None, [4, 1]),
        ((64, 7, 7), nn.Identity(), [1, 1]),
        ((64, 40, 40), nn.Conv2d(1, 1, 1), [2, 2]),
        ((2, 32, 48, 16), None, [2, 3, 1]),
        ((1, 160), None, [10]),
        ((6, 160), CONV, [10]),
        ((6, 160), nn.BatchNorm1d(6), [10]),
    ],
)
def test_automatic_groups_where_they_are_certain(
    shape: tuple[int, ...], layer: nn.Module | None, expected: object
) -> None:
    assert chosen("auto", shape, layer, padded=False) == expected


@pytest.mark.parametrize(
    ("shape", "layer", "words"),
    [
        ((30,), None, "index=.*group='blocks'"),  # a table
        ((30,), nn.Linear(3, 30), "index="),
        ((8,), EMBEDDING, "index="),
        ((12, 8), None, "group='tokens'.*group='blocks'"),  # embeddings, or a series
        ((3, 160), None, "group='tokens'.*group='blocks'"),
        ((12, 8), nn.LayerNorm(8), "group='tokens'"),
        ((224, 224, 3), None, "channels seem not to come first"),
        ((16, 3, 64, 64), None, "channels seem not to come first"),  # frames
        ((7, 7, 96), nn.Identity(), "channels seem not to come first"),
    ],
)
def test_automatic_groups_are_refused_where_they_would_be_a_guess(
    shape: tuple[int, ...], layer: nn.Module | None, words: str
) -> None:
    with pytest.raises(ValueError, match=rf"group: no automatic groups .*{words}"):
        chosen("auto", shape, layer, padded=False)


def test_sizes_that_are_given_are_taken() -> None:
    for group in (3, (2, 1), "tokens"):
        assert chosen(group, (12, 8), None, padded=True) == group
    assert chosen("blocks", (12, 80), None, padded=False) == [5]
    assert chosen("blocks", (80,), None, padded=False) == [5]


def test_an_embedding_has_no_blocks_and_padding_no_automatic_ones() -> None:
    for group in (2, "blocks"):
        with pytest.raises(ValueError, match=r"group: an embedding's output .* 'tokens'"):
            chosen(group, (12, 8), EMBEDDING, padded=False)
    for group, shape in (("auto", (3, 32, 32)), ("blocks", (3, 160))):
        with pytest.raises(ValueError, match="group: expected the blocks' size with a mask"):
            chosen(group, shape, None, padded=True)


def test_maps_are_of_whole_tokens() -> None:
    """At an embedding by themselves, elsewhere by the setting; a token is kept whole or dropped."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 5), nn.Tanh(), nn.Flatten(), nn.Linear(40, 3)).eval()
    ids = torch.randint(0, 9, (2, 8))
    settings = {"sigma": 0.0, "sparsity": 0.75}
    at_layer = GroupSparseMoreauGrad(model, layer="0", **settings).attribute(ids, target=1)
    direct = GroupSparseMoreauGrad(model[1:], group="tokens", **settings)
    torch.testing.assert_close(direct.attribute(model[0](ids).detach(), target=1), at_layer)
    kept = (at_layer != 0).sum(2)
    assert ((kept == 0) | (kept == 5)).all()
    assert (kept > 0).sum(1).tolist() == [2, 2]
    with pytest.raises(ValueError, match="group='tokens'"):
        GroupSparseMoreauGrad(model[1:], **settings).attribute(model[0](ids).detach(), target=1)


def test_labels_of_columns_group_a_table() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 16), nn.Tanh(), nn.Linear(16, 3)).eval()
    x, settings = torch.randn(2, 30), {"sigma": 0.0, "sparsity": 0.5}
    with pytest.raises(ValueError, match="columns of a table"):
        GroupSparseMoreauGrad(model, **settings).attribute(x, target=1)
    explainer = GroupSparseMoreauGrad(model, index=[0, 1] * 15, **settings)
    maps = explainer.attribute(x, target=1)
    zero = maps.reshape(2, 15, 2) == 0
    assert (zero.all(1) | ~zero.any(1)).all()
    assert zero.all(1).sum(1).tolist() == [1, 1]
    assert explainer.settings()["index"] == [0, 1] * 15
    # "blocks" is for signals without channels: neighbours belong together.
    runs = GroupSparseMoreauGrad(model, group=3, **settings).attribute(x, target=1)
    assert ((runs.reshape(2, 10, 3) == 0).all(2) | (runs.reshape(2, 10, 3) != 0).all(2)).all()

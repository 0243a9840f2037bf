import pytest
import torch

from moreaugrad.score.inputs import Layout, common, flat_mask, rank_from_top, spread

ONE = Layout(((3, 2),), (torch.float32,))
TWO = Layout(((3, 2), (4,)), (torch.float32,) * 2)
LIKE = torch.empty(2, 6)
POSITIONS = torch.tensor([[True, True, False], [False, True, True]])
ENTRIES = [[True] * 4 + [False] * 2, [False] * 2 + [True] * 4]


@pytest.mark.parametrize(
    "mask",
    [
        POSITIONS,
        POSITIONS.long(),
        POSITIONS.to(torch.uint8),
        POSITIONS[:, :, None],
        POSITIONS[:, :, None].expand(-1, -1, 2),
        (POSITIONS,),
        [POSITIONS],
    ],
)
def test_forms_of_a_mask(mask: object) -> None:
    assert flat_mask(mask, ONE, LIKE).tolist() == ENTRIES


def test_an_axis_of_one_stands_for_all_its_positions() -> None:
    columns = torch.tensor([[[True, False]], [[True, True]]])
    found = flat_mask(columns, ONE, LIKE)
    assert found.tolist() == [[True, False] * 3, [True] * 6]


def test_masks_of_several_inputs() -> None:
    found = flat_mask((POSITIONS, None), TWO, torch.empty(2, 10))
    assert found.tolist() == [row + [True] * 4 for row in ENTRIES]
    # One input may be missing from a sample; all of them may not.
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    assert flat_mask((nothing, None), TWO, torch.empty(2, 10)).sum(1).tolist() == [4, 4]
    with pytest.raises(ValueError, match=r"at least one real position .* sample\(s\) \[0, 1\]"):
        flat_mask((nothing, torch.zeros(2, 4, dtype=torch.bool)), TWO, torch.empty(2, 10))


@pytest.mark.parametrize(
    ("mask", "error", "words"),
    [
        (POSITIONS.float(), TypeError, r"True \(or 1\) at real positions.* torch.float32"),
        (2 * POSITIONS.long(), TypeError, "other values"),
        (POSITIONS.numpy(), TypeError, "boolean tensor, got ndarray"),
        ((POSITIONS, POSITIONS), ValueError, "one for each of the 1 inputs, got 2"),
        (POSITIONS[:1], ValueError, r"\(2, 3, 2\).* \(2, 3\); got \(1, 3\)"),
        (POSITIONS[0], ValueError, r"got \(3,\)"),
        (torch.ones(2, dtype=torch.bool), ValueError, r"got \(2,\)"),
        (torch.ones(2, 2, dtype=torch.bool), ValueError, r"got \(2, 2\)"),
        (torch.ones(2, 3, 3, dtype=torch.bool), ValueError, r"got \(2, 3, 3\)"),
        (torch.ones(1, 3, 2, dtype=torch.bool), ValueError, r"got \(1, 3, 2\)"),
        (POSITIONS & (torch.arange(2) == 0)[:, None], ValueError, r"none in sample\(s\) \[1\]"),
    ],
)
def test_bad_masks_are_refused(mask: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=rf"mask: expected .*{words}"):
        flat_mask(mask, ONE, LIKE)


def test_the_spread_is_that_of_real_entries() -> None:
    x = torch.tensor([[1.0, 5.0, 9.0], [2.0, 2.0, 2.0], [7.0, 8.0, 9.0]])
    real = torch.tensor([[True, True, False], [True, True, True], [False, False, False]])
    assert spread(x).tolist() == [8, 0, 2]
    assert spread(x, real).tolist() == [4, 0, 0]


def test_ranks_may_differ_between_rows() -> None:
    values = torch.tensor([[3.0, 1.0, 2.0, 2.0], [5.0, 8.0, 0.0, 0.0]])
    expected = values.sort(dim=1, descending=True).values
    for ranks in ([1, 1], [4, 4], [2, 3], [3, 1], [1, 4]):
        found = rank_from_top(values, common(torch.tensor(ranks)))
        assert found.tolist() == [float(expected[row, rank - 1]) for row, rank in enumerate(ranks)]

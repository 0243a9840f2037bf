"""Padding takes no part: a padded sample has the map of the same sample without padding."""

import inspect

import pytest
import torch
from torch import Tensor, nn

import moreaugrad as mg
from contracts.networks import (
    ONE_IMAGE,
    Embedded,
    Joint,
    Sentence,
    assert_same,
    cheap,
    columns,
    pictures,
)
from moreaugrad.explainers.base import Explainer

pytestmark = pytest.mark.filterwarnings("ignore::moreaugrad.ConvergenceWarning")
LENGTHS = (5, 3, 4)
FORMS = {
    "after": [[0, 1, 2, 3, 4], [0, 1, 2], [0, 1, 2, 3]],
    "before": [[2, 3, 4, 5, 6], [4, 5, 6], [3, 4, 5, 6]],
    "between": [[0, 1, 3, 4, 6], [0, 2, 5], [1, 2, 4, 6]],
}
"""The places of each sample's tokens in a padded row."""
WIDTHS = {"after": 15, "before": 7, "between": 7}


MODEL = Sentence()
TOKENS = torch.randint(0, 9, (3, 5), generator=torch.Generator().manual_seed(3))
TARGET = [1, 0, 2]


def padded(form: str) -> tuple[Tensor, Tensor]:
    """Ids `[3, L]`, with other tokens as padding, and their mask."""
    ids = torch.randint(0, 9, (3, WIDTHS[form]), generator=torch.Generator().manual_seed(9))
    mask = torch.zeros_like(ids, dtype=torch.bool)
    for row, places in enumerate(FORMS[form]):
        ids[row, places], mask[row, places] = TOKENS[row, : len(places)], True
    return ids, mask


def explainer(method: str) -> Explainer:
    return cheap(method, MODEL, layer="embedding")


def truncated(method: str, row: int) -> mg.Explanation:
    ids = TOKENS[row : row + 1, : LENGTHS[row]]
    mask = torch.ones_like(ids, dtype=torch.bool)
    return explainer(method).explain(ids, TARGET[row], mask)


def refused(method: str) -> None:
    if method in ONE_IMAGE:
        pytest.skip(f"{method} has no layer, and refuses a mask")


@pytest.mark.parametrize("form", FORMS)
def test_padding_does_not_change_a_map(method: str, form: str) -> None:
    refused(method)
    ids, mask = padded(form)
    found = explainer(method).explain(ids, TARGET, mask, mask=mask)
    assert torch.equal(found.maps == 0, (found.maps == 0) | ~mask[:, :, None])
    for row in range(3):
        alone = truncated(method, row)
        assert_same(found.maps[row, mask[row]], alone.maps[0])
        assert found.status[row] == alone.status[0]
        for name in ("error", "residual", "eta", "zeros", "evaluations"):
            torch.testing.assert_close(
                getattr(found, name)[row], getattr(alone, name)[0], equal_nan=True
            )
        if found.z_scores is not None:
            torch.testing.assert_close(
                found.z_scores[row, mask[row]], alone.z_scores[0], rtol=1e-4, atol=1e-5,
                equal_nan=True,
            )  # fmt: skip
            assert found.z_scores[row, ~mask[row]].isnan().all()
        for name, value in found.details.items():
            torch.testing.assert_close(value[row], alone.details[name][0], equal_nan=True)


def test_a_padded_batch_equals_its_samples(method: str) -> None:
    refused(method)
    ids, mask = padded("between")
    made = explainer(method)
    batch = made.attribute(ids, target=TARGET, additional_forward_args=mask, mask=mask)
    for row in range(3):
        at = slice(row, row + 1)
        alone = made.attribute(
            ids[at], target=TARGET[row], additional_forward_args=mask[at], mask=mask[at]
        )
        assert_same(alone, batch[at])


def test_a_mask_of_true_changes_nothing(method: str) -> None:
    refused(method)
    made, mask = explainer(method), torch.ones(3, 5, dtype=torch.bool)
    plain = made.explain(TOKENS, TARGET, mask)
    for given in (mask, mask.long(), mask[:, :, None], mask[:, :, None].expand(-1, -1, 6)):
        found = made.explain(TOKENS, TARGET, mask, mask=given)
        assert torch.equal(found.maps, plain.maps)
        assert torch.equal(found.zeros, plain.zeros)


def test_single_entries_can_be_masked(method: str) -> None:
    """Not whole positions: entries of an image and columns of a table, of several inputs."""
    if method in ONE_IMAGE:
        pytest.skip(f"{method} explains one input")
    x, table = pictures(2), columns(2)
    real = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.7
    made = cheap(method, Joint(), **({"group": 1} if "group" in method else {}))
    found = made.explain((x, table), 1, mask=(real, None))
    assert found.mask is not None
    assert (found.maps[0][~real] == 0).all()
    assert any((part != 0).any() for part in found.maps)
    assert torch.equal(found[1].mask[0], real[1:])
    # As a function of the real entries alone, by a model that holds the others.
    held = x[:1]

    class Held(Joint):
        def forward(self, entries: Tensor, table: Tensor) -> Tensor:
            whole = held.expand(len(entries), -1, -1, -1).clone()
            whole[:, real[0]] = entries
            return super().forward(whole, table)

    if "group" not in method:  # groups of one entry are other groups than those of 2 channels
        alone = cheap(method, Held()).explain((held[:, real[0]], table[:1]), 1)
        assert_same((found.maps[0][0][real[0]][None], found.maps[1][:1]), alone.maps)


@pytest.mark.parametrize("through", ["implicit", "straight-through", "stein", "unrolled"])
def test_derivatives_leave_padding_out(method: str, through: str) -> None:
    model = Embedded()
    made = cheap(method, model, **({"group": "tokens"} if "group" in method else {}))
    if through not in made.derivatives or (through == "stein" and "plain" in method):
        pytest.skip("has no such derivative")
    _, mask = padded("between")
    generator = torch.Generator().manual_seed(4)
    x, c = torch.randn(2, 3, 7, 6, generator=generator, dtype=torch.float64)
    found = made.explain(x, TARGET, mask, mask=mask)
    pulled = made.vjp(found, c, mask, through=through)
    assert (pulled[~mask] == 0).all()
    for row in range(3):
        real, ones = mask[row], torch.ones(1, LENGTHS[row], dtype=torch.bool)
        alone = made.explain(x[row : row + 1, real], TARGET[row], ones)
        expected = made.vjp(alone, c[row : row + 1, real], ones, through=through)
        torch.testing.assert_close(pulled[row, real], expected[0], rtol=1e-6, atol=1e-9)


def test_grad_cam_refuses_a_mask() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 2)).double()
    with pytest.raises(ValueError, match=r"mask: Grad-CAM .* use another method"):
        mg.GradCAM(model.eval()).attribute(
            pictures(2), target=1, mask=torch.ones(2, 1, 6, 6, dtype=torch.bool)
        )


def test_every_way_in_takes_a_mask(method: str) -> None:
    made = cheap(method, MODEL) if method not in ONE_IMAGE else cheap(method, nn.Linear(2, 2))
    for call in (made.attribute, made.explain, made.bind):
        assert "mask" in inspect.signature(call).parameters

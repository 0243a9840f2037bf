"""A target that is a function of the output: each method explains its number, or says no."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

import moreaugrad as mg
from contracts.networks import (
    LOG_PROBABILITY,
    Picture,
    Segmentation,
    Wrapped,
    assert_same,
    cheap,
    pictures,
)

pytestmark = pytest.mark.filterwarnings("ignore::moreaugrad.ConvergenceWarning")


def second(output: Tensor) -> Tensor:
    return output[:, 2]


def of_logit(name: str) -> dict[str, Any]:
    """Settings with which the method explains a number of its own, no probability."""
    if name in LOG_PROBABILITY:
        pytest.skip(f"{name} explains probabilities alone")
    return {"score": "logit"}


def test_the_function_that_reads_a_class_has_the_map_of_the_class(row_name: str) -> None:
    explainer, x = cheap(row_name, Picture(), **of_logit(row_name)), pictures()
    expected, found = explainer.explain(x, 2), explainer.explain(x, second)
    assert_same(found.maps, expected.maps)
    torch.testing.assert_close(found.score, expected.score)
    assert found.status == expected.status
    torch.testing.assert_close(found.error, expected.error, equal_nan=True, rtol=1e-5, atol=1e-9)
    assert torch.equal(found.evaluations, expected.evaluations)


def test_a_method_of_probabilities_says_that_it_needs_classes(method: str) -> None:
    explainer = cheap(method, Picture())
    if explainer.score == "logit":
        explainer = cheap(method, Picture(), score="probability")
    with pytest.raises(ValueError, match=r"score: .* no .*probability.*function"):
        explainer.explain(pictures(), second)


class Dense(torch.nn.Module):
    """A segmentation in the form of torchvision's."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Segmentation()

    def forward(self, x: Tensor) -> Mapping[str, Tensor]:
        found = self.model(x)
        return OrderedDict(out=found, aux=found.exp())


@pytest.mark.parametrize("batch_size", [None, 2])
def test_samples_have_their_own_masks(method: str, batch_size: int | None) -> None:
    settings = of_logit(method) | {"batch_size": batch_size}
    explainer, x = cheap(method, Dense().eval(), **settings), pictures(3)
    mask = torch.zeros(3, 4, 4, dtype=torch.bool)
    mask[0, :2], mask[1, 1:3, 2:], mask[2, 3, 0] = True, True, True
    label = torch.tensor([0, 2, 1])
    maps = explainer.attribute(x, target=mg.targets.Region(label, mask))
    for i in range(3):
        own = mg.targets.Region(int(label[i]), mask[i])
        assert_same(maps[i : i + 1], explainer.attribute(x[i : i + 1], target=own))
    # A single position is a target in Captum's form too.
    plain = cheap(method, Segmentation(), **settings).attribute(x[2:], target=(1, 3, 0))
    assert_same(maps[2:], plain)


def test_what_a_model_returns_beside_tensors(method: str) -> None:
    model = Wrapped(Picture(), lambda z: {"boxes": [z], "none": None}).eval()
    x, settings = pictures(3), of_logit(method)
    found = cheap(method, model, **settings).explain(x, lambda out: out["boxes"][0][:, 1])
    assert_same(found.maps, cheap(method, Picture(), **settings).explain(x, 1).maps)


def test_derivatives_of_the_map(method: str) -> None:
    explainer, x = cheap(method, Picture(), **of_logit(method)), pictures(2)
    if not explainer.derivatives:
        pytest.skip(f"{method} has no derivative")
    found, expected = (explainer.vjp(explainer.explain(x, t), x.cos()) for t in (second, 2))
    assert_same(found, expected, 1e-6)


def test_the_gauss_newton_matrix_needs_classes() -> None:
    explainer = mg.CASO(Picture(), score="logit", hessian="gauss-newton")
    with pytest.raises(ValueError, match=r"hessian: expected 'exact'.*function"):
        explainer.explain(pictures(), second)

"""The derivative of every method's map, by each way that the method has."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor, nn

from contracts.networks import Picture, assert_same, cheap, default_score, pictures
from contracts.test_surroundings import state, uneven
from moreaugrad import METHODS
from moreaugrad.explainers.base import Explainer

pytestmark = pytest.mark.filterwarnings("ignore::moreaugrad.ConvergenceWarning")
NEEDS_NOISE = {"stein"}
TIMES_INPUT = {"gradient-x-input", "integrated-gradients", "expected-gradients"}
"""Maps that move with the input itself."""


def made(method: str, model: nn.Module, **settings: object) -> Explainer:
    # A logit's Hessian would not do: this network is linear in some directions of it.
    own = default_score(method)
    return cheap(
        method, model, **({"score": "log-probability" if own == "logit" else own} | settings)
    )


def ways(explainer: Explainer) -> Iterator[str]:
    plain = explainer.settings().get("sigma", 0.0) == 0
    return (way for way in explainer.derivatives if not (plain and way in NEEDS_NOISE))


def cotangent(like: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like.dtype)


def test_it_is_shaped_like_the_input_and_leaves_nothing_behind(
    method: str, untouched_generators: Callable[[], AbstractContextManager[None]]
) -> None:
    for dtype in (torch.float32, torch.float64):
        model, x = uneven().to(dtype), pictures(3, dtype)
        explainer = made(method, model)
        explanation = explainer.explain(x, target=1)
        before = state(model)
        for way in ways(explainer):
            with untouched_generators(), torch.no_grad():
                found = explainer.vjp(explanation, cotangent(x), through=way)
            assert isinstance(found, Tensor)
            assert (found.shape, found.dtype, found.requires_grad) == (x.shape, dtype, False)
            assert bool(torch.isfinite(found).all()), way
            assert bool(found.any()), way
            assert state(model) == before


def test_a_batch_gives_what_its_samples_give_alone(method: str) -> None:
    x, ids = pictures(3), [5, 0, 2]
    explainer = made(method, Picture())
    together = explainer.explain(x, target=1, ids=ids)
    for way in ways(explainer):
        expected = explainer.vjp(together, cotangent(x), through=way, ids=ids)
        for row in (0, 2):
            found = explainer.vjp(
                together[row], cotangent(x)[row : row + 1], through=way, ids=ids[row : row + 1]
            )
            assert_same(found, expected[row : row + 1])


def test_the_first_way_is_the_default_one(method: str) -> None:
    x = pictures(2)
    explainer = made(method, Picture())
    explanation = explainer.explain(x, target=1)
    given = list(ways(explainer))
    if not given:
        with pytest.raises(ValueError, match="through: expected one of none"):
            explainer.vjp(explanation, cotangent(x))
        return
    first = explainer.vjp(explanation, cotangent(x), through=given[0])
    assert_same(explainer.vjp(explanation, cotangent(x)), first, 0.0)


class Kinked(Picture):
    """Its logits are piecewise linear."""

    def __init__(self) -> None:
        super().__init__()
        self.body[1], self.activation = nn.ReLU(), nn.LeakyReLU()


def test_logits_of_a_relu_network_have_none_but_by_stein(method: str) -> None:
    if method in TIMES_INPUT or METHODS[method].load().derivatives == ():
        pytest.skip("has no such derivative")
    x = pictures(2)
    explainer = made(method, Kinked(), score="logit")
    explanation = explainer.explain(x, target=1)
    assert bool(explanation.maps.any())
    for way in ways(explainer):
        found = explainer.vjp(explanation, cotangent(x), through=way)
        assert bool(found.any()) == (way in NEEDS_NOISE), way

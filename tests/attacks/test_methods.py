"""Every method of the registry under attack, by each of its derivatives."""

import sys

import pytest
import torch
from torch import Tensor

from contracts.networks import Picture, Rising, cheap, default_score, pictures
from moreaugrad import METHODS
from moreaugrad.attacks import AttackStatus, RandomSearch, TopKAttack
from moreaugrad.explainers.base import Explainer
from moreaugrad.score.bound_score import BoundScore

pytestmark = pytest.mark.filterwarnings("ignore::moreaugrad.ConvergenceWarning")
RAN = {AttackStatus.IMPROVED, AttackStatus.HELD}


def of(method: str) -> Explainer:
    # Smooth scores whose second derivatives are not constant in any direction.
    own = default_score(method)
    return cheap(method, Picture(), score="log-probability" if own == "logit" else own)


@pytest.mark.parametrize("method", METHODS)
def test_top_k_runs_or_says_what_to_give(method: str) -> None:
    explainer, x = of(method), pictures(2)
    if not explainer.derivatives:
        with pytest.raises(ValueError, match=rf"{explainer.method}.*source="):
            TopKAttack(explainer, epsilon=0.5)
        source = of("simple-gradient")
        found = TopKAttack(explainer, epsilon=0.5, steps=2, source=source).attack(x)
        assert set(found.status) <= RAN
    for through in explainer.derivatives:
        if through == "stein" and method.endswith("-plain"):
            with pytest.raises(ValueError, match="noise"):
                TopKAttack(explainer, epsilon=0.5, through=through).attack(x)
            continue
        found = TopKAttack(explainer, epsilon=0.5, steps=2, draws=2, through=through).attack(x)
        assert set(found.status) <= RAN, through
        assert found.settings["through"] == through
        assert bool((found.distance <= 0.5 + 1e-9).all())
        assert torch.equal(found.attacked.prediction, found.clean.prediction)


@pytest.mark.parametrize("method", METHODS)
def test_random_search_runs(method: str) -> None:
    model, x = Picture(), pictures(2)
    explainer = of(method)
    if method == "relex":  # whose mask needs something to gain
        model, x = Rising(), pictures(2)[:, :1, :4, :4]
        explainer = cheap(method, model)
    found = RandomSearch(explainer, epsilon=0.5, steps=3, draws=4).attack(x)
    assert set(found.status) <= RAN


@pytest.mark.parametrize("method", ["sparse-moreaugrad", "group-sparse-moreaugrad-plain", "caso"])
def test_a_batch_of_solved_maps_gives_what_its_samples_give_alone(method: str) -> None:
    attack = TopKAttack(of(method), epsilon=0.5, steps=3)
    x, ids = pictures(3), [4, 1, 7]
    together = attack.attack(x, ids=ids)
    for row in range(3):
        alone = attack.attack(x[row : row + 1], ids=ids[row : row + 1])
        assert alone.status == together.status[row : row + 1]
        assert torch.allclose(alone.inputs, together.inputs[row : row + 1], rtol=0, atol=1e-7)


def test_steps_keep_what_was_chosen_at_the_clean_input(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Tensor] = []

    def best_rho(bound: BoundScore, seed: int) -> Tensor:
        asked.append(bound.origin)
        return torch.full_like(bound.origin[:, 0], 0.5 if len(asked) == 1 else 1e-9)

    monkeypatch.setattr(sys.modules["moreaugrad.explainers.guidance"], "best_rho", best_rho)
    explainer, x = cheap("sparse-moreaugrad", Picture(), rho="auto"), pictures(2)
    clean = explainer.explain(x)
    found = TopKAttack(explainer, epsilon=0.5, steps=2, draws=4).attack(x, clean=clean)
    # Once for the clean map, once for the attacked one: the whole method, at another input.
    assert [torch.equal(points, x.flatten(1)) for points in asked] == [True, False]
    assert clean.details["rho"].tolist() == [0.5, 0.5]
    assert found.attacked.details["rho"].tolist() == [1e-9, 1e-9]
    fixed = cheap("sparse-moreaugrad", Picture(), rho=0.5)
    same = TopKAttack(fixed, epsilon=0.5, steps=2, draws=4).attack(x, clean=fixed.explain(x))
    assert torch.equal(same.inputs, found.inputs)


def test_steps_do_not_follow_the_noise_of_steins_identity() -> None:
    explainer, x = of("sparsified-smoothgrad"), pictures(2)
    assert explainer.derivatives[0] == "stein"
    usual = TopKAttack(explainer, epsilon=0.5, steps=2, draws=4).attack(x)
    same = TopKAttack(explainer, epsilon=0.5, steps=2, draws=4, through="implicit").attack(x)
    assert usual.settings["through"] == "implicit"
    assert torch.equal(usual.inputs, same.inputs)
    only = METHODS.build("sparsified-smoothgrad", Picture(), variant="sparsified", samples=4)
    assert "through" not in TopKAttack(only, epsilon=0.5, steps=2).attack(x).settings

"""Gradient attacks: known optima, true gradients, and nothing that passes in silence."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from moreaugrad import SimpleGradient, SmoothGrad, SparseMoreauGrad
from moreaugrad.attacks import (
    AttackStatus,
    MassCentreAttack,
    TargetRegionAttack,
    TopKAttack,
)
from moreaugrad.attacks.problem import AttackedBatch, Ball
from moreaugrad.attacks.search import Iterate
from moreaugrad.score.inputs import InputSpace
from toys import network, normal

IMPROVED, HELD = AttackStatus.IMPROVED, AttackStatus.HELD
CURVES = torch.tensor([1.0, 2.0], dtype=torch.float64)


def bowl(x: Tensor) -> Tensor:
    """A single logit sum a_i x_i^2 / 2, whose gradient's entries are a_i x_i."""
    return (CURVES * x.square()).sum(1) / 2


def smooth(seed: int = 0, classes: int = 3) -> nn.Sequential:
    """Of twelve entries, curved enough that maps move."""
    return network((12, 20, 20, classes), nn.Softplus, seed=seed, gain=2.0)


def pictures(batch: int = 4) -> Tensor:
    return normal(batch, 1, 3, 4, seed=3)


def on_images(seed: int = 0) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), smooth(seed)).eval()


# Where the optimum is known: the direction of x turns by asin(epsilon / ||x||) at most.


@pytest.mark.parametrize("epsilon", [0.1, 0.5])
def test_the_best_turn_of_a_bowl(epsilon: float) -> None:
    x = torch.tensor([[2.0, 0.5], [0.3, 1.2]], dtype=torch.float64)
    found = TopKAttack(SimpleGradient(bowl), epsilon=epsilon).attack(x)
    assert found.status == (IMPROVED, IMPROVED)
    turn = [math.asin(epsilon / length) for length in x.norm(dim=1).tolist()]
    # K is the first entry of the first sample, and the second one of the second.
    first = math.tan(math.atan2(2.0, 0.5) - turn[0])
    second = 2 * math.tan(math.atan2(1.2, 0.3) - turn[1])
    expected = [first / (first + 2), second / (second + 1)]
    assert found.after.tolist() == pytest.approx(expected, rel=1e-4)
    assert found.distance.tolist() == pytest.approx([epsilon] * 2, rel=1e-2)


def test_the_best_corner_of_a_bowl() -> None:
    x = torch.tensor([[2.0, 0.5]], dtype=torch.float64)
    found = TopKAttack(SimpleGradient(bowl), epsilon=0.3, norm="linf").attack(x)
    assert found.inputs[0].tolist() == pytest.approx([1.7, 0.8], rel=1e-6)
    assert found.after.item() == pytest.approx(1.7 / (1.7 + 1.6))


def test_the_box_and_pixel_units_count() -> None:
    space = InputSpace(mean=0.5, std=0.25)  # inputs in [-2, 2]
    x = torch.tensor([[1.9, 0.5]], dtype=torch.float64)
    attack = TopKAttack(SimpleGradient(bowl), epsilon=0.1, norm="linf", units="pixel", space=space)
    found = attack.attack(x)  # a pixel is four units of the input
    assert found.inputs[0].tolist() == pytest.approx([1.5, 0.9], rel=1e-6)
    assert found.distance.item() == pytest.approx(0.1)
    tight = replace(attack, epsilon=0.5, space=InputSpace(mean=0.5, std=0.25, low=0.6, high=1.0))
    assert tight.attack(x).inputs[0].tolist() == pytest.approx([0.4, 2.0], rel=1e-6)


# The gradient that steps follow.


@pytest.mark.parametrize(
    "explainer",
    [
        SimpleGradient(smooth()),
        SmoothGrad(smooth(), sigma=0.3, samples=8),
        SparseMoreauGrad(smooth(), rho=0.05, sigma=0.0, eta=0.05, tolerance=1e-10),
    ],
    ids=lambda e: e.method,
)
@pytest.mark.parametrize("units", ["input", "pixel"])
def test_steps_follow_the_derivative_of_the_objective(explainer: object, units: str) -> None:
    space = InputSpace(mean=0.5, std=(0.1,), low=-9, high=9)
    attack = TopKAttack(explainer, epsilon=1.0, units=units, space=space)
    x = normal(2, 12, seed=3)
    bound = explainer.bind(x)
    maps = explainer.explain(x).maps
    batch = AttackedBatch(
        bound=bound,
        ball=Ball.around(bound, 1.0, "l2", units, space),
        clean=maps,
        goal=attack._goal(maps, bound),
        label=bound.prediction,
        seed=0,
    )
    # In an attack the solve is rough; here it must be exact for finite differences.
    clean = Iterate.clean(batch, explainer, attack._through(explainer))
    here = clean.moved(batch.ball.at(0.1 * normal(2, 12, seed=4)))
    gradient, useless, _ = here.gradient()
    assert useless == [None, None]
    along, h = normal(2, 12, seed=5), 1e-5
    sides = [
        here.moved(batch.ball.at(batch.ball.displacement(here.x) + s * h * along)) for s in (1, -1)
    ]
    change = (sides[0].value - sides[1].value) / (2 * h)
    assert (gradient * along).sum(1).tolist() == pytest.approx(change.tolist(), rel=1e-3)


# What is judged.


@pytest.mark.parametrize("attack", [TopKAttack, MassCentreAttack, TargetRegionAttack])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_attacks_improve_within_their_budget(attack: type, norm: str) -> None:
    explainer = SimpleGradient(on_images())
    x = pictures()
    epsilon = 0.6 if norm == "l2" else 0.2
    found = attack(explainer, epsilon=epsilon, norm=norm, steps=20).attack(x)
    assert found.ok
    assert found.problems() == []
    assert set(found.status) == {IMPROVED}
    assert bool((found.after < found.before).all())
    assert bool((found.distance <= epsilon * (1 + 1e-9)).all())
    assert found.objective.shape == (4, 21)
    # The best that the search saw is what the judge finds at the end.
    seen = found.objective.nan_to_num(nan=math.inf).amin(1)
    assert seen.tolist() == pytest.approx(found.after.tolist())
    explained = explainer.explain(x)
    assert torch.equal(found.clean.maps, explained.maps)
    again = explainer.explain(found.inputs, explained.target)
    assert torch.equal(found.attacked.maps, again.maps)
    assert torch.equal(found.attacked.prediction, explained.prediction)


def test_the_last_iterate_is_judged_too() -> None:
    found = TopKAttack(SimpleGradient(bowl), epsilon=0.2, steps=1, start="input").attack(
        torch.tensor([[2.0, 0.5]], dtype=torch.float64)
    )
    assert found.status == (IMPROVED,)
    assert found.objective[0, 1] == found.after[0]


def test_the_class_stays() -> None:
    model, x = smooth(seed=5), normal(8, 12, seed=1)
    x = x / 3
    free = TopKAttack(SimpleGradient(lambda x: model(x)[:, :1], task="regression"), epsilon=2.0)
    loose = model(free.attack(x, target=0).inputs).argmax(1)
    clean = model(x).argmax(1)
    assert not torch.equal(loose, clean)  # without the condition some would change
    found = TopKAttack(SimpleGradient(model), epsilon=2.0).attack(x)
    assert torch.equal(model(found.inputs).argmax(1), clean)
    assert torch.equal(found.attacked.prediction, clean)
    assert bool(found.feasible.all())
    assert found.ok


def test_another_target_is_judged_by_the_clean_prediction() -> None:
    model, x = smooth(), normal(4, 12, seed=3)
    other = (model(x).argmax(1) + 1) % 3
    found = TopKAttack(SimpleGradient(model), epsilon=0.5).attack(x, other)
    assert set(found.status) == {IMPROVED}
    assert torch.equal(found.attacked.prediction, model(x).argmax(1))
    assert torch.equal(found.attacked.target, other)


def cliff(x: Tensor) -> Tensor:
    """Class 0 at the origin alone; its map is (1, 2, 3) there."""
    score = (
        (x * torch.tensor([1.0, 2.0, 3.0], dtype=x.dtype)).sum(1)
        + x.pow(3).sum(1)
        + x[:, 0] * x[:, 1]
    )
    return torch.stack((score, score - 1e-12 + 1e9 * x.square().sum(1)), dim=1)


@pytest.mark.parametrize("start", ["input", "sphere"])
def test_a_class_that_changes_at_once_is_reported(start: str) -> None:
    x = torch.zeros(1, 3, dtype=torch.float64)
    found = TopKAttack(SimpleGradient(cliff), epsilon=0.5, start=start).attack(x)
    assert found.status == (AttackStatus.NO_FEASIBLE_STEP,)
    assert not found.ok
    assert torch.equal(found.inputs, x)
    assert "another predicted class" in found.problems()[0]


def test_relu_logits_have_no_gradient() -> None:
    model, x = network((12, 20, 20, 3), nn.ReLU), normal(3, 12, seed=3)
    found = TopKAttack(SimpleGradient(model), epsilon=0.5).attack(x)
    assert set(found.status) == {AttackStatus.NO_GRADIENT}
    assert "softplus" in found.problems()[0]
    assert torch.equal(found.inputs, x)
    # A random start may be better by itself, and is then the result; otherwise x is returned.
    found = TopKAttack(SimpleGradient(model), epsilon=0.5, start="sphere").attack(x)
    assert set(found.status) == {AttackStatus.NO_GRADIENT, IMPROVED}
    for row, status in enumerate(found.status):
        better = status is IMPROVED
        assert bool(found.after[row] < found.before[row]) == better
        assert torch.equal(found.inputs[row], x[row]) != better
    # The log-probability of the same network is curved.
    attack = TopKAttack(SimpleGradient(model, score="log-probability"), epsilon=0.5)
    assert attack.attack(x).ok


def test_a_smooth_source_attacks_a_relu_network() -> None:
    model, x = network((12, 20, 20, 3), nn.ReLU), normal(3, 12, seed=3)
    twin = nn.Sequential(
        *[nn.Softplus(beta=5) if isinstance(m, nn.ReLU) else m for m in model]
    ).eval()
    explainer, source = SimpleGradient(model), SimpleGradient(twin)
    found = TopKAttack(explainer, epsilon=0.5, source=source).attack(x)
    assert set(found.status) <= {IMPROVED, HELD}
    assert IMPROVED in found.status
    seen = found.objective.nan_to_num(nan=math.inf).amin(1)
    assert seen.tolist() == pytest.approx(found.after.tolist())
    assert bool((found.after <= found.before).all())
    assert torch.equal(
        found.attacked.maps, explainer.explain(found.inputs, found.clean.target).maps
    )
    # A transfer that does not ask may be worse at the attacked one, not at its source.
    blind = TopKAttack(explainer, epsilon=0.5, source=source, measured=False).attack(x)
    assert bool((blind.after >= found.after - 1e-12).any())
    assert blind.settings["source"]["method"] == "simple-gradient"


def test_k_of_the_whole_support_is_refused() -> None:
    explainer, x = SimpleGradient(smooth(), keep=0.25), normal(2, 12, seed=3)
    assert bool(((explainer.explain(x).maps != 0).sum(1) == 3).all())
    found = TopKAttack(explainer, epsilon=0.5, count=3).attack(x)
    assert found.status == (AttackStatus.FLAT_OBJECTIVE,) * 2
    assert "ratio" in found.problems()[0]
    assert TopKAttack(explainer, epsilon=0.5, count=2).attack(x).ok
    assert TopKAttack(explainer, epsilon=0.5).attack(x).ok


def half_flat(x: Tensor) -> Tensor:
    """A single logit with a zero map where x_0 < 0."""
    return (x[:, 0] > 0).to(x.dtype) * bowl(x) + 1


def test_a_zero_map_is_reported_and_leaves_the_others_alone() -> None:
    x = torch.tensor([[-1.0, 2.0], [1.0, 2.0]], dtype=torch.float64)
    found = TopKAttack(SimpleGradient(half_flat), epsilon=0.2).attack(x)
    assert found.status == (AttackStatus.ZERO_MAP, IMPROVED)
    assert torch.equal(found.inputs[0], x[0])
    assert found.before[0].isnan()


def test_a_map_that_is_not_finite_is_reported() -> None:
    def broken(x: Tensor) -> Tensor:
        # Finite, with an infinite slope at 0.
        return x[:, 0].abs().sqrt() + bowl(x) + 1

    x = torch.tensor([[0.0, 2.0], [1.0, 2.0]], dtype=torch.float64)
    found = TopKAttack(SimpleGradient(broken), epsilon=0.2).attack(x)
    assert found.status == (AttackStatus.NON_FINITE, IMPROVED)


def test_a_budget_of_zero_leaves_the_inputs() -> None:
    x = normal(2, 12, seed=3)
    found = TopKAttack(SimpleGradient(smooth()), epsilon=0.0).attack(x)
    assert found.status == (AttackStatus.NO_BUDGET,) * 2
    assert torch.equal(found.inputs, x)
    assert torch.equal(found.attacked.maps, found.clean.maps)
    assert found.distance.tolist() == [0, 0]
    assert found.after.tolist() == found.before.tolist()


def test_more_runs_are_never_worse() -> None:
    explainer, x = SimpleGradient(smooth()), normal(4, 12, seed=3)
    one, three = (
        TopKAttack(explainer, epsilon=2.0, steps=5, restarts=runs).attack(x) for runs in (1, 3)
    )
    assert bool((three.after <= one.after).all())
    assert bool((three.after < one.after).any())
    assert bool((three.evaluations > 2 * one.evaluations).all())
    least = three.objective.amin(1)
    assert least.tolist() == pytest.approx(three.after.tolist())

"""The released attack against a re-implementation from its description, and its traps shown."""

import math

import pytest
import torch
from torch import Tensor, nn

from moreaugrad import SimpleGradient, SparseMoreauGrad
from moreaugrad.attacks import AttackStatus, PublishedTopKAttack, TopKAttack
from toys import network, normal


def smooth(seed: int = 0) -> nn.Sequential:
    return network((12, 20, 20, 3), nn.Softplus, seed=seed, gain=2.0)


def as_released(
    model: nn.Module, x: Tensor, label: int, epsilon: float, steps: int = 10
) -> tuple[Tensor, float]:
    """One sample `[1, n]` of the simple gradient, `steps` sign steps of epsilon / 100 per entry."""

    def shares(at: Tensor, graph: bool) -> Tensor:
        (gradient,) = torch.autograd.grad(model(at)[0, target], at, create_graph=graph)
        return gradient.abs()[0] / gradient.abs().sum()

    target = int(model(x).argmax())
    k = int(0.4 * x.numel())
    largest = shares(x.clone().requires_grad_(), False).topk(k).indices
    at, best, least = x.clone(), x.clone(), math.inf
    for _ in range(steps):
        at = at.detach().requires_grad_()
        share = shares(at, True)[largest].sum()
        if int(model(at).argmax()) == label and float(share.detach()) < least:
            best, least = at.detach().clone(), float(share.detach())
        (slope,) = torch.autograd.grad(share, at)
        shift = at.detach() - epsilon / 100 * slope.sign() - x
        length = float(shift.norm())
        at = x + (shift if length <= epsilon else shift * epsilon / length)
    return best, least


@pytest.mark.parametrize("epsilon", [0.5, 4.0])
def test_it_is_the_released_attack(epsilon: float) -> None:
    model, x = smooth(), normal(4, 12, seed=3)
    found = PublishedTopKAttack(SimpleGradient(model), epsilon=epsilon).attack(x)
    for row in range(4):
        label = int(model(x[row : row + 1]).argmax())
        best, least = as_released(model, x[row : row + 1], label, epsilon)
        assert torch.allclose(found.inputs[row], best[0], rtol=0, atol=1e-10)
        assert found.after[row].item() == pytest.approx(least, rel=1e-9)


def test_a_label_that_is_not_predicted_makes_a_map_look_robust() -> None:
    model, x = smooth(), normal(4, 12, seed=3)
    predicted = model(x).argmax(1)
    labels = torch.where(torch.arange(4) % 2 == 0, predicted, (predicted + 1) % 3)
    explainer = SimpleGradient(model)
    found = PublishedTopKAttack(explainer, epsilon=0.5, labels=labels).attack(x)
    unmoved = (found.inputs == x).all(1)
    assert unmoved.tolist() == [False, True, False, True]
    assert found.status[1] is AttackStatus.NO_FEASIBLE_STEP
    assert found.status[0] is AttackStatus.IMPROVED
    # By the clean prediction the same samples are attacked like all others.
    free = PublishedTopKAttack(explainer, epsilon=0.5).attack(x)
    assert not bool((free.inputs == x).all(1).any())
    with pytest.raises(
        ValueError, match=r"labels: expected 4, one for each sample, got shape \(3,\)"
    ):
        PublishedTopKAttack(explainer, epsilon=0.5, labels=labels[:3]).attack(x)


def test_k_of_all_entries_says_nothing_of_a_sparse_map() -> None:
    model, x = smooth(), normal(4, 12, seed=3)
    sparse = SimpleGradient(model, keep=0.25)  # three entries, fewer than k = 4
    published = PublishedTopKAttack(sparse, epsilon=0.5).attack(x)
    assert set(published.status) == {AttackStatus.FLAT_OBJECTIVE}
    assert not published.ok
    assert published.before.tolist() == [1.0] * 4
    assert TopKAttack(sparse, epsilon=0.5).attack(x).ok


def test_the_last_iterate_is_left_out() -> None:
    model, x = smooth(), normal(2, 12, seed=3)
    found = PublishedTopKAttack(SimpleGradient(model), epsilon=0.5, steps=1).attack(x)
    assert torch.equal(found.inputs, x)
    assert found.status == (AttackStatus.HELD,) * 2
    assert found.objective.shape == (2, 1)


def test_moreau_maps_are_replaced_by_the_gradient_at_their_displacement() -> None:
    model, x = smooth(), normal(3, 12, seed=3)
    explainer = SparseMoreauGrad(model, rho=0.1, sigma=0.0, eta=0.1, tolerance=1e-9)
    found = PublishedTopKAttack(explainer, epsilon=0.5, steps=2, ratio=0.2).attack(x)
    maps = found.clean.maps
    at = (x - 0.1 * maps).requires_grad_()
    target = found.clean.target
    (gradient,) = torch.autograd.grad(model(at).gather(1, target[:, None]).sum(), at)
    seen = gradient.abs() * (maps != 0)
    assert bool(((maps != 0).sum(1) > 2).all())
    first = seen.topk(2, dim=1).values.sum(1) / seen.sum(1)
    # Up to the tolerance of an attack's solves.
    assert found.objective[:, 0].tolist() == pytest.approx(first.tolist(), rel=1e-3)
    # Which is not the share of the map itself: its entries are smaller by the threshold.
    assert bool(((first - found.before).abs() > 0.01).all())


def test_a_step_lands_on_the_sphere_whatever_its_size() -> None:
    model = network((400, 8, 3), nn.Softplus, gain=2.0)
    x = normal(2, 400, seed=1)
    found = PublishedTopKAttack(SimpleGradient(model), epsilon=0.1, step=0.1, steps=2).attack(x)
    assert found.distance.tolist() == pytest.approx([0.1, 0.1], rel=1e-6)


def test_a_sample_of_another_class_is_not_changed_where_a_step_reaches_its_label() -> None:
    model, x = smooth(), normal(400, 12, seed=3)
    outputs, classes = model(x).topk(2, dim=1)
    near = (outputs[:, 0] - outputs[:, 1]).argsort()[:20]
    x, labels = x[near], classes[near, 1]
    found = PublishedTopKAttack(SimpleGradient(model), epsilon=4.0, labels=labels).attack(x)
    assert set(found.status) == {AttackStatus.NO_FEASIBLE_STEP}
    assert torch.equal(found.inputs, x)

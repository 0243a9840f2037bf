"""Iterative and momentum perturbations: the published updates, literally; other starts; ends."""

import warnings
from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from moreaugrad.penalties import L1, ElasticNet, GroupL2, Penalty, SquaredL2
from moreaugrad.training import (
    ConditionalGradient,
    Fast,
    Free,
    Iterative,
    Momentum,
    NormalisedAscent,
    OvershootWarning,
    ProjectedMaximiser,
    PublishedHarmonisation,
    cross_entropy,
)
from moreaugrad.training.harmonisation import GuidedPenalty
from toys import normal

Y = torch.tensor([0, 1, 2, 3, 1])


@pytest.fixture
def x() -> Tensor:
    return normal(5, 3, 8, 8, seed=3)


@pytest.fixture
def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 4)
        )
    return net.double().eval()


def gradient(model: nn.Module, x: Tensor) -> Tensor:
    """Of every sample's own loss, one sample at a time."""
    rows = []
    for i in range(len(x)):
        leaf = x[i : i + 1].clone().requires_grad_()
        nn.functional.cross_entropy(model(leaf), Y[i : i + 1]).backward()
        rows.append(leaf.grad)
    model.zero_grad()
    return torch.cat(rows)


def lengths(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1)[:, None, None, None]


def released_l1(model: nn.Module, x: Tensor, epsilon: float) -> Tensor:
    adv = x.clone()
    for _ in range(7):
        adv = adv + 0.3 * epsilon * gradient(model, adv).sign()
        adv = x + (adv - x).clamp(-epsilon, epsilon)
    return adv


def released_groups(model: nn.Module, x: Tensor, epsilon: float, size: int) -> Tensor:
    """Each channel of a patch is a group of its own."""
    delta = torch.zeros_like(x)
    count = x.shape[2] // size
    for _ in range(7):
        g = gradient(model, x + delta)
        delta = delta + g / lengths(g)
        patches = delta.reshape(len(x), 3, count, size, count, size)
        norms = patches.square().sum((3, 5), keepdim=True).sqrt()
        delta = torch.where(norms > epsilon, patches * (epsilon / norms), patches).reshape(x.shape)
    return x + delta


def released_elastic_net(model: nn.Module, x: Tensor, l1: float, l2: float) -> Tensor:
    delta = torch.zeros_like(x)
    for _ in range(7):
        excess = (delta.abs() - l1).clamp_min(0)
        u = gradient(model, x + delta) - delta.sign() * excess / (2 * l2)
        delta = delta + 0.3 * u / lengths(u)
    return x + delta


def test_published_updates_are_the_released_ones(model: nn.Module, x: Tensor) -> None:
    found = Iterative.published(L1(0.05))(model, x, Y)
    assert torch.allclose(found, released_l1(model, x, 0.05), atol=1e-12)
    penalty = GroupL2(0.4, size=4, channels="separate")
    found = Iterative.published(penalty)(model, x, Y)
    assert torch.allclose(found, released_groups(model, x, 0.4, 4), atol=1e-12)
    found = Iterative.published(ElasticNet(0.01, 0.05))(model, x, Y)
    assert torch.allclose(found, released_elastic_net(model, x, 0.01, 0.05), atol=1e-12)
    assert float((found - x).flatten(1).norm(dim=1).max()) <= 2.1 + 1e-9
    with pytest.raises(ValueError, match="no update was published"):
        Iterative.published(SquaredL2(0.1))


def test_the_text_starts_at_the_one_step_answer(model: nn.Module, x: Tensor) -> None:
    text = Iterative.published(L1(0.05), start="maximiser", steps=1)
    one = Fast(L1(0.05))(model, x, Y)
    step = (one - x + 0.3 * 0.05 * gradient(model, one).sign()).clamp(-0.05, 0.05)
    assert torch.allclose(text(model, x, Y), x + step, atol=1e-12)


def test_momentum_is_the_published_one(model: nn.Module, x: Tensor) -> None:
    """With steps so long that the gradient's length changes: each counts alike."""
    delta, velocity, sizes = torch.zeros_like(x), torch.zeros_like(x), []
    for _ in range(10):
        g = gradient(model, x + delta)
        sizes.append(g.abs().sum((1, 2, 3), keepdim=True))
        velocity = 0.9 * velocity + g / sizes[-1]
        delta = (delta + 0.1 * velocity.sign()).clamp(-1, 1)
    assert float((sizes[0] / sizes[-1] - 1).abs().max()) > 0.2
    found = Momentum(L1(1.0), decay=0.9)(model, x, Y)
    assert torch.allclose(found, x + delta, atol=1e-12)


def test_momentum_without_memory_averages_maximisers(model: nn.Module, x: Tensor) -> None:
    """A penalty with a scale sees the gradient's own."""
    penalty = ElasticNet(0.01, 0.05)
    delta = torch.zeros_like(x)
    for _ in range(3):
        delta = delta + penalty.maximiser(gradient(model, x + delta)) / 3
    found = Momentum(penalty, steps=3, decay=0.0)(model, x, Y)
    assert torch.allclose(found, x + delta, atol=1e-12)


@pytest.mark.parametrize(
    "penalty", [L1(0.05), GroupL2(0.3, size=4), ElasticNet(0.01, 0.05), SquaredL2(0.05)]
)
def test_conditional_gradient_closes_the_gap(model, x: Tensor, penalty: Penalty) -> None:
    """At its fixed point delta is the maximiser of the gradient there, and beats one step."""
    long = Iterative(penalty, steps=60).perturb(model, x, Y)
    short = Iterative(penalty, steps=1).perturb(model, x, Y)
    g = gradient(model, long.x)
    gap = penalty.value(g) + long.h - (g * long.delta).flatten(1).sum(1)
    assert bool((gap < 0.02 * penalty.value(g)).all())
    assert bool((long.gap >= -1e-9).all())
    one = Fast(penalty).perturb(model, x, Y)
    reached = [cross_entropy(model(p.x), Y).detach() - p.h for p in (one, short, long)]
    assert float(reached[2].mean()) >= float(reached[0].mean()) - 1e-4
    assert bool(torch.isfinite(torch.stack(reached)).all())


def test_a_batch_equals_its_samples(model: nn.Module, x: Tensor) -> None:
    model.train()
    for adversary in (Iterative(ElasticNet(0.01, 0.05)), Momentum(GroupL2(0.3, size=4))):
        together = adversary(model, x, Y)
        alone = [adversary(model, x[i : i + 1], Y[i : i + 1]) for i in range(len(x))]
        assert torch.allclose(together, torch.cat(alone), atol=1e-12)


def test_random_starts_are_keyed_and_uniform(model: nn.Module, untouched_generators) -> None:
    x = normal(2, 3, 64, 64, seed=0)

    def flat(x: Tensor) -> Tensor:  # no gradient moves the start
        return 0 * x.flatten(1)[:, :4]

    def start(seed: int, ids: list[int]) -> Tensor:
        rule = Iterative.random_fast(L1(0.1), seed=seed)
        return rule(flat, x, Y[:2], ids=ids) - x

    with untouched_generators():
        drawn = start(0, [3, 8])
    assert torch.equal(drawn, start(0, [3, 8]))
    assert torch.allclose(drawn.flip(0), start(0, [8, 3]))
    assert not torch.allclose(drawn, start(1, [3, 8]))
    shares = drawn.flatten().sort().values
    expected = torch.linspace(-0.1, 0.1, len(shares), dtype=shares.dtype)
    assert float((shares - expected).abs().max()) < 0.003
    again = Iterative.random_fast(L1(0.1))
    first, second = again(flat, x, Y[:2]), again(flat, x, Y[:2])
    assert not torch.allclose(first, second)
    resumed = Iterative.random_fast(L1(0.1))
    resumed.load_state_dict(resumed.state_dict() | {"calls": torch.tensor(1)})
    assert torch.equal(resumed(flat, x, Y[:2]), second)
    inside = Iterative(GroupL2(0.3, size=8), start="random", update=ProjectedMaximiser())
    found = inside.perturb(
        model := nn.Sequential(nn.Flatten(), nn.Linear(12288, 4)).double(), x, Y[:2]
    )
    assert model.training
    assert bool((found.h == 0).all())
    with pytest.raises(ValueError, match="ball of a norm"):
        Iterative(SquaredL2(0.1), start="random")


def test_too_long_for_the_curvature_is_reported_once() -> None:
    x = normal(4, 6, seed=1)
    slope = normal(4, 6, seed=2)

    def concave(output: Tensor, y: Tensor) -> Tensor:
        return (slope * output - 30 * output.square()).sum(1)

    rule = Fast(ElasticNet(0.1, 2.0))

    def train() -> None:
        for _ in range(120):
            rule(nn.Identity(), x, Y[:4], loss=concave)

    with pytest.warns(OvershootWarning, match="4 of 4 samples") as warned:
        train()
    assert len(warned) == 1
    assert (rule.tally.checked, rule.tally.overshot) == (8, 8)
    resumed = Fast(ElasticNet(0.1, 2.0))
    resumed.load_state_dict(rule.state_dict())
    assert asdict(resumed.tally) == asdict(rule.tally)
    short = Fast(ElasticNet(0.001, 0.001))
    for _ in range(20):
        short(nn.Identity(), x, Y[:4], loss=concave)
    assert (short.tally.checked, short.tally.overshot) == (4, 0)


@pytest.mark.parametrize(
    "rule",
    [
        Fast(PublishedHarmonisation(1e-3)),
        Momentum(ElasticNet(0.01, 0.0), steps=10),
        Momentum(ElasticNet(0.1, 0.0), steps=3),
    ],
    ids=str,
)
def test_what_is_not_too_long_is_not_reported(rule: Any, model: nn.Module, x: Tensor) -> None:
    """Without an h, or with entries that rounding takes past the penalty's bound."""
    given = {"attention": x[:, :1].sigmoid()} if isinstance(rule.penalty, GuidedPenalty) else {}
    with warnings.catch_warnings():
        warnings.simplefilter("error", OvershootWarning)
        for _ in range(12):
            found = rule.perturb(model, x, Y[: len(x)], **given)
    assert rule.tally.overshot == 0
    assert bool(found.h.isfinite().all()) == (not given)


def test_free_training_reports_it_too() -> None:
    x, slope = normal(4, 6, seed=1), normal(4, 6, seed=2)

    def concave(output: Tensor, y: Tensor) -> Tensor:
        return (slope * output - 30 * output.square()).sum(1)

    def train(free: Free) -> None:
        for _ in range(12):
            for r in free.rounds(nn.Identity(), x, Y[:4], loss=concave):
                r.loss.sum().backward()

    with pytest.warns(OvershootWarning, match="4 of 4 samples"):
        train(long := Free(ElasticNet(0.1, 2.0)))
    assert (long.tally.checked, long.tally.overshot) == (4, 4)
    train(short := Free(ElasticNet(0.001, 0.001)))
    assert (short.tally.checked, short.tally.overshot) == (4, 0)


def test_bad_settings_are_reported(model: nn.Module, x: Tensor) -> None:
    with pytest.raises(ValueError, match="steps: expected an integer >= 1"):
        Iterative(L1(0.1), steps=0)
    with pytest.raises(ValueError, match=r"fraction in \(0, 1\]"):
        Iterative(L1(0.1), step=1.5, update=ConditionalGradient())
    with pytest.raises(ValueError, match="start"):
        Iterative(L1(0.1), start="one")
    for penalty in (L1(0.1), ElasticNet(0.1, 0.0)):
        with pytest.raises(ValueError, match="conjugate is finite and smooth"):
            Iterative(penalty, update=NormalisedAscent())(model, x, Y)

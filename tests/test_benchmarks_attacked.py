"""Attacks on certificates: who wins is counted right, and attacks find what is known."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from benchmarks import attacked
from benchmarks.__main__ import PARTS
from benchmarks.attacked_overlap import most_overlap, moved, overlap, pooled
from benchmarks.attacked_pixels import (
    METHODS,
    OWN,
    STEIN,
    Pixels,
    _aimed,
    _descent,
    _slope,
    failure,
    for_class,
    proven,
)
from benchmarks.subjects import Subject
from scipy import stats
from torch import Tensor, nn

import moreaugrad as mg
from moreaugrad.explainers.sparsified import Moments
from toys import normal

ndtr = torch.special.ndtr


def uniform(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def test_no_values_within_the_bounds_have_a_larger_overlap() -> None:
    entries, count = 6, 3
    lower = uniform(40, entries, seed=1)
    upper = lower + 0.3 * uniform(40, entries, seed=2)
    inside = torch.tensor([True] * count + [False] * (entries - count)).expand(40, -1)
    most = most_overlap(inside, lower, upper, count)
    assert 0.2 < most.mean() < 1
    reached = torch.zeros_like(most)
    for seed in range(500):
        # Extreme values on one side for many of the tries, so that the largest is found.
        at = uniform(40, entries, seed=10 + seed) ** 8
        values = torch.where(inside, upper - at * (upper - lower), lower + at * (upper - lower))
        found = overlap(inside, values, count)
        assert (found <= most).all()
        reached = torch.maximum(reached, found)
    assert torch.equal(reached, most)


def test_equal_values_count_for_the_overlap_that_may_be() -> None:
    inside = torch.tensor([[False, False, True, True]])
    same = torch.full((1, 4), 0.5)
    assert most_overlap(inside, same, same, 2).tolist() == [1]
    assert overlap(inside, same, 2).tolist() == [0]  # the first ones win


@pytest.mark.parametrize("radius", [1e-4, 0.001, 0.05, 2.0])
def test_no_attacked_input_is_outside_of_its_radius(radius: float) -> None:
    for seed in range(20):
        x, move = 3 * normal(1, 3, 16, 16, seed=seed).float(), normal(1, 3, 16, 16, seed=50 + seed)
        length = float((moved(x, move, radius).double() - x.double()).norm())
        assert 0.99 * radius < length <= radius
    assert torch.equal(moved(x, 0 * move, radius), x)


def test_blocks_are_pooled_as_if_they_were_one() -> None:
    draws = uniform(4, 1, 25, 6, seed=3)
    blocks = [
        Moments(mean=d.mean(1), square=d.square().mean(1), samples=25, binary=False) for d in draws
    ]
    every = draws.transpose(0, 1).reshape(1, 100, 6)
    found = pooled(blocks)
    assert found.samples == 100
    torch.testing.assert_close(found.mean, every.mean(1))
    torch.testing.assert_close(found.variance, every.var(1))


def test_a_violation_is_proven_by_the_exact_binomial_test() -> None:
    samples = 256
    fractions = torch.arange(samples + 1).double() / samples
    exact = stats.binom.cdf(range(samples + 1), samples, 0.5) < failure()
    assert proven(fractions, samples).tolist() == exact.tolist()
    assert 60 < int(exact.sum()) < 110  # of 128


def test_failed_maps_vote_for_neither_class() -> None:
    votes = torch.tensor([[[3, 9]]])
    found = mg.certificates.certify_pixels(
        mg.SimpleGradient(Squares(), task="regression"), torch.ones(1, 1, 1, 2), 0, samples=12,
        threshold=0.5, confidence=0.01, top=0.5,
    )  # fmt: skip
    found = replace(found, votes=votes, failed=torch.tensor([2]))
    assert for_class(found, torch.tensor([[[True, False]]])).tolist() == [[[3 / 12, 1 / 12]]]


PIECE = {
    # Two images, one of which leaves less than is certified at the second radius.
    "certified": torch.tensor([[[0.9, 0.5], [0.4, 0.1]], [[0.8, 0.4], [0.3, 0.2]]]),
    "kept": torch.tensor([[0.95, 0.45], [0.9, 0.5]]),
    "possible": torch.tensor([[1.0, 0.55], [1.0, 0.6]]),
    "alike": torch.tensor([[[0.9, 0.8], [0.05, 0.3]], [[0.9, 0.9], [0.3, 0.3]]]),
}


def test_certificates_that_are_beaten_are_counted() -> None:
    def counts(piece: dict[str, Tensor]) -> list[object]:
        return [row[-3:] for row in attacked.overlaps(piece, (0.0, 0.1)).rows]

    assert counts(PIECE) == [[2, 0, 0], [2, 1, 0], [4, 0, 0], [4, 1, 1]]
    broken = PIECE | {"possible": torch.tensor([[1.0, 0.49], [1.0, 0.6]])}
    assert counts(broken)[1] == [2, 1, 1]


def test_estimates_and_constants_that_are_beaten_are_counted() -> None:
    one = torch.tensor([[0.5], [0.7], [0.9]])
    piece = {"states": one - 0.1, "were exact": one + 0.1, "found": one, "apart": one,
             "apart states": torch.tensor([[0.4], [0.8], [1.0]])}  # fmt: skip
    (row,) = attacked.stated({"m": piece}, (0.1,)).rows
    assert (row[5], row[6], row[9], row[10]) == (0, 3, 1, 3)
    table = attacked.slopes(torch.tensor([[3.0, 1], [5, 0]]), torch.tensor([4.0, 9.0]))
    assert [row[3] for row in table.rows] == [0, 1]


class Squares(nn.Module):
    """|x|^2 / 2, whose gradient is x: a pixel votes where its magnitude is the larger one."""

    def forward(self, x: Tensor) -> Tensor:
        return x.square().flatten(1).sum(1, keepdim=True) / 2


def important(x: Tensor, sigma: float) -> Tensor:
    """P(|x_0 + z_0| > |x_1 + z_1|), z ~ N(0, sigma^2 I)."""
    u, v = ((x[0] + s * x[1]) / (math.sqrt(2) * sigma) for s in (1, -1))
    return ndtr(u) * ndtr(v) + ndtr(-u) * ndtr(-v)


@pytest.mark.parametrize("steps", [OWN, STEIN])
def test_attacks_on_votes_go_where_the_exact_vote_changes_fastest(steps: str) -> None:
    plan = Pixels(sigma=0.3, top=0.5, points=400, votes=4000, softness=0.2, steps=4)
    network = Squares()
    some: Any = None  # only a transfer needs the subject's network
    subject: Subject = some
    scale = torch.tensor([0.5])[:, None, None]
    pixels = torch.tensor([0.5, 0.25])
    slope = _slope(
        subject, plan, mg.SimpleGradient(network, task="regression"), steps, torch.tensor([0]), [7],
        scale,
    )  # fmt: skip
    at = pixels.double().requires_grad_()
    # The pixels of the network are 0.5 times its inputs, and so is its noise.
    (exact,) = torch.autograd.grad(important(at, plan.sigma), at)
    weights = torch.tensor([[1.0, 0.0]])
    found = slope((pixels / 0.5).reshape(1, 1, 1, 2), weights).flatten().double()
    assert float(torch.cosine_similarity(found, exact, dim=0)) > 0.95
    if steps == STEIN:
        torch.testing.assert_close(found, exact, atol=0.15, rtol=0.1)
    for length, stays in ((0.1, True), (0.25, False)):
        shift = _descent(slope, pixels.reshape(1, 1, 1, 2), scale, weights, length, plan.steps)
        there = pixels.double() + shift.flatten()
        assert float(shift.norm()) <= length * (1 + 1e-9)
        assert bool(important(there, plan.sigma) > 0.5) is stays


def test_aims_are_the_certified_pixels_with_the_closest_votes() -> None:
    vote = torch.tensor([[[True, False, True, False]]])
    certified = torch.tensor([[[True, True, True, False]]])
    fractions = torch.tensor([[[0.9, 0.8, 0.95, 0.5]]])
    assert _aimed(vote, certified, fractions, 1).flatten().tolist() == [0, -1, 0, 0]
    assert _aimed(vote, certified, fractions, 2).flatten().tolist() == [1, -1, 0, 0]
    assert _aimed(vote, certified, fractions, 0).flatten().tolist() == [1, -1, 1, 0]


def test_the_part_is_known_and_every_method_is_one() -> None:
    assert "attacked-certificates" in PARTS
    for name, row in METHODS.items():
        mg.build(name, nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten()), **row.settings)

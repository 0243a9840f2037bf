"""Certificates of pixels against closed forms, slow re-implementations, attacks and coverage."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

import moreaugrad as mg
from moreaugrad.certificates import PixelCertificate, certify_pixels, holm, vote_radii
from moreaugrad.certificates.pixels import FIRST
from moreaugrad.certificates.votes import _certain
from moreaugrad.explainers import METHODS
from moreaugrad.explainers.base import Explainer
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.solvers import Solution
from tiny_models import smooth
from toys import network, normal

ndtr, ndtri = torch.special.ndtr, torch.special.ndtri


class Sum(nn.Module):
    """A model for explainers that do not look at it."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).sum(1, keepdim=True)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class HalfSpaces(Explainer):
    """A_i = 1 where normals_i'x + offsets_i > 0, else 0: each vote's probability is known."""

    normals: Any = None
    offsets: Any = None
    seen: list[Tensor] = field(default_factory=list)

    method: ClassVar[str] = "half-spaces"

    def _maps(self, bound: BoundScore) -> Solution:
        self.seen.append(bound.origin)
        maps = (bound.origin @ self.normals.T + self.offsets > 0).to(bound.origin)
        return Solution.direct(maps, evaluations=1)


def half_spaces(normals: Tensor, offsets: Tensor) -> HalfSpaces:
    return HalfSpaces(Sum(), task="regression", normals=normals, offsets=offsets)


# Votes

TAU = 0.75
BELOW = 1e-6
"""By which a level is below the threshold that has the most wrong claims."""
LEVELS = torch.tensor([0.75, 0.749, 0.25, 0.5, 0.5, 0.6, 0.76, 0.9, 0.03, 0.999]).double()


def drawn(levels: Tensor, samples: int, trials: int, seed: int) -> Tensor:
    """Numbers of votes `[trials, N]`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.binomial(
        torch.full((trials, len(levels)), float(samples), dtype=torch.float64),
        levels.expand(trials, -1), generator=generator,
    ).long()  # fmt: skip


def wrong(vote: Tensor, radius: Tensor, levels: Tensor, sigma: float) -> Tensor:
    """Trials in which some claim is false `[trials]`."""
    own = torch.where(vote, levels, 1 - levels)
    return (radius > sigma * ndtri(own).clamp_min(0) + 1e-12).any(1)


@pytest.mark.parametrize("threshold", [0.5, 0.6, TAU])
@pytest.mark.parametrize("samples", [15, 80])
def test_radii_hold_together_as_often_as_they_say(threshold: float, samples: int) -> None:
    levels = torch.cat((LEVELS, torch.full((20,), threshold - BELOW).double()))
    votes = drawn(levels, samples, 4000, seed=samples)
    vote, radius = vote_radii(
        votes, samples - votes, samples, sigma=0.5, threshold=threshold, confidence=0.8
    )
    rate = wrong(vote, radius, levels, 0.5).double().mean()
    assert rate <= 0.2 + 4 * math.sqrt(0.2 * 0.8 / 4000)
    assert (radius > 0).any()


def test_a_miscounted_failure_would_be_seen() -> None:
    """All but a few pixels are clear, so that Holm's tests use all of their half."""
    levels = torch.cat((torch.full((5,), TAU - BELOW), torch.full((45,), 0.9999)))
    votes = drawn(levels.double(), 60, 4000, seed=2)
    rates = []
    for confidence in (0.8, 0.2):
        vote, radius = vote_radii(
            votes, 60 - votes, 60, sigma=1.0, threshold=TAU, confidence=confidence
        )
        rates.append(wrong(vote, radius, levels.double(), 1.0).double().mean())
    assert rates[0] <= 0.2
    assert rates[1] > 0.2


def literal(votes: list[int], samples: int, threshold: float, failure: float) -> list[bool]:
    """Holm's tests of the class with more votes, without the room for the other class."""
    level = [
        stats.binom.sf(max(v, samples - v) - 1, samples, threshold)
        + stats.binom.sf(max(v, samples - v) - 1, samples, 1 - threshold)
        for v in votes
    ]
    return slow_holm(level, failure)


def slow_holm(p: list[float], failure: float) -> list[bool]:
    rejected = [False] * len(p)
    left = set(range(len(p)))
    while left:
        least = min(left, key=lambda i: (p[i], i))
        if p[least] > failure / len(left):
            break
        rejected[least] = True
        left.remove(least)
    return rejected


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.sampled_from([0.0, 1e-3, 0.004, 0.01, 0.012, 0.02, 0.05, 0.3, 1.0]), min_size=1),
    st.floats(0.001, 0.3),
)
def test_holm_is_its_definition(p: list[float], failure: float) -> None:
    found = holm(torch.tensor([p, p[::-1]], dtype=torch.float64), failure)
    # k p <= level and p <= level / k round differently.
    near = any(abs(k * v - failure) < 1e-12 for v in p for k in range(1, len(p) + 1))
    assert near or found[0].tolist() == slow_holm(p, failure)
    assert near or found[1].tolist() == slow_holm(p[::-1], failure)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.sampled_from([0.6, 0.75, 0.9]))
def test_tests_at_the_threshold_are_holms(votes: list[int], threshold: float) -> None:
    count = torch.tensor([[max(v, 40 - v) for v in votes]])
    found = _certain(count, 40, threshold, 0.05)
    assert found[0].tolist() == literal(votes, 40, threshold, 0.05)


def test_a_test_never_claims_more_than_its_failure_when_classes_can_be_exchanged() -> None:
    """At 1/2 both classes reach the threshold: Holm's half then claims nothing."""
    count = torch.full((1, 30), 40)
    assert not _certain(count, 40, 0.5, 0.05).any()
    assert _certain(count, 40, 0.55, 0.05).all()


def test_radii_without_a_correction_are_clopper_pearson() -> None:
    votes = torch.tensor([[0, 3, 10, 18, 20]])
    vote, radius = vote_radii(votes, 20 - votes, 20, sigma=2.0, threshold=0.999, confidence=0.9)
    assert vote.tolist() == [[False, False, False, True, True]]
    for count, found in zip([20, 17, 10, 18, 20], radius[0].tolist(), strict=True):
        # A quarter of the failure for each side, over five pixels.
        low = stats.binomtest(count, 20).proportion_ci(1 - 0.1 / 2 / 5, method="exact").low
        assert found == pytest.approx(2 * max(0.0, stats.norm.ppf(low)), abs=1e-9)


def test_a_vote_for_neither_class_is_none() -> None:
    votes, against = torch.tensor([[50, 0, 28]]), torch.tensor([[10, 32, 32]])
    vote, radius = vote_radii(votes, against, 60, sigma=1.0, threshold=0.5, confidence=0.9)
    assert vote.tolist() == [[True, False, False]]
    assert (radius[0] > 0).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"threshold": 0.4}, "threshold: expected a fraction in"),
        ({"threshold": 1.0}, "threshold: expected"),
        ({"confidence": 1.0}, "confidence: expected"),
        ({"samples": 0}, "samples: expected at least 1"),
    ],
)
def test_bad_settings_of_votes(bad: dict[str, Any], words: str) -> None:
    votes = torch.ones(1, 2, dtype=torch.long)
    with pytest.raises(ValueError, match=words):
        vote_radii(votes, votes, **({"samples": 2, "sigma": 1.0} | bad))


# Half-spaces, whose votes have known probabilities

SIGMA = 0.4
NORMALS = normal(12, 12, seed=21)
NORMALS = NORMALS / NORMALS.norm(dim=1, keepdim=True)
OFFSETS = torch.linspace(-1, 1, 12, dtype=torch.float64)
START = torch.zeros(1, 12, dtype=torch.float64)


def test_coverage_of_whole_certificates() -> None:
    """One batch of the same input under ids of their own is as many independent certificates."""
    x = SIGMA * ndtri(torch.tensor([[0.75, 0.3, 0.6, 0, 0]], dtype=torch.float64).clamp_min(0.5))
    x[0, 1] = SIGMA * ndtri(torch.tensor(0.3, dtype=torch.float64))
    x = x.expand(300, -1)
    explainer = half_spaces(torch.eye(5, dtype=torch.float64), torch.zeros(5).double())
    found = certify_pixels(
        explainer, x, 0, sigma=SIGMA, samples=40, top=1.0, confidence=0.7, ids=range(300)
    )
    levels = ndtr(x[0] / SIGMA)
    rate = wrong(found.vote, found.radius, levels, SIGMA).double().mean()
    assert rate <= 0.3 + 4 * math.sqrt(0.3 * 0.7 / 300)
    spread = found.votes.double()
    torch.testing.assert_close(spread.mean(0), 40 * levels, atol=0.5, rtol=0)
    torch.testing.assert_close(spread.var(0), 40 * levels * (1 - levels), atol=1.5, rtol=0)


def probabilities(points: Tensor) -> Tensor:
    return ndtr((points @ NORMALS.T + OFFSETS) / SIGMA)


def test_no_attack_within_the_radius_changes_the_exact_vote() -> None:
    found = certify_pixels(
        half_spaces(NORMALS, OFFSETS), START, 0, sigma=SIGMA, samples=400, top=1.0
    )
    at = probabilities(START)[0] > 0.5
    certain = found.radius[0] > 0
    assert certain.sum() >= 6
    assert torch.equal(found.vote[0][certain], at[certain])
    random = normal(3000, 12, seed=22)
    random = random / random.norm(dim=1, keepdim=True)
    for pixel in certain.nonzero()[:, 0].tolist():
        radius = float(found.radius[0, pixel])
        # The steepest direction of this vote, which is the best attack, and random ones.
        steepest = NORMALS[pixel] * (-1 if at[pixel] else 1)
        points = torch.cat((random, steepest[None])) * radius * 0.999999
        assert bool(((probabilities(points)[:, pixel] > 0.5) == at[pixel]).all())
        far = steepest[None] * (abs(float(OFFSETS[pixel])) * 1.01)
        assert bool((probabilities(far)[0, pixel] > 0.5) != at[pixel]), "the attack is too weak"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Quadrants(Explainer):
    """A = (1, 0) where x_0 x_1 > 0, else (0, 1): votes that are no half-spaces."""

    method: ClassVar[str] = "quadrants"

    def _maps(self, bound: BoundScore) -> Solution:
        same = bound.origin.prod(1) > 0
        maps = torch.stack((same, ~same), 1).to(bound.origin)
        return Solution.direct(maps, evaluations=1)


@pytest.mark.parametrize("start", [(0.5, 0.4), (0.3, -0.6), (0.05, 0.6)])
def test_votes_of_quadrants_by_a_grid_of_attacks(start: tuple[float, float]) -> None:
    x = torch.tensor([start], dtype=torch.float64)
    found = certify_pixels(
        Quadrants(Sum(), task="regression"), x, 0, sigma=0.3, samples=300, confidence=0.95
    )
    angle = torch.linspace(0, 2 * math.pi, 721, dtype=torch.float64)
    radius = float(found.radius.amax()) * 0.999999
    length = torch.linspace(0, radius, 40, dtype=torch.float64)[:, None]
    u, v = ((x[0, i] + length * f(angle)) / 0.3 for i, f in enumerate((torch.cos, torch.sin)))
    same = ndtr(u) * ndtr(v) + ndtr(-u) * ndtr(-v)
    if radius > 0:
        assert bool(((same > 0.5) == found.vote[0, 0]).all())
    assert (radius > 0) == (start != (0.05, 0.6))


# Whole certificates of methods


class Images(nn.Module):
    """Three classes of images of 3 x 4 x 5."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = network((60, 8, 3), seed=5)

    def forward(self, x: Tensor, offset: Tensor | None = None) -> Tensor:
        found: Tensor = self.layers((x if offset is None else x + offset).flatten(1))
        return found


IMAGES = normal(3, 3, 4, 5, seed=6)
FEW: dict[str, Any] = {"sigma": 0.5, "samples": 30, "top": 0.25, "confidence": 0.9}


def methods() -> list[Explainer]:
    model = Images().eval()
    return [
        mg.SimpleGradient(model),
        mg.SmoothGrad(model, samples=4),
        mg.SimpleGradient(model, keep=0.05),
        mg.MoreauGrad(model, max_evaluations=64, sigma=0.1),
        mg.SparseMoreauGrad(model, max_evaluations=64, sigma=0.1),
    ]


CASES = [
    *((explainer, "abs-sum") for explainer in methods()),
    *((methods()[0], reduction) for reduction in ("sum", "max-abs", "none")),
]


@pytest.mark.parametrize(("explainer", "reduction"), CASES)
def test_votes_are_those_of_single_maps(explainer: Explainer, reduction: str) -> None:
    target, ids = [2, 0], [7, 3]
    few = FEW | {"samples": 20, "confidence": 0.1}
    found = certify_pixels(
        explainer, IMAGES[:2], target, ids=ids, seed=4, reduction=reduction, **few
    )
    for row, key in enumerate(ids):
        votes = torch.zeros(found.votes.shape[1:], dtype=torch.long)
        for draw in range(20):
            noise = mg.Noise(4, antithetic=False).normal(key, FIRST + draw, 60)
            x = IMAGES[row] + 0.5 * noise.view(3, 4, 5)
            each = explainer.explain(x[None], target[row], ids=[key]).maps[0]
            values = {
                "abs-sum": lambda a: a.abs().sum(0), "sum": lambda a: a.sum(0),
                "max-abs": lambda a: a.abs().amax(0), "none": lambda a: a.abs(),
            }[reduction](each)  # fmt: skip
            order = sorted(range(values.numel()), key=lambda i: -float(values.flatten()[i]))
            count = values.numel() // 4
            for place in order[:count]:
                votes.view(-1)[place] += bool(values.flatten()[place] > 0)
        assert torch.equal(found.votes[row], votes)
    assert found.target.tolist() == target
    assert found.top == found.votes[0].numel() // 4


SMALL = {"max_evaluations": 64, "samples": 4, "steps": 8, "std": [0.25] * 3}


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_is_one_function_of_the_noisy_input(name: str) -> None:
    """A vote is that of the map computed alone, whatever noise the method has of its own."""
    row, model = METHODS[name], smooth().module
    known = set(row.defaults()) - set(row.settings)
    explainer = mg.build(name, model, **{k: v for k, v in SMALL.items() if k in known})
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    few = {"sigma": 0.3, "samples": 12, "threshold": 0.5, "confidence": 0.1}
    found = certify_pixels(explainer, x, 1, ids=[5], **few)
    votes = torch.zeros(16, 16, dtype=torch.long)
    for draw in range(12):
        z = mg.Noise(0, antithetic=False).normal(5, FIRST + draw, x.numel())
        values = explainer.explain(x + 0.3 * z.view_as(x), 1, ids=[5]).parts[0][0].abs().sum(0)
        chosen = values.flatten().topk(25).indices
        votes.view(-1)[chosen] += (values.flatten()[chosen] > 0).long()
    # Rounding may exchange pixels at the border of the largest.
    assert float((found.votes[0] != votes).double().mean()) < 0.02
    assert not int(found.failed)
    assert int(found.evaluations) > 0
    parts = torch.stack((found.important, found.unimportant, found.abstained))
    assert bool((parts.sum(0) == 1).all())


def fields_of(found: PixelCertificate) -> list[Tensor]:
    return [found.vote, found.radius, found.votes, found.failed, found.short, found.evaluations]


@pytest.mark.parametrize("size", [None, 1, 7])
def test_a_batch_is_its_samples(size: int | None) -> None:
    explainer = mg.SmoothGrad(Images().eval(), samples=2, batch_size=size)
    offset = normal(3, 3, 4, 5, seed=8)
    found = certify_pixels(explainer, IMAGES, None, offset, ids=[5, 1, 9], **FEW)
    for row, key in enumerate([5, 1, 9]):
        part = slice(row, row + 1)
        alone = certify_pixels(explainer, IMAGES[part], None, offset[part], ids=[key], **FEW)
        for one, every in zip(fields_of(alone), fields_of(found), strict=True):
            assert torch.equal(one, every[part])
    assert not torch.equal(found.votes[0], found.votes[1])


def test_ids_seeds_and_shared_arguments() -> None:
    explainer = mg.SimpleGradient(Images().eval())
    shared = normal(3, 4, 5, seed=9)
    x = IMAGES[:1].expand(30, -1, -1, -1)
    same = certify_pixels(explainer, x, 0, shared, **FEW)
    assert torch.equal(same.votes[0], same.votes[-1])
    other = certify_pixels(explainer, x, 0, shared, ids=range(30), **FEW)
    assert torch.equal(other.votes[0], same.votes[0])  # without ids all have the key 0
    assert not torch.equal(other.votes[1], same.votes[1])
    seeded = certify_pixels(explainer, x[:1], 0, shared, seed=1, **FEW)
    assert not torch.equal(seeded.votes[0], same.votes[0])


def test_the_noise_is_not_that_of_the_method() -> None:
    explainer = half_spaces(NORMALS, OFFSETS)
    certify_pixels(explainer, START, 0, sigma=0.5, samples=60, confidence=0.9)
    used = torch.cat(explainer.seen) / 0.5
    own = torch.cat([mg.Noise(0).normals([0], k, START) for k in range(100)])
    assert len(used) == 60
    assert float(torch.cdist(used, own).amin()) > 1e-3
    assert abs(float(used.std()) - 1) < 0.15
    assert float(used.abs().amax()) > 2  # not clipped to the range of the input


def test_what_it_finds_and_its_words() -> None:
    explainer = half_spaces(torch.eye(4, dtype=torch.float64), torch.zeros(4).double())
    x = torch.tensor([[2.0, -2, 0.01, 0.3]], dtype=torch.float64)
    found = certify_pixels(explainer, x, 0, sigma=0.15, top=1.0)
    assert found.important.tolist() == [[True, False, False, True]]
    assert found.unimportant.tolist() == [[False, True, False, False]]
    assert found.abstained.tolist() == [[False, False, True, False]]
    assert found.within == pytest.approx(0.101, abs=2e-4)  # the paper's radius of 0.10
    assert found.fraction([0.0, 0.1, 9.0]).tolist() == [[0.75, 0.75, 0]]
    assert found.fraction([0.1], vote=True).tolist() == [[0.5]]
    assert found.fraction([0.1], vote=False).tolist() == [[0.25]]
    assert found.evaluations.tolist() == [100]
    for words in ("half-spaces", "class explained at x", "0.999", "all pixels", "network's input"):
        assert words in found.statement
    function = certify_pixels(
        explainer, x, lambda out: out[:, 0], sigma=0.15, top=1.0, samples=np.int64(100)
    )
    assert "function explained at x" in function.statement
    assert torch.equal(function.important, found.important)


def test_top_keeps_the_largest_and_no_zeros() -> None:
    x = torch.tensor([[5.0, 4, 0, 3]], dtype=torch.float64)

    @dataclass(frozen=True, kw_only=True, eq=False, repr=False)
    class Fixed(Explainer):
        method: ClassVar[str] = "fixed"

        def _maps(self, bound: BoundScore) -> Solution:
            return Solution.direct(x.expand(len(bound), -1).clone(), evaluations=1)

    for top, votes in ((0.5, [20, 20, 0, 0]), (1.0, [20, 20, 0, 20])):
        found = certify_pixels(
            Fixed(Sum(), task="regression"), x, 0, top=top, samples=20, confidence=0.9
        )
        assert found.votes.tolist() == [votes]


def test_maps_that_fail_vote_for_neither_class() -> None:
    @dataclass(frozen=True, kw_only=True, eq=False, repr=False)
    class Broken(Explainer):
        method: ClassVar[str] = "broken"

        def _maps(self, bound: BoundScore) -> Solution:
            maps = torch.where(bound.origin[:, :1] > 0, torch.inf, bound.origin.abs())
            return Solution.direct(maps, evaluations=1)

    x = torch.tensor([[0.0, 9, 0.01], [-9.0, 9, 0.01]], dtype=torch.float64)
    found = certify_pixels(
        Broken(Sum(), task="regression"), x, 0, sigma=0.5, samples=60, top=0.5, confidence=0.9
    )
    assert 15 < int(found.failed[0]) < 45
    assert torch.equal(found.short, found.failed)
    assert not found.radius[0].any()
    assert int(found.votes[0].sum()) == 60 - int(found.failed[0])
    assert int(found.failed[1]) == 0
    assert bool(found.radius[1].any())


class Cliff(nn.Module):
    """Not finite where the first entry is positive."""

    def forward(self, x: Tensor) -> Tensor:
        found = x[:, 1:2] * x[:, 2:3]
        return torch.where(x[:, :1] > 0, torch.nan, found)


def test_inputs_at_which_the_network_is_not_finite_count_as_failed() -> None:
    x = torch.tensor([[-0.1, 3.0, 1.0]], dtype=torch.float64)
    explainer = mg.SimpleGradient(Cliff(), task="regression")
    found = certify_pixels(
        explainer, x, 0, sigma=0.4, samples=60, top=0.34, threshold=0.5, confidence=0.9
    )
    noise = [mg.Noise(0, False).normal(0, FIRST + k, 3)[0] for k in range(60)]
    assert int(found.failed) == sum(float(z) * 0.4 > 0.1 for z in noise) > 10
    assert int(found.votes[0, 2]) == 60 - int(found.failed)


def test_units_of_pixels() -> None:
    model = Images().eval()
    space = mg.InputSpace(mean=0.3, std=0.25)
    pixels = IMAGES * 0.1 + 0.5
    inner = mg.SimpleGradient(model)
    found = certify_pixels(inner, (pixels - 0.3) / 0.25, space=space, **FEW)
    whole = mg.SimpleGradient(lambda x: model((x - 0.3) / 0.25))
    expected = certify_pixels(whole, pixels, **FEW)
    assert torch.equal(found.votes, expected.votes)
    assert torch.equal(found.radius, expected.radius)
    assert "pixels before" in found.statement
    with pytest.raises(ValueError, match="std: expected a number, or 3"):
        certify_pixels(inner, IMAGES, space=mg.InputSpace(std=(0.2, 0.3)), **FEW)


def test_progress_goes_up_to_all_samples() -> None:
    seen: list[float] = []
    explainer = mg.SmoothGrad(Images().eval(), samples=4, batch_size=8)
    certify_pixels(explainer, IMAGES, progress=lambda done, of: seen.append(done / of), **FEW)
    assert seen == sorted(seen)
    assert len(set(seen)) > 5
    assert seen[-1] == pytest.approx(1)


def test_the_model_and_the_generators_are_left_as_they_were() -> None:
    model = Images().eval()
    state = torch.get_rng_state()
    certify_pixels(mg.SimpleGradient(model), IMAGES[:1], **FEW)
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"sigma": "auto"}, "sigma: expected a number"),
        ({"sigma": 0.0}, "sigma: expected a finite number > 0"),
        ({"sigma": math.inf}, "sigma: expected a finite number > 0"),
        ({"top": 0.0}, "top: expected a fraction"),
        ({"threshold": 0.3}, "threshold: expected"),
        ({"confidence": 0.0}, "confidence: expected"),
        ({"reduction": "abs"}, "reduction: expected one of"),
        ({"seed": -1}, "seed: expected"),
        ({"samples": 20}, "samples: expected about 21 or more: .* unanimous .* 20 pixels .* got"),
        ({"ids": [1, 2]}, "ids: expected one for each"),
        ({"target": 5}, "target: expected"),
    ],
)
def test_bad_settings(bad: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        certify_pixels(mg.SimpleGradient(Images().eval()), IMAGES[:1], **(FEW | bad))


def test_what_cannot_be_certified_is_refused() -> None:
    model = Images().eval()
    with pytest.raises(TypeError, match="explainer: expected an Explainer, got Images"):
        certify_pixels(model, IMAGES)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="layer: expected None"):
        certify_pixels(mg.SimpleGradient(model, layer="layers.0"), IMAGES)
    with pytest.raises(ValueError, match="inputs: expected one tensor"):
        certify_pixels(mg.SimpleGradient(model), (IMAGES, IMAGES))  # type: ignore[arg-type]

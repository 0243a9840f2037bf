"""Sparsified SmoothGrad against its definition written out, and where its mean is known."""

import math

import pytest
import torch
from torch import Tensor, nn

from contracts.networks import Joint, Picture, columns, pictures
from moreaugrad import SmoothGrad, SparsifiedSmoothGrad, Status
from moreaugrad.explainers.gradient import largest
from moreaugrad.explainers.sparsified import VARIANTS
from moreaugrad.score.noise import Noise
from toys import network, normal

MODEL = network([30, 20, 4], nn.Tanh, gain=2.0).requires_grad_(False)
X = normal(5, 30, seed=3)
SETTINGS = {"tau": 0.2, "gamma": 0.07, "sigma": 0.3, "samples": 21, "seed": 4}


def written_out(
    x: Tensor, target: int, variant: str, tau: float, gamma: float, sigma: float, samples: int,
    seed: int, key: int,
) -> Tensor:  # fmt: skip
    """One sample `[n]`, one draw and one entry after the other."""
    total = [0.0] * len(x)
    spread = sigma * float(x.max() - x.min())
    for draw in range(samples):
        z = Noise(seed, antithetic=False).draw([key], draw, x[None])[0]
        point = (x + spread * z).requires_grad_()
        (gradient,) = torch.autograd.grad(MODEL(point[None])[0, target], point)
        g = gradient.abs().tolist()
        order = sorted(range(len(g)), key=lambda i: (-g[i], i))
        chosen = order[: int(tau * len(g))]
        v = g[order[int(gamma * len(g)) - 1]]
        for i in range(len(g)):
            if variant == "scaled":
                total[i] += g[i] / max(g)
            elif i in chosen:
                total[i] += 1.0 if variant == "sparsified" else min(g[i], v) / v
    return torch.tensor(total, dtype=x.dtype) / samples


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_map_is_the_definition_written_out(variant: str) -> None:
    targets, ids = [2, 0, 1, 3, 2], [4, 0, 7, 1, 9]
    explainer = SparsifiedSmoothGrad(MODEL, variant=variant, batch_size=8, **SETTINGS)
    result = explainer.explain(X, targets, ids=ids)
    for i, x in enumerate(X):
        expected = written_out(x, targets[i], variant, key=ids[i], **SETTINGS)
        torch.testing.assert_close(result.maps[i], expected, rtol=1e-9, atol=1e-12)
    assert ((result.maps >= 0) & (result.maps <= 1)).all()
    assert set(result.status) == {Status.FIXED_BUDGET}
    assert result.evaluations.tolist() == [21] * 5


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batch_equals_its_samples(variant: str) -> None:
    model, x = Picture(), pictures(5)
    batch = SparsifiedSmoothGrad(model, variant=variant, batch_size=11).explain(x, 1, ids=range(5))
    for i in range(5):
        alone = SparsifiedSmoothGrad(model, variant=variant).explain(x[i : i + 1], 1, ids=[i])
        torch.testing.assert_close(alone.maps, batch.maps[i : i + 1], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(alone.error, batch.error[i : i + 1])


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_scale_of_the_score_does_not_matter(variant: str) -> None:
    maps = SparsifiedSmoothGrad(Picture(), variant=variant).attribute(pictures(), target=1)
    scaled = SparsifiedSmoothGrad(lambda x: 1e-6 * Picture()(x), variant=variant)
    torch.testing.assert_close(scaled.attribute(pictures(), target=1), maps)
    falling = SparsifiedSmoothGrad(lambda x: -3 * Picture()(x), variant=variant)
    torch.testing.assert_close(falling.attribute(pictures(), target=1), maps)


def ranked(x: Tensor) -> Tensor:
    """Two entries; the gradient's larger one is the larger |x_i|."""
    return torch.stack((x.square().sum(1) / 2, 0 * x[:, 0]), dim=1)


def share(x: Tensor, sigma: float) -> Tensor:
    """P(|x_1 + z_1| > |x_2 + z_2|): u v > 0 for the sum u and the difference v."""
    u, v = (x[:, 0] + x[:, 1]) / 2**0.5 / sigma, (x[:, 0] - x[:, 1]) / 2**0.5 / sigma
    ndtr = torch.special.ndtr
    first = ndtr(u) * ndtr(v) + ndtr(-u) * ndtr(-v)
    return torch.stack((first, 1 - first), dim=1)


def test_the_mean_is_the_known_one_within_its_error() -> None:
    x = torch.tensor([[1.0, 0.8], [0.3, -0.9], [2.0, 0.1]], dtype=torch.float64)
    explainer = SparsifiedSmoothGrad(
        ranked, variant="sparsified", tau=0.5, sigma=0.7, sigma_mode="absolute", samples=4096
    )
    found, expected = explainer.explain(x, 0), share(x, 0.7)
    apart = (found.maps - expected).norm(dim=1)
    stated = found.error * found.maps.norm(dim=1)
    assert (apart < 4 * stated).all()
    true = (2 * expected[:, 0] * expected[:, 1] / 4096).sqrt()
    assert ((stated / true) > 0.4).all()
    assert ((stated / true) < 2).all()


def test_equal_gradients_fill_up_in_order() -> None:
    g = torch.tensor([[1.0, 2, 2, 2, 0], [3, 3, 3, 3, 3], [0, 0, 0, 0, 0]])
    expected = [[0, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 1, 0, 0, 0]]
    assert largest(g, torch.tensor([2] * len(g))).int().tolist() == expected
    flat = SparsifiedSmoothGrad(lambda x: x.sum((1, 2, 3))[:, None], task="regression", tau=0.13)
    maps = flat.attribute(pictures(2), target=0).flatten(1)
    assert (maps > 0).sum(1).tolist() == [int(0.13 * 72)] * 2
    assert (maps[:, : int(0.13 * 72)] == 1).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_gradient_of_zeros_gives_zeros(variant: str) -> None:
    result = SparsifiedSmoothGrad(
        lambda x: 0 * x.sum((1, 2, 3))[:, None], task="regression", variant=variant
    ).explain(pictures(2), 0)
    assert not result.maps.any()
    assert result.ok


@pytest.mark.parametrize("variant", ["sparsified", "relaxed"])
def test_the_entries_of_a_gradient_that_has_few_are_all_largest(variant: str) -> None:
    """There are fewer of them than floor(gamma n)."""
    explainer = SparsifiedSmoothGrad(
        lambda x: x[:, :2].prod(1)[:, None], task="regression", variant=variant, tau=0.5, gamma=0.3
    )
    result = explainer.explain(X, 0)
    assert torch.equal(result.maps, (torch.arange(30) < 2).to(X).expand_as(X))
    pulled = explainer.vjp(result, X, through=explainer.derivatives[-1])
    assert torch.isfinite(pulled).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_gradient_that_is_not_finite_is_reported(variant: str) -> None:
    # Noise makes some of the inputs negative.
    model = lambda x: x.sqrt().sum((1, 2, 3))[:, None]  # noqa: E731
    explainer, x = SparsifiedSmoothGrad(model, task="regression", variant=variant), pictures().abs()
    assert set(explainer.explain(x, 0).status) == {Status.NON_FINITE}
    with pytest.raises(FloatingPointError, match="NaN or infinite"):
        explainer.moments(x, 0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_moments_are_those_of_the_map(variant: str) -> None:
    inputs = pictures(3), columns(3)
    explainer = SparsifiedSmoothGrad(Joint(), variant=variant, samples=150, seed=2)
    moments = explainer.moments(inputs, 1)
    maps = torch.cat([part.flatten(1) for part in explainer.attribute(inputs, target=1)], dim=1)
    torch.testing.assert_close(moments.mean, maps)
    assert (moments.samples, moments.binary) == (150, variant == "sparsified")
    assert moments.independent
    assert not SparsifiedSmoothGrad(Joint(), antithetic=True).moments(inputs, 1).independent
    if moments.binary:
        counts = moments.mean * 150
        torch.testing.assert_close(counts, counts.round(), rtol=0, atol=1e-9)
        assert torch.equal(moments.square, moments.mean)
    else:
        assert (moments.square < moments.mean).any()
    # The draws of the first block, one by one: their variance is what `variance` says of them.
    few = SparsifiedSmoothGrad(Joint(), variant=variant, samples=40, seed=2)
    bound = few.bind(inputs, 1)

    def work(points: Tensor, rows: Tensor) -> tuple[Tensor]:
        return (few._each(bound.value_and_grad_at(points, rows)[1], bound.counts[rows]),)

    each = torch.stack([bound.mean(work, draws=[k])[0] for k in range(40)])
    torch.testing.assert_close(few.moments(inputs, 1).variance, each.var(0))


def test_without_noise_it_is_one_gradient() -> None:
    x = pictures(2)
    found = SparsifiedSmoothGrad(Picture(), sigma=0, variant="sparsified").explain(x, 1)
    gradient = SmoothGrad(Picture(), sigma=0).attribute(x, target=1).flatten(1).abs()
    assert torch.equal(
        found.maps.flatten(1) == 1, largest(gradient, torch.tensor([7] * len(gradient)))
    )
    assert found.evaluations.tolist() == [1, 1]


def test_published_settings() -> None:
    settings = SparsifiedSmoothGrad.published(MODEL).settings()
    told = {name: settings[name] for name in ("variant", "tau", "gamma", "sigma", "samples")}
    assert told == {
        "variant": "relaxed", "tau": 0.1, "gamma": 0.01, "sigma": 0.2, "samples": 8192,
    }  # fmt: skip
    assert SparsifiedSmoothGrad.published(MODEL, samples=8).samples == 8


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"variant": "relax"}, "did you mean 'relaxed'"),
        ({"tau": 0}, "tau: expected a fraction"),
        ({"tau": 1.5}, "tau: expected a fraction"),
        ({"gamma": 0.2}, "gamma: expected a fraction from 0 to tau = 0.1, got 0.2"),
        ({"gamma": math.nan}, "gamma: expected"),
        ({"samples": 0}, "samples: expected"),
    ],
)
def test_bad_settings_are_reported(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        SparsifiedSmoothGrad(MODEL, **settings)

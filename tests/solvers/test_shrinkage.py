"""Shrinkage towards a centre, in bands."""

from itertools import product

import pytest
import torch
from torch import Tensor, nn

import moreaugrad as mg
import toys
from moreaugrad.solvers.shrinkage import Bands, Shrinkage
from toys import normal, relative

SHAPES = [(3, 12, 16), (1, 8, 9, 10), (5,), (4, 60), (1, 20, 20)]


def bands(*shape: int) -> Bands:
    x = normal(1, *shape, seed=0)
    return Bands.of(mg.Score(lambda x: x.flatten(1)[:, :2], check=False).bind(x), x.flatten(1))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_transform_is_orthonormal_and_its_bands_are_a_partition(shape: tuple[int, ...]) -> None:
    own, x = bands(*shape), normal(4, *shape, seed=1).flatten(1)
    found = own.coefficients(x)
    assert torch.allclose(found.norm(dim=1), x.norm(dim=1))
    assert torch.allclose(own.coefficients(found, inverse=True), x)
    energy = own.sums(found.square())
    assert torch.allclose(energy.sum(1), x.square().sum(1))
    assert (energy.shape[1] > 1) == (shape not in [(5,), (4, 60)])
    if energy.shape[1] > 1:
        even = own.spread(energy / own.sums(torch.ones_like(x)).clamp_min(1))
        assert torch.allclose(own.sums(even), energy)


def test_every_band_has_enough_coefficients() -> None:
    for shape in [(3, 8, 8), (3, 16, 40), (1, 9, 9)]:
        own = bands(*shape)
        assert int(own.index.bincount().min()) >= 40


def test_a_wave_lies_in_the_band_of_its_frequency() -> None:
    own = bands(3, 22, 22)
    place = (torch.arange(22, dtype=torch.float64) + 0.5) * torch.pi / 22
    rings = own.index.max().item() // 3 + 1
    for (order, ring), colour in product(((0, 0), (5, 0), (21, 5)), (0, 1, 2)):
        wave = (order * place).cos().expand(3, 22, 22).clone()
        basis = torch.tensor([[1.0, 1, 1], [1, -1, 0], [1, 1, -2]])[colour]
        energy = own.sums(own.coefficients((wave * basis[:, None, None]).reshape(1, -1)).square())
        assert energy.argmax().item() == rings * colour + ring
        assert torch.allclose(energy.max(), energy.sum())


def literal(m: Tensor, variance: float, s: Tensor) -> tuple[Tensor, float]:
    """The shrunk mean of one band and its expected squared distance, by the formulas."""
    common = max(float(s[0] @ s[1]), float(s.square().sum()) / 8)
    k = float(s[0] @ m[1] + s[1] @ m[0]) / (2 * common)
    square = [[float((m[i] - k * s[j]).square().sum()) for j in range(2)] for i in range(2)]
    across, within = (square[0][1] + square[1][0]) / 2, (square[0][0] + square[1][1]) / 2
    own = k * k * float((s[0] - s[1]).square().sum()) / 4
    q = max(0.0, across - 2 * variance - own)
    c = min((across - within) / 4, variance, q)
    w = min(1.0, max(0.0, (q - c) / (variance + q - 2 * c)))
    q = max(q, variance * (2 / len(m[0])) ** 0.5)
    risk = w * w * variance + (1 - w) ** 2 * q + 2 * w * (1 - w) * c
    return (1 - w) * k * (s[0] + s[1]) / 2 + w * (m[0] + m[1]) / 2, risk


def test_a_literal_computation() -> None:
    own = bands(60)  # one band
    truth = normal(60, seed=2)
    s = (truth + 0.5 * normal(60, seed=3)) + 0.1 * normal(2, 60, seed=4)
    m = truth + 0.4 * normal(2, 60, seed=5) + 0.3 * (s - truth)
    found = Shrinkage.of(own, m[:, None], torch.full((1, 1), 4.0).double(), s[:, None])
    expected, risk = literal(m, 4.0, s)
    assert 0 < found.weight.item() < 1
    assert torch.allclose(found(m.mean(0)), expected)
    assert found.square.item() == pytest.approx(risk)
    varied = found.weight.item() ** 2 * 4.0
    assert found.doubt.square().sum().item() == pytest.approx(risk - varied)


def test_without_noise_or_with_few_entries_it_is_the_plain_mean() -> None:
    m, s = normal(2, 3, 60, seed=6), normal(2, 3, 60, seed=7)
    still = Shrinkage.of(bands(60), m, torch.zeros(3, 1).double(), s)
    assert torch.allclose(still(m.mean(0)), m.mean(0))
    few = Shrinkage.of(bands(20), m[..., :20], torch.ones(3, 1).double(), s[..., :20])
    assert torch.allclose(few(m[..., :20].mean(0)), m[..., :20].mean(0))
    assert torch.allclose(few.square, torch.ones(3).double())


def test_it_tends_to_the_plain_mean_and_never_far_from_the_better_of_the_two() -> None:
    truth, centre = normal(2000, seed=8), normal(2000, seed=9)
    own, s = bands(2000), (truth + centre).expand(2, 1, 2000)
    for noise in (0.01, 0.3, 3.0, 30.0):
        m = truth + noise * normal(2, 1, 2000, seed=10)
        variance = torch.full((1, 1), 2000 * noise**2 / 2).double()
        found = Shrinkage.of(own, m, variance, s)
        k = float(truth @ s[0, 0] / (s[0, 0] @ s[0, 0]))
        lost = [float((x - truth).norm()) for x in (found(m.mean(0)), m.mean(0), k * s[0])]
        assert lost[0] < 1.05 * min(lost[1:])
        # An estimate of what is lost, on the safe side where noise drowns everything.
        assert 0.8 < float(found.square.sqrt()) / lost[0] < (1.25 if noise < 3 else 6)


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 8, 5, padding=2), nn.ReLU(),
        nn.AvgPool2d(4), nn.Flatten(), nn.Linear(8 * 16, 2),
    ).double().eval()  # fmt: skip


@pytest.fixture(scope="module")
def exact() -> Tensor:
    """The mean gradient over many noise samples that no test uses."""
    x = normal(1, 3, 16, 16, seed=11)
    settings = {"samples": 16384, "seed": 99, "centre": False}
    return mg.SmoothGrad(network(), sigma=0.5, **settings).explain(x, 0).maps


@pytest.mark.parametrize("samples", [16, 64])
def test_smoothgrad_has_a_smaller_error_and_states_it(exact: Tensor, samples: int) -> None:
    x = normal(1, 3, 16, 16, seed=11).expand(48, -1, -1, -1)
    found, plain = (
        mg.SmoothGrad(network(), sigma=0.5, samples=samples, centre=centre).explain(
            x, 0, ids=range(48)
        )
        for centre in (True, False)
    )
    true, before = (relative(maps, exact.expand_as(maps)) for maps in (found.maps, plain.maps))
    assert float(before.square().mean() / true.square().mean()) > 2
    ratio = found.error / true
    assert float(((ratio > 0.5) & (ratio < 2)).double().mean()) > 0.93
    assert float((ratio < 0.5).double().mean()) < 0.03
    assert (found.evaluations == samples + 2).all()


def test_smooth_cafo_has_a_smaller_error(exact: Tensor) -> None:
    x = normal(1, 3, 16, 16, seed=11).expand(24, -1, -1, -1)
    settings = {"sigma": 0.5, "score": "logit", "lambda1": 0.0, "samples": 32}
    found, plain = (
        mg.SmoothCAFO(network(), centre=centre, **settings).explain(x, 0, ids=range(24))
        for centre in (True, False)
    )
    errors = []
    for maps in (found.maps, plain.maps):
        length = (maps * exact).sum((1, 2, 3)) / exact.square().sum()
        errors.append(relative(maps, length[:, None, None, None] * exact).square().mean())
    assert float(errors[1] / errors[0]) > 2
    assert found.ok


def test_a_centre_that_is_not_finite_leaves_the_plain_mean() -> None:
    """Where a ReLU stops an infinite slope, each gradient is finite, and the mean slope is not."""

    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = toys.network([60, 16])[0], toys.network([16, 3], seed=1)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.last(self.first(x).relu().sqrt())
            return found

    model, x = Root(), normal(2, 60, seed=2)
    plain = mg.SmoothGrad(model, samples=16, centre=False).explain(x, 0)
    found = mg.SmoothGrad(model, samples=16).explain(x, 0)
    assert plain.maps.isfinite().all()
    torch.testing.assert_close(found.maps, plain.maps)
    sparse = mg.SparseMoreauGrad(model, max_evaluations=200, tolerance=1e-3)
    assert sparse.explain(x, 0).maps.isfinite().all()

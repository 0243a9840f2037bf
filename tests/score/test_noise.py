import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from moreaugrad.score.noise import ABSOLUTE, RELATIVE, Noise, noise_level, sample_keys
from moreaugrad.score.normals import normals

LIKE = torch.empty(0, 1000)


def vectors(noise: Noise, size: int, count: int, key: int = 0) -> Tensor:
    return torch.stack([noise.normal(key, number, size) for number in range(count)])


def test_a_draw_is_a_function_of_seed_key_and_index() -> None:
    noise = Noise(seed=3)
    keys = [5, 0, 5, 2]
    forwards = {i: noise.draw(keys, i, LIKE) for i in range(6)}
    backwards = {i: Noise(seed=3).draw(keys[::-1], i, LIKE).flip(0) for i in reversed(range(6))}
    for i in range(6):
        assert torch.equal(forwards[i], backwards[i])
        assert torch.equal(forwards[i][0], forwards[i][2])  # the same key
        for row, key in enumerate(keys):
            assert torch.equal(forwards[i][row], Noise(seed=3).draw([key], i, LIKE)[0])


def test_samples_share_their_draws_by_default() -> None:
    rows = Noise().draw(sample_keys(None, 3), 4, LIKE)
    assert rows.shape == (3, 1000)
    assert torch.equal(rows[0], rows[1])
    assert torch.equal(rows[0], rows[2])


def test_draws_are_antithetic_in_pairs() -> None:
    noise = Noise(seed=1)
    for pair in range(5):
        even, odd = (noise.draw([0, 1], 2 * pair + i, LIKE) for i in range(2))
        assert torch.equal(odd, -even)
    assert not torch.equal(noise.draw([0], 0, LIKE).abs(), noise.draw([0], 2, LIKE).abs())


def test_draws_can_be_independent() -> None:
    noise = Noise(seed=1, antithetic=False)
    magnitudes = [noise.draw([0], i, LIKE)[0].abs() for i in range(4)]
    for one, two in itertools.combinations(magnitudes, 2):
        assert not torch.equal(one, two)


def test_moments_are_those_of_a_standard_normal() -> None:
    z = vectors(Noise(seed=7), 100_000, 2).double().flatten()
    n = len(z)
    assert abs(float(z.mean())) < 5 / math.sqrt(n)
    assert float(z.square().mean()) == pytest.approx(1, abs=5 * math.sqrt(2 / n))
    assert float(z.pow(3).mean()) == pytest.approx(0, abs=5 * math.sqrt(15 / n))
    assert float(z.pow(4).mean()) == pytest.approx(3, abs=5 * math.sqrt(96 / n))
    share = float((z.abs() < 1.959964).double().mean())
    assert share == pytest.approx(0.95, abs=5 * math.sqrt(0.0475 / n))


def test_seeds_keys_and_numbers_are_independent() -> None:
    """No two vectors correlate, at any shift: streams neither coincide nor overlap."""
    n = 20_000
    which = [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 1, 0), (0, 2, 0)]
    made = [Noise(seed).normal(key, number, n).double() for seed, key, number in which]
    spectra = [torch.fft.rfft(v, 2 * n) for v in made]
    for one, two in itertools.combinations(spectra, 2):
        correlation = torch.fft.irfft(one.conj() * two) / n
        assert float(correlation.abs().max()) < 7 / math.sqrt(n)


def test_neighbouring_entries_do_not_correlate() -> None:
    z = Noise(seed=5).normal(0, 0, 50_000).double()
    for lag in (1, 2, 3, 4, 8, 224):
        assert abs(float((z[lag:] * z[:-lag]).mean())) < 5 / math.sqrt(len(z))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_draws_follow_the_dtype(dtype: torch.dtype) -> None:
    row = Noise().draw([0, 1], 3, LIKE.to(dtype))
    assert row.dtype == dtype
    assert torch.equal(row, Noise().draw([0, 1], 3, LIKE).to(dtype))


def test_global_generators_are_untouched(untouched_generators) -> None:
    with untouched_generators():
        before = Noise().draw([0, 4], 2, LIKE)
    torch.manual_seed(99)
    torch.rand(5)
    assert torch.equal(Noise().draw([0, 4], 2, LIKE), before)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_bad_seeds_are_reported(seed: int) -> None:
    with pytest.raises(ValueError, match=r"seed: expected an integer from 0 to 2\^63 - 1"):
        Noise(seed)


@pytest.mark.parametrize("keys", [(0, 0, 0), (0, 7, 0), (3, 1, 2)])
@pytest.mark.parametrize("padded", [False, True])
def test_noise_is_added_to_the_rows(keys: tuple[int, ...], padded: bool) -> None:
    noise, base = Noise(seed=2), torch.randn(3, 50, dtype=torch.float64)
    sigma = torch.tensor([[0.5], [0.0], [2.0]], dtype=torch.float64)
    real = torch.rand(3, 50) < 0.7 if padded else None
    add = noise.adder(keys, base, sigma, real)
    calls = [
        [(slice(0, 3), 0, slice(0, 3)), (slice(3, 5), 1, slice(0, 2))],
        [(slice(0, 1), 1, slice(2, 3)), (slice(1, 2), 7, slice(1, 2))],
    ]
    for cells in calls:
        points = torch.full((5, 50), torch.nan, dtype=torch.float64)
        add(points, cells)
        for place, index, rows in cells:
            expected = (base + sigma * noise.draw(keys, index, base, real))[rows]
            torch.testing.assert_close(points[place], expected, rtol=1e-14, atol=1e-14)
        assert points[cells[-1][0].stop :].isnan().all()


def test_partners_and_cut_samples_cost_one_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[list[tuple[int, int]]] = []

    def counted(seed: int, vectors: list[tuple[int, int]], *others: Any) -> Tensor:
        made.append(vectors)
        return normals(seed, vectors, *others)

    monkeypatch.setattr("moreaugrad.score.noise.normals", counted)
    base = torch.zeros(4, 10)
    add = Noise().adder((0, 0, 3, 0), base, torch.ones(4, 1))
    first, second = slice(0, 2), slice(2, 4)
    add(torch.empty(6, 10), [(first, 0, first), (second, 0, second), (slice(4, 6), 1, first)])
    add(torch.empty(4, 10), [(first, 1, second), (second, 2, first)])
    add(torch.empty(4, 10), [(first, 2, second), (second, 3, first)])
    assert made == [[(0, 0), (3, 0)], [(0, 1), (3, 1)]]


def test_sample_keys() -> None:
    assert sample_keys(None, 3) == (0, 0, 0)
    assert sample_keys([4, 0, 4], 3) == (4, 0, 4)
    assert sample_keys(torch.tensor([2, 1]), 2) == (2, 1)


@pytest.mark.parametrize("ids", [[0, -1], [0, 2**62], [2**64, 0]])
def test_ids_out_of_range_are_reported(ids: list[int]) -> None:
    with pytest.raises(ValueError, match=r"ids: expected numbers from 0 to 2\^62 - 1"):
        sample_keys(ids, 2)


@pytest.mark.parametrize("ids", [[], [1], [1, 2, 3]])
def test_a_wrong_number_of_ids_is_reported(ids: list[int]) -> None:
    with pytest.raises(ValueError, match=f"one for each of the 2 samples, got {len(ids)}"):
        sample_keys(ids, 2)


def test_relative_levels_follow_each_samples_own_range() -> None:
    one = torch.tensor([[[0.0, 2.0]], [[-1.0, 4.0]], [[3.0, 3.0]]])
    two = torch.tensor([[10.0], [0.0], [0.0]]) + torch.tensor([[0.0, 1.0, 4.0]])
    levels = noise_level((one, two), 0.5, RELATIVE)
    assert levels[0].tolist() == [[[1.0]], [[2.5]], [[0.0]]]
    assert levels[1].tolist() == [[2.0], [2.0], [2.0]]


def test_absolute_levels_are_the_same_for_all() -> None:
    levels = noise_level((torch.randn(2, 3, 4), torch.randn(2, 5)), 0.25, ABSOLUTE)
    assert [level.flatten().tolist() for level in levels] == [[0.25, 0.25], [0.25, 0.25]]
    assert [level.ndim for level in levels] == [3, 2]


def test_bad_levels_are_reported() -> None:
    parts = (torch.zeros(1, 2),)
    for bad in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="sigma: expected a finite number >= 0"):
            noise_level(parts, bad, RELATIVE)
    with pytest.raises(ValueError, match=r"sigma_mode: .*relative, absolute"):
        noise_level(parts, 0.1, "percent")


def test_large_keys_have_streams_of_their_own() -> None:
    noise = Noise(seed=5)
    first, second = (noise.normal(2**63 + key, 0, 4) for key in (1, 2))
    assert not torch.equal(first, second)


def test_padding_does_not_change_what_real_entries_get() -> None:
    """Whatever lies before, between or after them, as for a sample without padding."""
    noise = Noise(seed=4)
    real = torch.tensor([[1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 0], [1, 0, 1, 0, 0, 1]]).bool()
    like = torch.empty(3, 6, dtype=torch.float64)
    for keys in ((0, 0, 0), (0, 5, 2)):
        for index in range(4):
            found = noise.draw(keys, index, like, real)
            short = noise.draw(keys, index, like[:, :3])
            assert torch.equal(found[real].reshape(3, 3), short)
            assert (found[~real] == 0).all()


@pytest.mark.parametrize("size", [1, 2, 3, 17, 1000])
def test_a_shorter_vector_begins_a_longer_one(size: int) -> None:
    noise = Noise(seed=6)
    assert torch.equal(noise.normal(3, 2, size), noise.normal(3, 2, 4096)[:size])


def test_relative_levels_leave_padding_out() -> None:
    one = torch.tensor([[[0.0, 2.0, 50.0]], [[-1.0, 4.0, 0.0]], [[1.0, 1.0, 1.0]]])
    real = torch.tensor([[[True, True, False]], [[True, True, True]], [[False, False, False]]])
    (levels,) = noise_level((one,), 0.5, RELATIVE, (real,))
    assert levels.flatten().tolist() == [1.0, 2.5, 0.0]

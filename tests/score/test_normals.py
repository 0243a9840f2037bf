"""The generator against known answers, and normal vectors that depend on nothing but their name."""

import math
import multiprocessing
import sys
import threading
import types
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from moreaugrad.score import normals as module
from moreaugrad.score.normals import (
    HALF,
    LEAST,
    MOST,
    by_torch,
    gaussian,
    integers,
    normals,
    philox,
)

CPU = torch.device("cpu")
VECTORS = [(0, 0), (5, 3), (5, 4), (2**62 - 1, 2**40), (2**63 + 7, 1)]
LONG = 2 * HALF * 2 * MOST + 77
WORD = st.integers(0, 2**64 - 1)


def signed(*words: int) -> tuple[Tensor, ...]:
    return tuple(torch.tensor([word - 2**64 if word >= 2**63 else word]) for word in words)


def unsigned(words: tuple[Tensor, ...]) -> list[int]:
    return [int(word) % 2**64 for word in words]


def transform(given_integers: Tensor) -> Tensor:
    return gaussian(given_integers, torch.empty(given_integers.shape))


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        (
            (0, 0, 0, 0),
            (0, 0),
            "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b",
        ),
        (
            (2**64 - 1,) * 4,
            (2**64 - 1,) * 2,
            "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0",
        ),
        (
            (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89),
            (0x452821E638D01377, 0xBE5466CF34E90C6C),
            "a528f45403e61d95 38c72dbd566e9788 a5a1610e72fd18b5 57bd43b5e52b7fe6",
        ),
    ],
)
def test_known_answers(counter: tuple[int, ...], key: tuple[int, ...], expected: str) -> None:
    """Those published with the generator's first implementation, Random123."""
    found = unsigned(philox(signed(*counter), signed(*key)))
    assert " ".join(f"{word:016x}" for word in found) == expected


@given(st.tuples(WORD, WORD, WORD, WORD), st.tuples(WORD, WORD))
def test_words_are_those_of_whole_numbers(
    counter: tuple[int, int, int, int], key: tuple[int, int]
) -> None:
    (a, b, c, d), (one, two) = counter, key
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
        a, b = (second >> 64) ^ b ^ one, second % 2**64
        c, d = (first >> 64) ^ d ^ two, first % 2**64
        one, two = (one + 0x9E3779B97F4A7C15) % 2**64, (two + 0xBB67AE8584CAA73B) % 2**64
    assert unsigned(philox(signed(*counter), signed(*key))) == [a, b, c, d]


@pytest.mark.parametrize("seed", [0, 3, 2**63 - 1])
def test_integers_of_torch_are_those_of_numpy(seed: int) -> None:
    expected = [
        np.random.Philox(key=np.array([seed, key], dtype=np.uint64), counter=[0, 0, 0, number])
        .random_raw(5 * HALF)
        .view(np.int32)
        for key, number in VECTORS
    ]
    found = integers(seed, VECTORS, 5, CPU)
    assert np.array_equal(found.numpy().ravel(), np.concatenate(expected))


@pytest.mark.parametrize("size", [1, 100, LONG])
def test_both_ways_make_the_same_vectors(size: int) -> None:
    groups = -(-size // (2 * HALF))
    elsewhere = transform(integers(3, VECTORS, groups, CPU)).view(len(VECTORS), -1)[:, :size]
    assert torch.equal(normals(3, VECTORS, size, CPU), elsewhere)


def test_vectors_on_another_device_are_made_there() -> None:
    found = normals(3, VECTORS, 100, torch.device("meta"))
    assert (found.device.type, found.shape) == ("meta", (5, 100))
    assert found.dtype == torch.float32


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_bits_do_not_depend_on_threads_size_or_company(count: int) -> None:
    torch.set_num_threads(1)
    expected = normals(3, VECTORS, LONG, CPU)
    torch.set_num_threads(count)
    assert torch.equal(normals(3, VECTORS, LONG, CPU), expected)
    for size in (1, 2, 127, 128, 129, LONG // 2, LONG - 1):
        for row, vector in enumerate(VECTORS):
            assert torch.equal(normals(3, [vector], size, CPU)[0], expected[row, :size])
    shuffled = [3, 1, 4]
    some = normals(3, [VECTORS[row] for row in shuffled], 1000, CPU)
    assert torch.equal(some, expected[shuffled, :1000])


@pytest.mark.usefixtures("threads")
def test_all_threads_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(3)
    seen, barrier = set(), threading.Barrier(3, timeout=30)

    def watched(found: Tensor, out: Tensor) -> Tensor:
        seen.add(threading.get_ident())
        barrier.wait()  # passes only when three draw at once
        return gaussian(found, out)

    monkeypatch.setattr("moreaugrad.score.normals.gaussian", watched)
    normals(0, [(0, 0)], 3 * LEAST * 2 * HALF, CPU)
    assert len(seen) == 3


@pytest.mark.usefixtures("threads")
def test_vectors_in_inference_mode_and_under_autocast() -> None:
    torch.set_num_threads(2)
    expected = normals(3, VECTORS, LONG, CPU)
    with torch.inference_mode(), torch.autocast("cpu"):
        assert torch.equal(normals(3, VECTORS, LONG, CPU), expected)


def _child(results: "multiprocessing.Queue[float]") -> None:
    torch.set_num_threads(2)
    results.put(normals(3, VECTORS, LONG, CPU).numpy().sum())


@pytest.mark.usefixtures("threads")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_a_forked_process_draws_the_same() -> None:
    """It has no threads of its parent's, so it would wait for ever for them."""
    torch.set_num_threads(2)
    expected = normals(3, VECTORS, LONG, CPU).numpy().sum()
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_child, args=(results,))
    child.start()
    try:
        assert results.get(timeout=30) == expected
    finally:
        child.kill()
        child.join()


def transformed(radius: int, angle: int) -> tuple[float, float]:
    """One pair by Box and Muller, in double precision."""
    length = math.sqrt(-2 * math.log((radius % 2**31 + 0.5) / 2**31))
    return (
        length * math.cos(2 * math.pi * angle / 2**32),
        length * math.sin(2 * math.pi * angle / 2**32),
    )


@given(st.lists(st.tuples(*[st.integers(-(2**31), 2**31 - 1)] * 2), min_size=1, max_size=5))
def test_normals_are_those_of_box_and_muller(pairs: list[tuple[int, int]]) -> None:
    given_integers = torch.zeros(1, 2, HALF, dtype=torch.int32)
    given_integers[0, :, : len(pairs)] = torch.tensor(pairs, dtype=torch.int32).T
    found = transform(given_integers)[0, :, : len(pairs)].T.double()
    expected = torch.tensor([transformed(*pair) for pair in pairs], dtype=torch.float64)
    # Near a radius of 0 the uniform number is rounded to a multiple of 2^-24.
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=4e-4)


def test_extreme_integers_are_finite() -> None:
    edge = torch.tensor([0, -1, 1, 2**31 - 1, -(2**31)], dtype=torch.int32)
    pairs = torch.cartesian_prod(edge, edge)
    given_integers = torch.zeros(1, 2, HALF, dtype=torch.int32)
    given_integers[0, :, : len(pairs)] = pairs.T
    found = transform(given_integers)
    assert found.isfinite().all()
    assert found.abs().max() == pytest.approx(math.sqrt(64 * math.log(2)))


def test_the_distribution_is_normal() -> None:
    """Kolmogorov's distance, also of the tails; pairs of one radius are independent."""
    z = normals(11, [(0, number) for number in range(8)], 100 * 2 * HALF, CPU).double()
    ordered, count = z.flatten().sort().values, z.numel()
    exact = 0.5 * torch.special.erfc(-ordered / math.sqrt(2))
    steps = torch.arange(1, count + 1, dtype=torch.float64) / count
    assert float((exact - steps).abs().max()) < 2.2 / math.sqrt(count)
    expected = count * math.erfc(3 / math.sqrt(2))
    assert float((z.abs() > 3).sum()) == pytest.approx(expected, abs=5 * math.sqrt(expected))
    one, two = z.view(-1, 2, HALF).unbind(1)
    for power in (1, 2):
        together = torch.stack([one.flatten() ** power, two.flatten() ** power])
        assert abs(float(torch.corrcoef(together)[0, 1])) < 5 / math.sqrt(count / 2)


DEVICES = [CPU, pytest.param(torch.device("cuda"), marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no GPU"
))]  # fmt: skip


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_devices_without_a_kernel_make_the_same_numbers(device: torch.device) -> None:
    found = by_torch(9, VECTORS, 3, device).view(len(VECTORS), -1).cpu()
    torch.testing.assert_close(found, normals(9, VECTORS, 6 * HALF, CPU), rtol=1e-5, atol=2e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("size", [1, 63, 64, 65, 127, 129, 3000, LONG])
def test_a_gpu_has_a_kernel_for_the_same_numbers(size: int) -> None:
    pytest.importorskip("triton")
    device = torch.device("cuda")
    assert module._kernel(device) is not None
    found = normals(2**63 - 1, VECTORS, size, device).cpu()
    torch.testing.assert_close(found, normals(2**63 - 1, VECTORS, size, CPU), rtol=1e-5, atol=2e-6)


def test_a_kernel_that_fails_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton is there, but cannot compile."""

    def fail(*_: object) -> Tensor:
        raise RuntimeError("no C compiler")

    fake = types.ModuleType("moreaugrad.score.normals_cuda")
    fake.fill = fail  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    assert module._kernel.__wrapped__(torch.device("cuda", 0)) is None


def test_a_kernel_with_other_numbers_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = types.ModuleType("moreaugrad.score.normals_cuda")
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    made = by_torch(1, [(2, 3)], 1, CPU).view(1, -1)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: torch.zeros(1, 2 * HALF))
    monkeypatch.setattr(module, "_columns", lambda *_: None)
    monkeypatch.setattr(module, "by_torch", lambda *_: made)
    for found, kept in ((made, True), (made + 1e-3, False)):
        fake.fill = lambda *_, found=found: found  # type: ignore[attr-defined]
        assert (module._kernel.__wrapped__(torch.device("cuda", 0)) is not None) == kept

"""Standard normal vectors from counters: the same integers on every device.

The integers are those of Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2,
3", 2011), a function of a key and a counter: by numpy on the CPU, by a kernel on a GPU where torch
has Triton, and by operations of torch elsewhere. The Box-Muller transform makes normal numbers of
them, the same to rounding.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

Words = tuple[Tensor, ...]

ROUNDS = 10
MULTIPLIERS = 0xD2E7470EE14C6C93, 0xCA5A826395121157
INCREMENTS = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B
LOW = 2**32 - 1

HALF = 64
"""Integers that become radii, followed by as many that become angles: together one group."""
WORDS = HALF  # of 64 bits, two integers each
BLOCKS = WORDS // 4
LEAST, MOST = 64, 511
"""Groups that a thread makes at once: worth a thread, and of tensors that torch does not split."""


def normals(
    seed: int, vectors: Sequence[tuple[int, int]], size: int, device: torch.device
) -> Tensor:
    """A normal vector for each (sample key, number): `[len(vectors), size]`, float32.

    (seed, sample key) is the generator's key, and the number is the top of its counter, so no two
    vectors overlap. An entry depends neither on the size, nor on the other vectors, nor on threads.
    """
    groups = -(-size // (2 * HALF))
    if device.type == "cpu":
        made = _on_threads(seed, vectors, groups)
    elif (kernel := _kernel(device)) is not None:
        return kernel(seed, vectors, size)
    else:
        made = by_torch(seed, vectors, groups, device)
    return made.view(len(vectors), groups * 2 * HALF)[:, :size]


def by_torch(
    seed: int, vectors: Sequence[tuple[int, int]], groups: int, device: torch.device
) -> Tensor:
    """Normal vectors by hundreds of operations of torch, on any device."""
    found = integers(seed, vectors, groups, device)
    return gaussian(found, torch.empty(found.shape, dtype=torch.float32, device=device))


@lru_cache
def _kernel(
    device: torch.device,
) -> Callable[[int, Sequence[tuple[int, int]], int], Tensor] | None:
    """Makes normal vectors on a GPU; None where Triton is missing, or fails at a first vector (it
    needs a C compiler, for one)."""
    if device.type != "cuda":
        return None
    constants = (*MULTIPLIERS, *INCREMENTS)

    def made(seed: int, vectors: Sequence[tuple[int, int]], size: int) -> Tensor:
        out = torch.empty(len(vectors), size, device=device)
        return fill(out, _columns(vectors, device), seed, constants, ROUNDS)

    try:
        from moreaugrad.score.normals_cuda import fill

        found, wanted = made(1, [(2, 3)], 2 * HALF), by_torch(1, [(2, 3)], 1, device).view(1, -1)
    except Exception:  # whatever Triton complains of, torch's arithmetic is there
        return None
    return made if torch.allclose(found, wanted, atol=1e-5) else None


def gaussian(integers: Tensor, out: Tensor) -> Tensor:
    """Normal numbers from uniform integers by Box and Muller, both `[groups, 2, HALF]`.

    The sign of a radius's integer is not used: 31 bits reach 6.66 standard deviations, which
    one normal number in 4e10 exceeds, and (m + 0.5) / 2^31 is positive.
    """
    radius = (integers[:, 0] & 0x7FFFFFFF).float()
    radius.add_(0.5).mul_(2.0**-31).log_().mul_(-2).sqrt_()
    angle = integers[:, 1].float().mul_(2 * math.pi * 2.0**-32)
    torch.mul(angle.cos(), radius, out=out[:, 0])
    torch.mul(angle.sin_(), radius, out=out[:, 1])
    return out


def integers(
    seed: int, vectors: Sequence[tuple[int, int]], groups: int, device: torch.device
) -> Tensor:
    """Uniform integers of 32 bits for each vector in turn: `[len(vectors) groups, 2, HALF]`."""
    key, number = _columns(vectors, device)[:, :, None]
    block = torch.arange(1, groups * BLOCKS + 1, device=device)[None]
    nothing, first = torch.zeros_like(block), torch.full_like(block, seed)
    found = philox((block, nothing, nothing, number), (first, key))
    return torch.stack(found, -1).view(torch.int32).view(-1, 2, HALF)


def _columns(vectors: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    """`[2, V]`, int64."""
    columns = np.array(vectors, dtype=np.uint64).view(np.int64).T.copy()
    return torch.from_numpy(columns).to(device, non_blocking=True)


def philox(counter: Words, key: Words) -> Words:
    """Philox4x64-10: four words of 64 bits, held in int64, from a counter of four and a key of two.

    Sums and products of int64 are those of unsigned numbers modulo 2^64, on every device.
    """
    a, b, c, d = counter
    for step in range(ROUNDS):
        one, two = (
            part + _signed(step * increment % 2**64)
            for part, increment in zip(key, INCREMENTS, strict=True)
        )
        (high, low), (top, bottom) = _product(MULTIPLIERS[0], a), _product(MULTIPLIERS[1], c)
        a, b, c, d = top ^ b ^ one, bottom, high ^ d ^ two, low
    return a, b, c, d


def _product(factor: int, words: Tensor) -> tuple[Tensor, Tensor]:
    """High and low word of a 128-bit product, from the four products of halves."""
    low, high = words & LOW, _upper(words)
    below, above = factor & LOW, factor >> 32
    one, two = low * above, high * below
    carried = (_upper(low * below) + (one & LOW) + (two & LOW)) >> 32
    return high * above + _upper(one) + _upper(two) + carried, words * _signed(factor)


def _upper(words: Tensor) -> Tensor:
    return (words >> 32) & LOW


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word


def _on_threads(seed: int, vectors: Sequence[tuple[int, int]], groups: int) -> Tensor:
    """Normal vectors on the CPU, made in pieces by as many threads as torch has."""
    # Numpy's memory, because torch's own may be written only in the mode that it was made in.
    made = np.empty((len(vectors) * groups, 2, HALF), dtype=np.float32)
    threads = torch.get_num_threads()
    piece = max(LEAST, min(MOST, -(-len(made) // threads)))

    def fill(start: int) -> None:
        out = torch.from_numpy(made[start : start + piece])
        words = _words(seed, vectors, groups, start, len(out))
        gaussian(torch.from_numpy(words.view(np.int32)).view(out.shape), out)

    starts = range(0, len(made), piece)
    alone = threads == 1 or len(starts) == 1
    run = map if alone else _pool(threads, os.getpid()).map
    list(run(fill, starts))
    return torch.from_numpy(made)


def _words(
    seed: int, vectors: Sequence[tuple[int, int]], groups: int, start: int, count: int
) -> np.ndarray:
    """Numpy's words of some of the groups of all vectors in turn: `[count, WORDS]`, uint64."""
    words = np.empty((count, WORDS), dtype=np.uint64)
    bits = np.random.Philox(key=0)
    state = bits.state
    done = 0
    while done < count:
        vector, group = divmod(start + done, groups)
        key, number = vectors[vector]
        # The first block's counter is one above that of the state. As lists, keys from 2^63 on
        # would be rounded to what a double holds.
        state["state"] = {
            "key": np.array([seed, key], dtype=np.uint64),
            "counter": np.array([group * BLOCKS, 0, 0, number], dtype=np.uint64),
        }
        bits.state = state
        part = words[done : done + groups - group]
        part[:] = bits.random_raw(part.size).reshape(part.shape)
        done += len(part)
    return words


@lru_cache(maxsize=1)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads of this process: after a fork there are none, so the process is an argument."""
    return ThreadPoolExecutor(threads, thread_name_prefix="moreaugrad-noise")

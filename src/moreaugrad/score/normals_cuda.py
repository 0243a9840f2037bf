"""The numbers of `normals` on a GPU, by one kernel instead of hundreds.

Imported only where torch brings Triton along, which compiles it.
"""

# mypy: ignore-errors

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import libdevice

EACH = 256
"""Pairs of blocks, 16 normal numbers each, that an instance of the kernel makes."""
SCALE = tl.constexpr(2.0**-31)
TURN = tl.constexpr(2 * math.pi * 2.0**-32)


def fill(
    out: Tensor, columns: Tensor, seed: int, constants: tuple[int, int, int, int], rounds: int
) -> Tensor:
    """Writes a normal vector for each column (sample key, number) of `columns` `[2, V]`, int64.

    out: `[V, size]`, float32. constants: the multipliers of Philox, and its increments.
    """
    vectors, size = out.shape
    pairs = 8 * triton.cdiv(size, 128)
    with torch.cuda.device(out.device):
        _fill[vectors, triton.cdiv(pairs, EACH)](
            out, columns[0], columns[1], seed, size, *constants, rounds, EACH
        )
    return out


@triton.jit(do_not_specialize=["seed"])
def _fill(
    out, keys, numbers, seed, size, M0: tl.constexpr, M1: tl.constexpr, I0: tl.constexpr,
    I1: tl.constexpr, ROUNDS: tl.constexpr, EACH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    at = (tl.program_id(1) * EACH + tl.arange(0, EACH)).to(tl.int64)
    nothing = tl.zeros([EACH], tl.uint64)
    key = nothing + tl.load(keys + row).to(tl.uint64)
    number = nothing + tl.load(numbers + row).to(tl.uint64)
    first = nothing + seed.to(tl.uint64)
    # The first eight blocks of a group are its radii, the last eight its angles.
    counter = (at // 8 * 16 + at % 8 + 1).to(tl.uint64)
    a, b, c, d = _philox(counter, nothing, number, first, key, M0, M1, I0, I1, ROUNDS)
    e, f, g, h = _philox(counter + 8, nothing, number, first, key, M0, M1, I0, I1, ROUNDS)
    place = at // 8 * 128 + at % 8 * 8
    out += row * size
    _four(out, place, size, a, e)
    _four(out, place + 2, size, b, f)
    _four(out, place + 4, size, c, g)
    _four(out, place + 6, size, d, h)


@triton.jit
def _philox(
    counter, nothing, number, first, key, M0: tl.constexpr, M1: tl.constexpr, I0: tl.constexpr,
    I1: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    one, two = tl.full(counter.shape, M0, tl.uint64), tl.full(counter.shape, M1, tl.uint64)
    up, down = tl.full(counter.shape, I0, tl.uint64), tl.full(counter.shape, I1, tl.uint64)
    a, b, c, d = counter, nothing, nothing, number
    for _ in tl.static_range(ROUNDS):
        top, high = tl.umulhi(two, c), tl.umulhi(one, a)
        a, b, c, d = top ^ b ^ first, two * c, high ^ d ^ key, one * a
        first, key = first + up, key + down
    return a, b, c, d


@triton.jit
def _four(out, at, size, radii, angles):
    """Normal numbers of two words of 64 bits, whose lower halves come first."""
    _two(out, at, size, radii, angles)
    _two(out, at + 1, size, radii >> 32, angles >> 32)


@triton.jit
def _two(out, at, size, radius, angle):
    """Those of their lower halves, as `normals.gaussian` makes them."""
    uniform = ((radius & 0x7FFFFFFF).to(tl.int32).to(tl.float32) + 0.5) * SCALE
    length = libdevice.sqrt(-2.0 * libdevice.log(uniform))
    turn = angle.to(tl.uint32).to(tl.int32, bitcast=True).to(tl.float32) * TURN
    tl.store(out + at, libdevice.cos(turn) * length, mask=at < size)
    tl.store(out + at + 64, libdevice.sin(turn) * length, mask=at + 64 < size)

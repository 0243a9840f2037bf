"""Gaussian noise as a function of (seed, sample key, index).

A map must not depend on the batch that its sample is in, nor on the order or the size of the chunks
in which its noise samples are evaluated. So noise is looked up, not consumed: noise sample `k` of
sample key `j` is always the same tensor, and global generators are neither read nor written.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from moreaugrad.registry import choose
from moreaugrad.score.inputs import per_sample, spread
from moreaugrad.score.normals import normals
from moreaugrad.settings import Documented, expect

DEFAULT_SIGMA = 0.1
"""Noise level of the Gaussian-regularised explainers, as a fraction of each input's own range."""

KEYS = 2**62
"""Ids lie below it; solvers use keys above it for streams of their own."""

RELATIVE, ABSOLUTE = "relative", "absolute"

Cell = tuple[slice, int, slice]
"""Rows of a chunk, the number of a noise sample, and the rows of the batch that they hold."""


@dataclass(frozen=True)
class Noise(metaclass=Documented):
    """Standard normal noise, antithetic in pairs: sample `2i + 1` is minus sample `2i`.

    >>> found = mg.Noise(seed=1).normals([0], 0, x)

    Antithetic pairs cancel every odd term of the integrand at no cost.
    """

    seed: int = 0
    """Random seed, a number >= 0."""
    antithetic: bool = True
    """Whether noise comes in pairs z, -z; False for bounds that assume independent samples."""

    def __post_init__(self) -> None:
        expect(0 <= self.seed < 2**63, "seed", "an integer from 0 to 2^63 - 1", self.seed)

    def number(self, index: int) -> tuple[int, int]:
        """The number of the normal vector that noise sample `index` uses, and its sign."""
        return (index // 2, 1 - 2 * (index % 2)) if self.antithetic else (index, 1)

    def normal(self, key: int, number: int, size: int) -> Tensor:
        """Normal vector `number` of a sample key: `[size]`, float32, on the CPU."""
        return normals(self.seed, [(key, number)], size, torch.device("cpu"))[0]

    def draw(
        self, keys: Sequence[int], index: int, like: Tensor, real: Tensor | None = None
    ) -> Tensor:
        """Noise sample `index` for these keys: `[B, n]`, of the dtype and device of `like`."""
        number, sign = self.number(index)
        return sign * self.normals(keys, number, like, real).expand(len(keys), -1)

    def normals(
        self, keys: Sequence[int], number: int, like: Tensor, real: Tensor | None = None
    ) -> Tensor:
        """Normal vector `number` for these keys: `[B, n]`, or `[1, n]` if all keys are the same.

        real `[B, n]`: the vector's first numbers go to the real entries in their order, so that
        padding does not change them; the other entries are zero.
        """
        return self._several(keys, [number], like, real)[0]

    def _several(
        self, keys: Sequence[int], numbers: Sequence[int], like: Tensor, real: Tensor | None
    ) -> Tensor:
        """`normals` for several numbers at once: `[len(numbers), B or 1, n]`."""
        row = {key: at for at, key in enumerate(dict.fromkeys(keys))}
        wanted = [(key, number) for number in numbers for key in row]
        flat = normals(self.seed, wanted, like.shape[1], like.device).to(like.dtype)
        made = flat.reshape(len(numbers), len(row), like.shape[1])
        if 1 < len(row) < len(keys):
            made = made[:, [row[key] for key in keys]]
        if real is None:
            return made
        place = (real.cumsum(1) - 1).clamp_min(0)
        rows = made.expand(-1, len(keys), -1)
        return rows.gather(2, place.expand(len(numbers), -1, -1)) * real

    def adder(
        self, keys: Sequence[int], base: Tensor, sigma: Tensor, real: Tensor | None = None
    ) -> Callable[[Tensor, Sequence[Cell]], None]:
        """A function add(points, cells) for one batch, which writes base + sigma z into `points`.

        All vectors of a call are made at once and kept until the next one: antithetic partners,
        and samples that a chunk splits, are generated once.
        """
        kept: dict[int, Tensor] = {}

        def add(points: Tensor, cells: Sequence[Cell]) -> None:
            nonlocal kept
            numbers = dict.fromkeys(self.number(index)[0] for _, index, _ in cells)
            if self.antithetic and _whole_pairs(cells, len(base)):
                made = self._several(keys, list(numbers), base, real)
                halves = points.view(len(numbers), 2, *base.shape)
                for half, sign in enumerate((1, -1)):
                    torch.addcmul(base, sigma, made, value=sign, out=halves[:, half])
                return
            missing = [number for number in numbers if number not in kept]
            if missing:
                kept |= zip(missing, self._several(keys, missing, base, real), strict=True)
            kept = {number: kept[number] for number in numbers}
            for place, index, rows in cells:
                number, sign = self.number(index)
                normal = kept[number] if len(kept[number]) == 1 else kept[number][rows]
                torch.addcmul(base[rows], sigma[rows], normal, value=sign, out=points[place])

        return add


def _whole_pairs(cells: Sequence[Cell], batch: int) -> bool:
    """Whether a chunk has the whole batch in each cell, and both noise samples of each pair in
    turn."""
    indices = [index for _, index, _ in cells]
    pairs = [index for first in indices[::2] for index in (first, first + 1)]
    whole = all(rows == slice(0, batch) for _, _, rows in cells)
    return whole and indices == pairs and all(first % 2 == 0 for first in indices[::2])


def sample_keys(ids: Sequence[int] | Tensor | None, batch: int) -> tuple[int, ...]:
    """One key for each sample: its id, or 0 for all without ids, so that samples share their noise.

    Errors: ValueError for a wrong number of ids or an id out of range; TypeError for an id that is
    no whole number.
    """
    if ids is None:
        return (0,) * batch
    keys = tuple(map(_whole, ids))
    expect(len(keys) == batch, "ids", f"one for each of the {batch} samples", len(keys))
    for key in keys:
        expect(0 <= key < KEYS, "ids", "numbers from 0 to 2^62 - 1", key)
    return keys


def _whole(key: object) -> int:
    boolean = isinstance(key, bool) or getattr(key, "dtype", None) in (torch.bool, np.dtype(bool))
    if not boolean:
        with contextlib.suppress(TypeError):
            return operator.index(key)  # type: ignore[arg-type]
    raise TypeError(f"ids: expected whole numbers, got {key!r}")


def noise_level(
    parts: Sequence[Tensor], sigma: float, mode: str, real: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """Standard deviation of the noise for each sample of each input, `[B, 1, ..]`.

    mode: "relative" multiplies sigma by (max - min) of that sample's own input, over its real
    entries if `real` gives each input's mask; "absolute" takes sigma itself.
    """
    expect(0 <= sigma < torch.inf, "sigma", "a finite number >= 0 (0: no noise)", sigma)
    choose("sigma_mode", mode, (RELATIVE, ABSOLUTE))
    levels = []
    for index, part in enumerate(parts):
        flat = part.flatten(1)
        own = None if real is None else real[index].flatten(1)
        width = spread(flat, own) if mode == RELATIVE else torch.ones_like(flat[:, 0])
        levels.append(per_sample(sigma * width, part))
    return levels


class Stream(IntEnum):
    """The purpose of random numbers, a word of the generator's counter; the noise of maps has 0."""

    ORDER = 1
    VALUES = 2
    NORMAL = 3
    BOX = 4
    WEIGHTS = 5
    RANKS = 6
    JITTER = 7
    SETS = 8
    LINE = 9
    ENGINE = 10


def generator(seed: int, key: int, stream: Stream, number: int) -> np.random.Generator:
    """A generator that is a function of these four: (seed, sample key, purpose, number of draw).

    Errors: ValueError for a negative seed.
    """
    expect(0 <= seed < 2**63, "seed", "an integer from 0 to 2^63 - 1", seed)
    return np.random.Generator(np.random.Philox(key=[seed, key], counter=[0, 0, stream, number]))

"""Synthetic cells: ten classes of images, each with the map that an explanation should find.

All lengths below are in pixels of the original of 512 x 512, for images of any size.

Source: Tjoa and Guan, "Quantifying explainability of saliency methods in deep neural networks
with a synthetic dataset", 2020 (arXiv 2009.02899), and its released generator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from moreaugrad.settings import Documented, expect

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

CLASS_NAMES = (
    "plain cell",
    "cell with a bar",
    "cell with a cross",
    "red rectangle",
    "green rectangle",
    "blue rectangle",
    "cell with one tail",
    "cell with three tails",
    "cell with eight tails",
    "empty",
)
PLAIN, BAR, CROSS, RED, GREEN, BLUE, TAIL, THREE_TAILS, EIGHT_TAILS, EMPTY = range(10)
TAILS = {TAIL: 1, THREE_TAILS: 3, EIGHT_TAILS: 8}
MARKED = (BAR, CROSS, *TAILS)
LOCALISATION, FEATURE = 0.4, 0.9
"""Values of the ground truth map: on the object, and on the feature that defines its class."""

ORIGINAL = 512
VISIBLE = 0.05
"""A part is visible where a third of the norm of its colour, after interpolation, exceeds this."""
FAINT = 0.01
"""The background is visible in a channel where the object is darker than this."""
TAIL_FRACTION = 0.003
ATTEMPTS = 1000


@dataclass(frozen=True, kw_only=True)
class Cells(metaclass=Documented):
    """A sequence of (image `[3, size, size]` in [0, 1], label, ground truth map `[size, size]`).

    Image i is a function of (seed, i). The map is 0 on the background, 0.4 on the object and 0.9 on
    the feature of its class; both tensors are float32. An object may be partly outside of the
    frame.

    Differs from the source: a bar is at least one pixel wide, so that it seldom breaks in small
    images. Errors: ValueError for a size below 16; IndexError for an index of `count` or more.

    >>> image, label, truth = mg.data.Cells(count=8)[0]
    """

    size: int = ORIGINAL
    """Side of the images in pixels, at least 16."""
    seed: int = 0
    """Random seed of the images."""
    count: int = 1024
    """Number of images."""
    min_feature_fraction: float = 0.0
    """Smallest fraction of the image that the feature of an object covers (for one tail at least
    0.003); other objects are drawn again."""

    def __post_init__(self) -> None:
        expect(self.size >= 16, "size", "at least 16 pixels", self.size)
        expect(self.seed >= 0, "seed", "a number >= 0", self.seed)
        expect(self.count >= 0, "count", "a number >= 0", self.count)
        least = self.min_feature_fraction
        known = "a fraction of the image from 0 to 0.02 (thin bars cover no more)"
        expect(0 <= least <= 0.02, "min_feature_fraction", known, least)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        rng, label = self._start(index)
        image, heat = np.zeros((3, self.size, self.size)), np.zeros((self.size, self.size))
        if label != EMPTY:
            image, heat = self._object(rng, label)
        image = _with_background(rng, image)
        return (
            torch.from_numpy(image.clip(0, 1).astype(np.float32)),
            label,
            torch.from_numpy(heat.astype(np.float32)),
        )

    def label(self, index: int) -> int:
        """The label of an image, without drawing it."""
        return self._start(index)[1]

    def _start(self, index: int) -> tuple[np.random.Generator, int]:
        if not 0 <= index < self.count:
            raise IndexError(f"expected an index from 0 to {self.count - 1}, got {index}")
        rng = np.random.default_rng([self.seed, index])
        return rng, int(rng.integers(len(CLASS_NAMES)))

    def _object(self, rng: np.random.Generator, label: int) -> tuple[Array, Array]:
        least = max(self.min_feature_fraction, TAIL_FRACTION if label == TAIL else 0.0)
        for _ in range(ATTEMPTS):
            image, heat = _draw(rng, label, self.size)
            fraction = np.mean(heat == FEATURE)
            if fraction > 0 and fraction >= least:
                return image, heat
        raise RuntimeError(
            f"no {CLASS_NAMES[label]} with a feature of {least:.3%} of the image in "
            f"{ATTEMPTS} attempts; lower min_feature_fraction"
        )


@dataclass(frozen=True)
class _Parts:
    """An upright object: its masks, their colours, and its offset in the frame."""

    border: Mask
    inner: Mask
    mark: Mask
    border_colour: Array
    inner_colour: Array
    mark_colour: Array
    offset: tuple[float, float] = (0.0, 0.0)


def _draw(rng: np.random.Generator, label: int, size: int) -> tuple[Array, Array]:
    """A rotated and shifted object on black: image `[3, size, size]` and ground truth map."""
    angle = math.radians(rng.uniform(-60, 60))
    rectangle = label in (RED, GREEN, BLUE)
    parts = _rectangle(rng, label, size) if rectangle else _cell(rng, label, size)
    masks = [parts.border & ~parts.mark, parts.inner & ~parts.mark, parts.mark]
    if label in MARKED:
        masks += [parts.border, parts.inner]
    placed = _place(np.stack(masks).astype(np.float64), angle, parts.offset)
    colours = np.stack([parts.border_colour, parts.inner_colour, parts.mark_colour], axis=1)
    image: Array = np.tensordot(colours, placed[:3], axes=1).clip(0, 1)
    norms = np.linalg.norm(colours, axis=0) / 3
    whole = placed[3:] if label in MARKED else placed[:2]
    border, inner = whole[0] * norms[0] > VISIBLE, whole[1] * norms[1] > VISIBLE
    marked = placed[2] * norms[2] > VISIBLE if label in MARKED else border
    heat: Array = np.where(marked, FEATURE, np.where(border | inner, LOCALISATION, 0.0))
    return image, heat


def _cell(rng: np.random.Generator, label: int, size: int) -> _Parts:
    smoothness, strength = rng.uniform(31, 64), rng.uniform(6, 12)
    cells = int(ORIGINAL / smoothness)

    def wobble() -> Array:
        return _smooth(rng.normal(0, strength, (cells, cells)), size)

    radius, thickness, stretch = rng.uniform(90, 110), rng.uniform(10, 30), rng.uniform(0.5, 1.5)
    border_colour = rng.uniform(0.5, 0.9, 3)
    inner_colour = rng.uniform([0.1, 0.1, 0.3], [0.3, 0.3, 0.5])
    x, y = _coordinates(size)
    distance = np.hypot(x, y / stretch) + wobble()
    inner = distance < radius - thickness
    border = (distance <= radius) & ~inner
    mark, colour = np.zeros_like(border), border_colour
    if label != PLAIN:
        x, y = x + wobble(), y + wobble()
    half_pixel = ORIGINAL / size / 2
    if label in (BAR, CROSS):
        mark = (np.abs(x) <= radius) & (np.abs(y) <= max(rng.uniform(10, 30) // 2, half_pixel))
    if label == CROSS:
        pole = np.abs(x) <= max(rng.uniform(5, 40) // 2, half_pixel)
        mark |= pole & (np.abs(y) <= radius * stretch)
    if label in TAILS:
        colour = 0.75 * border_colour
        half = max(rng.uniform(10, 30) / 2, half_pixel)
        start, end = 0.8 * stretch * radius, 1.5 * stretch * radius + thickness
        for turn in np.arange(TAILS[label]) * (2 * math.pi / TAILS[label]):
            across = math.cos(turn) * x - math.sin(turn) * y
            along = math.sin(turn) * x + math.cos(turn) * y
            mark |= (np.abs(across) <= half) & (along >= start) & (along <= end)
    rows, columns = _offset(rng)
    return _Parts(border, inner, mark, border_colour, inner_colour, colour, (columns, rows))


def _rectangle(rng: np.random.Generator, label: int, size: int) -> _Parts:
    """Unlike a cell it is shifted before it is rotated, and one field distorts both coordinates."""
    smoothness, strength = rng.uniform(31, 64), rng.uniform(6, 12)
    cells = int(ORIGINAL / smoothness)
    height, width, thickness = rng.uniform(100, 200), rng.uniform(100, 200), rng.uniform(10, 30)
    border_colour = rng.uniform(0, 0.2, 3)
    border_colour[label - RED] = rng.uniform(0.6, 0.9)
    inner_colour = rng.uniform([0.1, 0.1, 0.3], [0.3, 0.3, 0.5])
    wobble = _smooth(rng.normal(0, strength, (cells, cells)), size)
    columns, rows = _offset(rng)
    x, y = _coordinates(size)
    x, y = np.abs(x + wobble - columns), np.abs(y + wobble - rows)
    inner = (x <= width // 2 - thickness) & (y <= height // 2 - thickness)
    border = (x <= width // 2) & (y <= height // 2) & ~inner
    mark = np.zeros_like(border)
    return _Parts(border, inner, mark, border_colour, inner_colour, border_colour)


def _offset(rng: np.random.Generator) -> tuple[float, float]:
    first, second = np.trunc(rng.uniform(-0.33 * ORIGINAL, 0.33 * ORIGINAL, 2))
    return float(first), float(second)


def _with_background(rng: np.random.Generator, image: Array) -> Array:
    kind, size = rng.integers(3), image.shape[-1]
    if kind == 0:
        return image
    ground = np.empty_like(image)
    x, y = _coordinates(size)
    for channel in range(3):
        if kind == 1:
            ground[channel] = _smooth(rng.uniform(0.2, 0.7, (8, 8)), size)
            continue
        column, row = rng.uniform(128, 384, 2)
        frequency = math.degrees(rng.uniform(1e-4, 1e-3))
        ripple = 1 + _smooth(rng.uniform(-0.3, 0.3, (16, 16)), size)
        wave = np.sin(frequency * ripple * np.hypot(x - column, y - row))
        ground[channel] = 0.5 * (0.5 * wave + 0.5)
    return image + np.where(image < FAINT, ground, 0.0)


@lru_cache(maxsize=8)
def _coordinates(size: int) -> tuple[Array, Array]:
    """Coordinates x `[1, size]` and y `[size, 1]` of the pixels, from -256 to 255."""
    line = (np.arange(size, dtype=np.float64) + 0.5) * (ORIGINAL / size) - 0.5 - ORIGINAL / 2
    return line[None, :], line[:, None]


def _smooth(grid: Array, size: int) -> Array:
    """A grid `[g, g]` resized bilinearly to `[size, size]`, mirrored at the borders."""
    weights = _bilinear(len(grid), size)
    return np.asarray(weights @ grid @ weights.T)


@lru_cache(maxsize=64)
def _bilinear(cells: int, size: int) -> Array:
    position = (np.arange(size) + 0.5) * (cells / size) - 0.5
    low = np.floor(position).astype(int)
    fraction = position - low
    weights = np.zeros((size, cells))
    for index, weight in ((low, 1 - fraction), (low + 1, fraction)):
        mirrored = np.abs(index)
        mirrored = np.where(mirrored > cells - 1, 2 * (cells - 1) - mirrored, mirrored)
        np.add.at(weights, (np.arange(size), mirrored), weight)
    return weights


def _place(masks: Array, angle: float, offset: tuple[float, float]) -> Array:
    """Masks `[K, S, S]` rotated counter-clockwise about the centre, then shifted by whole pixels.

    Both steps fill with zeros, so what the rotation moves out of the frame does not come back.
    """
    size = masks.shape[-1]
    columns, rows = (round(part * size / ORIGINAL) for part in offset)
    line = (2 * np.arange(size, dtype=np.float64) + 1) / size - 1
    x, y = line[None, :] - 2 * columns / size, line[:, None] - 2 * rows / size
    cos, sin = math.cos(angle), math.sin(angle)
    grid = np.empty((1, size, size, 2))
    grid[0, ..., 0], grid[0, ..., 1] = cos * x - sin * y, sin * x + cos * y
    turned = grid_sample(torch.from_numpy(masks)[None], torch.from_numpy(grid), align_corners=False)
    placed: Array = turned[0].numpy()
    placed *= (np.abs(x) < 1) & (np.abs(y) < 1)
    return placed

"""Random augmentation of images, together with their attention maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from moreaugrad.data.images import Size, centred, resized
from moreaugrad.registry import choose
from moreaugrad.settings import Documented, expect

Array = np.ndarray
Pixels = tuple[Array, Array | None]
"""An image `[H, W, 3]` and its attention map `[H, W]` or None, both uint8."""

CROPS = ("random", "centre", "resized")
Box = tuple[slice, slice]
AREA, ASPECT, DRAWS = (0.08, 1.0), (3 / 4, 4 / 3), 10


@dataclass(frozen=True, kw_only=True)
class Augment(metaclass=Documented):
    """Resize, rotate, pad, crop to `size` and flip; then blur and change the colours of the image.

    The attention map goes through the same geometric changes. A crop without any attention is
    drawn again. All random numbers are a function of (seed, epoch, id), so they do not depend on
    the order of the images or on the number of workers.

    >>> augment = mg.data.Augment(size=32, pad=4)
    >>> image, attention = mg.data.open_examples("cells", size=40, count=1).pixels(0)
    >>> image, attention = augment((image, attention), seed=0, epoch=0, key=0)
    """

    size: int
    """Side of the result in pixels."""
    resize: Size | None = None
    """The shorter side in pixels, or (height, width), before the crop; None means `size`, and with
    the crop "resized" the size of the image."""
    crop: str = "random"
    """The part that is kept: "random"; "centre"; or "resized", a random part of 8 to 100 % of the
    area and an aspect ratio of 3/4 to 4/3, resized to `size`."""
    pad: int = 0
    """Width in pixels of a black border that is added."""
    flip: bool = True
    """Whether to flip left and right with probability 1/2."""
    rotate: float = 0.0
    """Largest angle in degrees in either direction; the corners become black."""
    blur: float = 0.0
    """Largest standard deviation of a Gaussian blur in pixels."""
    brightness: float = 0.0
    """The brightness is multiplied by a factor from 1 - b to 1 + b, where this is b."""
    contrast: float = 0.0
    """The same for the contrast."""
    saturation: float = 0.0
    """The same for the saturation."""

    def __post_init__(self) -> None:
        choose("crop", self.crop, CROPS)
        expect(self.size >= 1, "size", "at least one pixel", self.size)
        for name, largest in (
            ("pad", np.inf), ("rotate", 180), ("blur", np.inf),
            ("brightness", 1), ("contrast", 1), ("saturation", 1),
        ):  # fmt: skip
            value = getattr(self, name)
            known = "a number >= 0" if largest == np.inf else f"a number from 0 to {largest}"
            expect(0 <= value <= largest and value < np.inf, name, known, value)
        least = self.resize if isinstance(self.resize, int) else min(self.resize or (self.size,))
        fits = self.crop == "resized" or least + 2 * self.pad >= self.size
        expect(fits, "resize", f"at least the {self.size} pixels of the crop", self.resize)

    @classmethod
    def evaluation(cls, size: int, resize: Size | None = None) -> Augment:
        """Without randomness: resize and centre crop."""
        return cls(size=size, resize=resize, crop="centre", flip=False)

    @property
    def first(self) -> Size | None:
        """The resize before all random changes, whose result can be kept in memory."""
        return self.size if self.resize is None and self.crop != "resized" else self.resize

    def __call__(self, pixels: Pixels, *, seed: int, epoch: int, key: int) -> Pixels:
        """Augment an image and its map. key: the id of the example."""
        rng = keyed(seed, epoch, key)
        pixels = fitted(pixels, self.first)
        if self.rotate:
            pixels = _both(pixels, _rotated, rng.uniform(-self.rotate, self.rotate))
        if self.pad:
            pixels = _both(pixels, _padded, self.pad)
        box = self._box(rng, *pixels)
        flip = self.flip and rng.random() < 0.5
        image, attention = _both(pixels, self._cut, box, flip)
        return self._coloured(rng, image), attention

    def _box(self, rng: np.random.Generator, image: Array, attention: Array | None) -> Box:
        """The part to keep; up to ten are drawn until one contains some of the attention."""
        height, width = image.shape[:2]
        for _ in range(DRAWS):
            high, wide = self.size, self.size
            if self.crop == "resized":
                high, wide = _part(rng, height, width)
            if self.crop == "centre":
                top, left = centred(height, high), centred(width, wide)
            else:
                top = int(rng.integers(height - high + 1))
                left = int(rng.integers(width - wide + 1))
            box = slice(top, top + high), slice(left, left + wide)
            if attention is None or attention[box].any():
                break
        return box

    def _cut(self, image: Array, box: Box, flip: bool) -> Array:
        image = _resized(image[box], (self.size, self.size))
        return image[:, ::-1] if flip else image

    def _coloured(self, rng: np.random.Generator, pixels: Array) -> Array:
        from PIL import Image, ImageEnhance, ImageFilter

        colours = (
            (self.brightness, ImageEnhance.Brightness),
            (self.contrast, ImageEnhance.Contrast),
            (self.saturation, ImageEnhance.Color),
        )
        if not self.blur and not any(strength for strength, _ in colours):
            return pixels
        image = Image.fromarray(pixels)
        if self.blur:
            image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, self.blur)))
        for strength, change in colours:
            if strength:
                image = change(image).enhance(rng.uniform(1 - strength, 1 + strength))
        return np.asarray(image)


def fitted(pixels: Pixels, size: Size | None) -> Pixels:
    """An image and its map resized, see `resized`; None keeps their size."""
    return pixels if size is None else _both(pixels, _resized, size)


def keyed(seed: int, number: int, key: int) -> np.random.Generator:
    """A generator for each (seed, number, key), independent of all others and of `Noise`."""
    words = np.array([seed, key], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=words, counter=[0, 0, 1, number]))


def _both(pixels: Pixels, change: Callable[..., Array], *settings: object) -> Pixels:
    image, attention = pixels
    return change(image, *settings), None if attention is None else change(attention, *settings)


def _part(rng: np.random.Generator, height: int, width: int) -> tuple[int, int]:
    """Height and width of a random part; if ten do not fit in the image, the largest that does."""
    for _ in range(DRAWS):
        area = rng.uniform(*AREA) * width * height
        aspect = np.exp(rng.uniform(*np.log(ASPECT)))
        high, wide = round(np.sqrt(area / aspect)), round(np.sqrt(area * aspect))
        if 0 < high <= height and 0 < wide <= width:
            return high, wide
    return min(height, round(width / ASPECT[0])), min(width, round(height * ASPECT[1]))


def _padded(image: Array, pad: int) -> Array:
    return np.pad(image, [(pad, pad)] * 2 + [(0, 0)] * (image.ndim - 2))


def _resized(image: Array, size: Size) -> Array:
    from PIL import Image

    if size in (image.shape[:2], min(image.shape[:2])):
        return image
    return np.asarray(resized(Image.fromarray(image), size))


def _rotated(image: Array, angle: float) -> Array:
    from PIL import Image

    return np.asarray(Image.fromarray(image).rotate(angle, Image.Resampling.BILINEAR))

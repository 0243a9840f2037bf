"""Random changes of a picture, and of its attention map with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from moreaugrad.data.images import Size, resized
from moreaugrad.names import choose

if TYPE_CHECKING:
    from PIL.Image import Image

CROPS = ("random", "centre", "resized")
AREA, ASPECT, DRAWS = (0.08, 1.0), (3 / 4, 4 / 3), 10


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Resize, rotate, pad, crop to `size`, flip; then blur and colours, of the picture alone.

    size: side of the square that is kept. resize: the shorter side, or (height, width); None is
    `size`, or for crop "resized" the picture as it is.
    crop: "random"; "centre"; "resized", a random 8 to 100 % of the area, of aspect 3/4 to 4/3.
    pad: pixels of black on each side. flip: left and right, with probability 1/2.
    rotate: the largest angle in degrees, either way, corners black.
    blur: the largest standard deviation in pixels of a Gaussian.
    brightness, contrast, saturation: the factor lies from 1 - b to 1 + b.

    All draws are a function of (seed, epoch, id): neither the order of the pictures nor the number
    of workers counts.
    """

    size: int
    resize: Size | None = None
    crop: str = "random"
    pad: int = 0
    flip: bool = True
    rotate: float = 0.0
    blur: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def __post_init__(self) -> None:
        choose("crop", self.crop, CROPS)
        if self.size < 1:
            raise ValueError(f"size: expected at least one pixel, got {self.size}")
        least = self.resize if isinstance(self.resize, int) else min(self.resize or (self.size,))
        if self.crop != "resized" and least + 2 * self.pad < self.size:
            raise ValueError(
                f"resize: expected at least the {self.size} pixels that are kept, got {self.resize}"
            )
        for name, largest in (
            ("pad", np.inf), ("rotate", 180), ("blur", np.inf),
            ("brightness", 1), ("contrast", 1), ("saturation", 1),
        ):  # fmt: skip
            value = getattr(self, name)
            if not 0 <= value <= largest or value == np.inf:
                bound = "a number >= 0" if largest == np.inf else f"a number from 0 to {largest}"
                raise ValueError(f"{name}: expected {bound}, got {value!r}")

    @classmethod
    def evaluation(cls, size: int, resize: Size | None = None) -> Augment:
        """Nothing random: resize and centre crop."""
        return cls(size=size, resize=resize, crop="centre", flip=False)

    @property
    def first(self) -> Size | None:
        """The resize that comes before all that is random, so that its result may be kept."""
        return self.size if self.resize is None and self.crop != "resized" else self.resize

    @property
    def random(self) -> bool:
        changes = (self.flip, self.rotate, self.blur, self.brightness, self.contrast)
        return self.crop != "centre" or any(changes) or self.saturation > 0

    def __call__(
        self, picture: Image, attention: Image | None, *, seed: int, epoch: int, key: int
    ) -> tuple[Image, Image | None]:
        """Both, changed together. key: the example's id."""
        rng = keyed(seed, epoch, key)
        if self.first is not None:
            picture = resized(picture, self.first)
            attention = attention and resized(attention, self.first)
        if self.rotate:
            angle = rng.uniform(-self.rotate, self.rotate)
            picture, attention = _rotated(picture, angle), attention and _rotated(attention, angle)
        box = self._box(rng, picture)
        flip = self.flip and rng.random() < 0.5
        attention = attention and self._cut(attention, box, flip)
        return self._coloured(rng, self._cut(picture, box, flip)), attention

    def _box(self, rng: np.random.Generator, picture: Image) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of what is kept; it may leave the picture by `pad`."""
        width, height = picture.width + 2 * self.pad, picture.height + 2 * self.pad
        wide, high = self.size, self.size
        if self.crop == "resized":
            wide, high = _part(rng, width, height)
        if self.crop == "centre":
            left, top = round((width - wide) / 2), round((height - high) / 2)
        else:
            left = int(rng.integers(width - wide + 1))
            top = int(rng.integers(height - high + 1))
        left, top = left - self.pad, top - self.pad
        return left, top, left + wide, top + high

    def _cut(self, image: Image, box: tuple[int, int, int, int], flip: bool) -> Image:
        from PIL.Image import Transpose

        if box != (0, 0, *image.size):
            image = image.crop(box)  # Pillow fills with black where the box leaves the picture.
        image = resized(image, (self.size, self.size))
        return image.transpose(Transpose.FLIP_LEFT_RIGHT) if flip else image

    def _coloured(self, rng: np.random.Generator, picture: Image) -> Image:
        from PIL import ImageEnhance, ImageFilter

        if self.blur:
            picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, self.blur)))
        for strength, change in (
            (self.brightness, ImageEnhance.Brightness),
            (self.contrast, ImageEnhance.Contrast),
            (self.saturation, ImageEnhance.Color),
        ):
            if strength:
                picture = change(picture).enhance(rng.uniform(1 - strength, 1 + strength))
        return picture


def keyed(seed: int, number: int, key: int) -> np.random.Generator:
    """A generator for each (seed, number, key), whose draws are no other's, nor of `Noise`."""
    words = np.array([seed, key], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=words, counter=[0, 0, 1, number]))


def _part(rng: np.random.Generator, width: int, height: int) -> tuple[int, int]:
    """Width and height of a random part; after ten that do not fit, the largest that does."""
    for _ in range(DRAWS):
        area = rng.uniform(*AREA) * width * height
        aspect = np.exp(rng.uniform(*np.log(ASPECT)))
        wide, high = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < wide <= width and 0 < high <= height:
            return wide, high
    return (
        min(width, round(height * ASPECT[1])),
        min(height, round(width / ASPECT[0])),
    )


def _rotated(image: Image, angle: float) -> Image:
    from PIL.Image import Resampling

    return image.rotate(angle, Resampling.BILINEAR)

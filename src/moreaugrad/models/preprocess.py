"""From an image to the input of a model, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from moreaugrad.data.images import Picture, Size, centre_cropped, check_size, resized
from moreaugrad.registry import choose
from moreaugrad.settings import Documented

INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")


@dataclass(frozen=True, kw_only=True)
class Preprocess(metaclass=Documented):
    """Resize, centre crop, scale to [0, 1], then (pixel - mean) / std for each channel.

    >>> found = mg.models.Preprocess(resize=256, crop=224)(mg.load_image("docs/images/cell.png"))
    """

    resize: Size | None = None
    """The shorter side in pixels, or (height, width), which may change the aspect; None keeps the
    size."""
    crop: Size | None = None
    """Side or (height, width) in pixels of the centre crop; smaller images get black margins."""
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Three numbers for RGB, or one for grey."""
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    """Three numbers for RGB, or one for grey."""
    interpolation: str = "bilinear"
    """Of the resize: "nearest", "box", "bilinear", "hamming", "bicubic" or "lanczos"."""

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3):
            raise ValueError(
                "mean and std: expected three numbers each (RGB) or one each (grey), got "
                f"{self.mean} and {self.std}"
            )
        if not all(0 < value < math.inf for value in self.std):
            raise ValueError(f"std: expected numbers > 0, got {self.std}")
        if not all(map(math.isfinite, self.mean)):
            raise ValueError(f"mean: expected finite numbers, got {self.mean}")
        for name, size in (("resize", self.resize), ("crop", self.crop)):
            if size is not None:
                check_size(name, size)
        choose("interpolation", self.interpolation, INTERPOLATIONS)

    @property
    def input_shape(self) -> tuple[int, int, int] | None:
        """`(C, H, W)` of every input; None if it depends on the size of the image."""
        size = self.crop if self.crop is not None else self.resize
        if size is None or (self.crop is None and isinstance(size, int)):
            return None
        return (len(self.mean), *_both(size))

    def __call__(self, image: Picture) -> Tensor:
        """The input of an image: a normalised float32 tensor `[C, H, W]`."""
        image = image.convert("RGB" if len(self.mean) == 3 else "L")
        if self.resize is not None:
            image = resized(image, self.resize, self.interpolation)
        if self.crop is not None:
            image = centre_cropped(image, _both(self.crop))
        pixels = np.asarray(image, dtype=np.float32) / 255
        tensor = torch.from_numpy(pixels.reshape(image.height, image.width, -1)).permute(2, 0, 1)
        return self.normalised(tensor).contiguous()

    def normalised(self, pixels: Tensor) -> Tensor:
        """Pixels `[..., C, H, W]` in [0, 1] as inputs: (pixel - mean) / std."""
        return (pixels - self._column(self.mean, pixels)) / self._column(self.std, pixels)

    def pixels(self, x: Tensor) -> Tensor:
        """An input `[C, H, W]` as an image: RGB `[H, W, 3]` in [0, 1], on the CPU."""
        if x.ndim != 3 or len(x) != len(self.mean):
            raise ValueError(
                f"expected an input [{len(self.mean)}, H, W], got shape {tuple(x.shape)}"
            )
        x = x.detach().float().cpu()
        image = x * self._column(self.std, x) + self._column(self.mean, x)
        return image.clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0).contiguous()

    def _column(self, values: tuple[float, ...], like: Tensor) -> Tensor:
        return torch.tensor(values, device=like.device).view(-1, 1, 1)


def _both(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size

"""Where inputs live: pixels in an interval, and the units that the network takes them in."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from moreaugrad.score.inputs import Layout, flat_scale, per_channel
from moreaugrad.settings import Documented

PIXEL, INPUT = "pixel", "input"
UNITS = (INPUT, PIXEL)
"""Of lengths: the network's own, after the normalisation, or those of pixels before it."""


@dataclass(frozen=True, kw_only=True)
class InputSpace(metaclass=Documented):
    """Pixels in [low, high]; the network takes x = (pixel - mean) / std, for each channel.

    >>> space = mg.InputSpace(mean=(0.5,) * 3, std=(0.25,) * 3)

    It is declared once, where the model is wrapped; attacks, metrics and certificates ask it for
    the box of valid inputs and for lengths.
    """

    mean: float | tuple[float, ...] = 0.0
    """What is subtracted from a pixel: a number, or one for each channel."""
    std: float | tuple[float, ...] = 1.0
    """What the difference is divided by: a number, or one for each channel."""
    low: float = 0.0
    """Smallest value of a pixel."""
    high: float = 1.0
    """Largest value of a pixel."""

    def __post_init__(self) -> None:
        if not -float("inf") < self.low < self.high < float("inf"):
            raise ValueError(f"low and high: expected low < high, got {self.low} and {self.high}")

    def scale(self, layout: Layout, like: Tensor) -> Tensor:
        """std for every entry `[n]`: pixels of one unit of input."""
        return flat_scale(self.std, layout, like)

    def box(self, layout: Layout, like: Tensor) -> tuple[Tensor, Tensor]:
        """The least and the greatest input, `[n]` each."""
        scale, mean = self.scale(layout, like), self._mean(layout, like)
        return (self.low - mean) / scale, (self.high - mean) / scale

    def pixels(self, x: Tensor, layout: Layout) -> Tensor:
        """Inputs `[B, n]` as pixels."""
        return x * self.scale(layout, x) + self._mean(layout, x)

    def inputs(self, pixels: Tensor, layout: Layout) -> Tensor:
        """Pixels `[B, n]` as inputs."""
        return (pixels - self._mean(layout, pixels)) / self.scale(layout, pixels)

    def _mean(self, layout: Layout, like: Tensor) -> Tensor:
        return per_channel("mean", self.mean, layout, like)

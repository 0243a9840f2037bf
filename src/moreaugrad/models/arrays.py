"""How the values of files become the inputs of networks of series and volumes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moreaugrad.data.arrays import ArrayFile
from moreaugrad.data.images import centred
from moreaugrad.data.scans import Geometry
from moreaugrad.registry import choose
from moreaugrad.settings import Documented, expect

ANY = -1
"""A length that the network does not fix."""
EXACT, START, CENTRE = "exact", "start", "centre"
FITS = (EXACT, START, CENTRE)
FINEST = 100_000
"""Denominator of a ratio of rates: 173.61 is, as a binary fraction, one of 2^45 steps."""
Values = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class ArrayInput(metaclass=Documented):
    """What a network of series or volumes takes in; it makes an input of the values of a file.

    Sounds are resampled to the network's rate and, for a network of one channel, mixed to one.
    Arrays are taken as they are: their values, and for series their rate, are the network's own.

    >>> import numpy as np
    >>> takes = mg.models.ArrayInput(shape=(100,), fit="centre")
    >>> takes(mg.data.ArrayFile(np.zeros(90))).shape
    torch.Size([100])
    """

    shape: tuple[int, ...] = ()
    """Of an input without its batch, such as (16000,), (C, T) or (C, D, H, W); -1 is any length.
    () is any shape, of arrays alone."""
    rate: float | None = None
    """Samples per second of series. Sounds need it; the time axes of figures are in seconds with
    it."""
    fit: str = EXACT
    """What becomes of another length, height, ...: "exact" refuses it; "start" cuts or pads with
    zeros at the end, "centre" at both ends. The number of channels is never changed so."""
    window: tuple[float, ...] = ()
    """Level and width, such as (40, 400) of soft tissue in Hounsfield units: values from level -
    width / 2 to level + width / 2 become 0 to 1, others the nearer of the two. () leaves values."""

    def __post_init__(self) -> None:
        known = all(size >= 1 or size == ANY for size in self.shape)
        expect(known, "shape", "lengths >= 1, or -1 for any", self.shape)
        rate = self.rate
        expect(rate is None or 0 < rate < math.inf, "rate", "a finite number > 0", rate)
        choose("fit", self.fit, FITS)
        fits = not self.window or (len(self.window) == 2 and 0 < self.window[1] < math.inf)
        expect(fits and all(map(math.isfinite, self.window)), "window",
               "level and width > 0", self.window)  # fmt: skip

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """The shape of every input; None if they differ."""
        return self.shape if self.shape and ANY not in self.shape else None

    def __call__(self, found: ArrayFile) -> Tensor:
        """The input, float32. Errors: ValueError for values that are not finite, and another
        shape."""
        return self.prepared(found)[0]

    def prepared(self, found: ArrayFile) -> tuple[Tensor, list[str]]:
        """The input, and what was changed for it in words."""
        values, notes = found.values, list[str]()
        if found.rate is not None:
            values, notes = self._sound(values, found.rate)
        if found.spacing:
            notes.append(f"{' x '.join(f'{size:.3g}' for size in found.spacing)} mm")
        if self.window:
            level, width = self.window
            values = ((values - (level - width / 2)) / width).clip(0, 1)
            notes.append(f"window of level {level:g} and width {width:g}")
        before = list(values.shape)
        values = self._fitted(values)
        if list(values.shape) != before:
            notes.append(f"{before} made {list(values.shape)}, {self.fit}")
        try:
            with np.errstate(over="ignore"):  # infinite, which is refused below
                tensor = torch.from_numpy(np.array(values, dtype=np.float32, order="C"))
        except MemoryError:
            raise ValueError(
                f"expected an array that fits into memory, got the shape {before}: explain a part "
                "of it, as the network is applied to it"
            ) from None
        wrong = int((~tensor.isfinite()).sum())
        if wrong:
            raise ValueError(
                f"expected finite values, but {wrong} of {tensor.numel()} are NaN or infinite in "
                "float32: replace them"
            )
        return tensor, notes

    def geometry(self, found: ArrayFile) -> Geometry | None:
        """Where the voxels of the input of a scan are: as in its file, moved by what is cut or
        padded."""
        if found.geometry is None:
            return None
        return found.geometry.moved(self._starts(found.values.shape)[1:])

    def _sound(self, values: Values, rate: int) -> tuple[Values, list[str]]:
        """Channels `[C, T]` at the rate and of the number of channels that the network takes."""
        if self.rate is None or len(self.shape) not in (1, 2):
            takes = f"inputs of the shape {list(self.shape)}" if self.shape else "any shape"
            raise ValueError(
                "a sound needs a network of series, whose shape and rate are known, such as "
                f"--shape 1,16000 --rate 16000; got {takes}, "
                f"{'no rate' if self.rate is None else f'{self.rate:g} samples per second'}"
            )
        wanted, notes = 1 if len(self.shape) == 1 else self.shape[0], []
        if wanted == 1 < len(values):
            notes.append(f"mean of {len(values)} channels")
            values = values.mean(0, keepdims=True)
        if wanted not in (len(values), ANY):
            raise ValueError(f"expected {wanted} channels, got a sound of {len(values)}")
        if rate != self.rate:
            notes.append(f"resampled from {rate} to {self.rate:g} samples per second")
            values = _resampled(values, rate, self.rate)
        return values[0] if len(self.shape) == 1 else values, notes

    def _fitted(self, values: Values) -> Values:
        given, wanted = values.shape, self.shape or values.shape
        first = 1 if len(wanted) > 1 else 0  # channels are never cut or filled
        alike = len(given) == len(wanted) and all(
            new in (old, ANY) for old, new in zip(given[:first], wanted[:first], strict=True)
        )
        fits = all(new in (old, ANY) for old, new in zip(given, wanted, strict=False))
        if not alike or (not fits and self.fit == EXACT):
            what = "give one input without a batch dimension, its channels first"
            if alike:
                what = "--fit start or --fit centre cuts it or pads it with zeros"
            raise ValueError(f"expected the shape {_words(wanted)}, got {_words(given)}: {what}")
        margins, kept = [], []
        for old, new, start in zip(given, wanted, self._starts(given), strict=True):
            size = old if new == ANY else new
            kept.append(slice(max(0, start), max(0, start) + size))
            before = max(0, -start)
            margins.append((before, max(0, size - old - before)))
        part = values[tuple(kept)]
        return np.pad(part, margins) if any(map(any, margins)) else part

    def _starts(self, given: Sequence[int]) -> list[int]:
        """Where the input begins in an array of this shape; negative where zeros come before."""
        if self.fit != CENTRE:
            return [0] * len(given)
        return [
            0 if new == ANY else centred(old, new)
            for old, new in zip(given, self.shape or given, strict=True)
        ]


def _words(shape: tuple[int, ...]) -> str:
    return f"[{', '.join('any' if size == ANY else str(size) for size in shape)}]"


def _resampled(values: Values, before: int, after: float) -> Values:
    """Polyphase filtering, Kaiser window (scipy's default), zeros before and after."""
    from scipy.signal import resample_poly

    ratio = Fraction(after / before).limit_denominator(FINEST)
    found: Values = resample_poly(values, ratio.numerator, ratio.denominator, axis=-1)
    return found

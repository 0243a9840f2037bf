"""Feature visualisation: inputs that raise a score, by gradient ascent from noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from moreaugrad.explainers.calling import Progress, reporting
from moreaugrad.score import checks
from moreaugrad.score.bound_score import ForwardFunc
from moreaugrad.score.forward import outside_autocast
from moreaugrad.score.inputs import InputSpace, Layout
from moreaugrad.score.noise import Noise, Stream, generator, sample_keys
from moreaugrad.score.score import Score
from moreaugrad.settings import Documented, expect


@dataclass(frozen=True, kw_only=True)
class Ascent(metaclass=Documented):
    """Settings of p <- clip(p + step g / rms(g)), g = grad [f - decay |p - centre|^2 / 2 - tv T].

    >>> found = mg.activation_maximisation(model, 0, x.shape[1:], ascent=mg.Ascent(steps=8))

    p are pixels, f the score, and rms is over a sample's entries. T is half the sum of squared
    differences of neighbouring pixels; centre is the middle of the interval of pixel values.

    Source: Simonyan et al. (2014), arXiv 1312.6034 (decay); Mahendran and Vedaldi (2015), arXiv
    1412.0035 (T, jitter); Yosinski et al. (2015), arXiv 1506.06579 (blur).
    """

    steps: int = 256
    """Steps of the ascent."""
    step: float = 0.01
    """Length of a step, in pixel values; without `normalise` the factor of the gradient."""
    normalise: bool = True
    """Divide the gradient by its root mean square."""
    decay: float = 0.0
    """Weight of the squared distance from the centre."""
    tv: float = 0.0
    """Weight of T, which makes images smooth."""
    jitter: int = 0
    """Largest random shift of the image in each step, in pixels either way (circular)."""
    blur: float = 0.0
    """Standard deviation of a Gaussian filter after every `every`-th step, in pixels; 0: none."""
    every: int = 4
    """Steps between two blurs."""
    clip: bool = True
    """Clip pixels to the interval of pixel values."""
    sigma: float = 0.05
    """Standard deviation of the noise around the centre from which the ascent starts, as a fraction
    of the interval."""
    seed: int = 0
    """Random seed of the noise and of the jitter."""

    def __post_init__(self) -> None:
        Noise(self.seed)
        for name in ("steps", "every"):
            value = getattr(self, name)
            expect(value >= 1, name, "at least 1", value)
        expect(self.jitter >= 0, "jitter", "at least 0", self.jitter)
        for name in ("step", "decay", "tv", "blur", "sigma"):
            value = getattr(self, name)
            expect(0 <= value < math.inf, name, "a finite number >= 0", value)
        expect(self.step > 0, "step", "more than 0", self.step)

    @property
    def spatial(self) -> bool:
        """Whether neighbours matter, so that inputs must be images."""
        return bool(self.tv or self.jitter or self.blur)


@dataclass(frozen=True, kw_only=True, eq=False)
class Visualisation:
    """Inputs that raise a score."""

    inputs: Tensor
    """`[B, ...]`, in the units of the network."""
    pixels: Tensor
    """The same as pixels."""
    before: Tensor
    """The score at the start, `[B]`."""
    after: Tensor
    """The score at the end, `[B]`."""
    prediction: Tensor
    """The predicted class at the end, `[B]`."""


def activation_maximisation(
    model: ForwardFunc,
    target: int | Sequence[int] | Tensor,
    shape: Sequence[int],
    *,
    space: InputSpace | None = None,
    ascent: Ascent | None = None,
    start: Tensor | None = None,
    kind: str = "logit",
    task: str = "auto",
    ids: Sequence[int] | Tensor | None = None,
    batch_size: int | None = None,
    progress: Progress | bool | None = None,
) -> Visualisation:
    """For each class in `target`, an input that raises the class's score.

    >>> found = mg.activation_maximisation(model, 0, x.shape[1:], ascent=mg.Ascent(steps=8))

    shape: of a sample, `(C, H, W)` or `(N,)`. space: how inputs are computed from pixels; by
    default inputs are pixels in [0, 1]. start: inputs `[B, *shape]` instead of noise. kind, task:
    of the score, as for `Score`. ids: keys of the noise, by default the index in `target`, so that
    images of one class differ. progress: True for a bar, or a function
    of (step, steps).
    Errors: ValueError for a shape, a target or a start that does not fit, and for a gradient that
    is not finite.
    """
    space, ascent = space or InputSpace(), ascent or Ascent()
    if callable(target):
        raise TypeError("target: expected classes, an input is made for each; got a function")
    classes = torch.as_tensor(target).reshape(-1)
    sizes = (len(classes), *shape)
    if ascent.spatial and len(shape) != 3:
        raise ValueError(f"tv, jitter, blur: need images (C, H, W), got shape {tuple(shape)}")
    given = sizes if start is None else tuple(start.shape)
    expect(given == sizes, "start", f"inputs {list(sizes)}", list(given))
    keys = sample_keys(range(len(classes)) if ids is None else ids, len(classes))
    if start is None:
        start = _noise(_like(model), sizes, keys, space, ascent)
    score = Score(model, kind=kind, task=task, batch_size=batch_size)
    bound = score.bind(start, classes.to(start.device), ids=keys)
    layout, climb = bound.layout, _Climb(ascent, space, sizes, keys)
    scale = space.scale(layout, bound.origin)
    pixels = space.pixels(bound.origin, layout)

    def slope(shown: Tensor) -> Tensor:
        """Gradient of the score by the pixels."""
        return bound.moved(space.inputs(shown, layout)).value_and_grad()[1] / scale

    reported = reporting(progress, "activation_maximisation")
    with reported as report, outside_autocast(pixels.device):
        for number in range(ascent.steps):
            pixels = climb.step(pixels, number, slope)
            if report is not None:
                report(number + 1, ascent.steps)
    ended = bound.moved(space.inputs(pixels, layout))
    ended = ended.resolved(ended.clean_outputs(), bound.target.classes)
    return Visualisation(
        inputs=layout.restore(ended.origin)[0],
        pixels=layout.restore(pixels)[0],
        before=bound.clean,
        after=ended.clean,
        prediction=ended.prediction,
    )


class _Climb:
    """The steps of an ascent; pixels are `[B, n]`."""

    def __init__(
        self, ascent: Ascent, space: InputSpace, sizes: Sequence[int], keys: Sequence[int]
    ) -> None:
        self.ascent, self.space, self.sizes = ascent, space, sizes
        self.centre = (space.low + space.high) / 2
        most = ascent.jitter
        streams = (generator(ascent.seed, key, Stream.JITTER, 0) for key in keys)
        size = (ascent.steps, 2)
        self.shifts = np.stack([stream.integers(-most, most + 1, size) for stream in streams])

    def step(self, pixels: Tensor, number: int, slope: Callable[[Tensor], Tensor]) -> Tensor:
        ascent = self.ascent
        gradient = self._rolled(slope(self._rolled(pixels, number, 1)), number, -1)
        checks.check_finite("the gradient", (gradient,))
        if ascent.decay:
            gradient = gradient - ascent.decay * (pixels - self.centre)
        if ascent.tv:
            gradient = gradient - ascent.tv * self._roughness(pixels)
        if ascent.normalise:
            length = gradient.square().mean(1, keepdim=True).sqrt()
            gradient = gradient / length.clamp_min(torch.finfo(length.dtype).tiny)
        pixels = pixels + ascent.step * gradient
        if ascent.blur and (number + 1) % ascent.every == 0:
            pixels = _blurred(pixels.view(*self.sizes), ascent.blur).flatten(1)
        return pixels.clamp(self.space.low, self.space.high) if ascent.clip else pixels

    def _rolled(self, flat: Tensor, number: int, sign: int) -> Tensor:
        if not self.ascent.jitter:
            return flat
        shifts = (sign * self.shifts[:, number]).tolist()
        images = zip(flat.view(*self.sizes), shifts, strict=True)
        return torch.stack([image.roll(shift, (-2, -1)) for image, shift in images]).flatten(1)

    def _roughness(self, flat: Tensor) -> Tensor:
        """The gradient of half the sum of squared differences of neighbours."""
        images = flat.view(*self.sizes)
        found = torch.zeros_like(images)
        for axis in (-2, -1):
            length = images.shape[axis]
            change = images.diff(dim=axis)
            found.narrow(axis, 1, length - 1).add_(change)
            found.narrow(axis, 0, length - 1).sub_(change)
        return found.flatten(1)


def _like(model: ForwardFunc) -> Tensor:
    """A tensor of the network's dtype and device."""
    weights = model.parameters() if isinstance(model, nn.Module) else ()
    return next((weight for weight in weights if weight.is_floating_point()), torch.empty(0))


def _noise(
    like: Tensor, sizes: Sequence[int], keys: Sequence[int], space: InputSpace, ascent: Ascent
) -> Tensor:
    """Inputs of random pixels around the middle of the interval."""
    empty = torch.empty(sizes, dtype=like.dtype, device=like.device)
    layout = Layout.of((empty,))
    width = space.high - space.low
    flat = Noise(ascent.seed).normals(keys, 0, layout.flatten((empty,)).float())
    pixels = (space.low + space.high) / 2 + ascent.sigma * width * flat.expand(len(keys), -1)
    if ascent.clip:
        pixels = pixels.clamp(space.low, space.high)
    return layout.restore(space.inputs(pixels, layout))[0]


def _blurred(images: Tensor, sigma: float) -> Tensor:
    """A Gaussian filter of 4 sigma on either side, with repeated borders."""
    radius = math.ceil(4 * sigma)
    places = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-0.5 * (places / sigma) ** 2)
    kernel = kernel / kernel.sum()
    channels = images.shape[1]
    for shape, pad in (((-1, 1), (0, 0, radius, radius)), ((1, -1), (radius, radius, 0, 0))):
        weight = kernel.view(1, 1, *shape).repeat(channels, 1, 1, 1)
        padded = functional.pad(images, pad, mode="replicate")
        images = functional.conv2d(padded, weight, groups=channels)
    return images

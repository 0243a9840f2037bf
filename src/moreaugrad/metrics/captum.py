"""Captum's infidelity and maximum sensitivity, for explainers of this library.

Captum uses the global generators, and calls `attribute` without the ids and targets of the samples.
Here perturbations are a function of (seed, sample key, draw), the target is that of the clean
input, passes are split into chunks, and a map that is zero everywhere or not finite gives NaN
(Captum divides the changes of a zero map by 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

import torch
from captum import metrics
from torch import Tensor

from moreaugrad.metrics.maps import defined
from moreaugrad.registry import choose
from moreaugrad.score import checks
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.inputs import INPUT, PIXEL, UNITS, InputSpace, Layout
from moreaugrad.score.noise import Stream, generator, sample_keys
from moreaugrad.score.targets import TargetLike
from moreaugrad.settings import Documented, expect

Parts = Tensor | tuple[Tensor, ...]


class Explains(Protocol):
    """What metrics need of an explainer; `explain` returns an explanation."""

    @property
    def layer(self) -> object: ...

    def explain(
        self,
        inputs: Parts,
        target: TargetLike = None,
        additional_forward_args: object = None,
        *,
        ids: Sequence[int] | Tensor | None = None,
    ) -> Any: ...


def target_of(clean: Any) -> TargetLike:
    """What an explanation explains, as `explain` takes it."""
    found: TargetLike = getattr(clean, "given", clean.target)
    return found


@dataclass(frozen=True, kw_only=True)
class Near(metaclass=Documented):
    """Random points near an input.

    >>> near = mg.metrics.Near(radius=0.1)
    >>> values = mg.metrics.infidelity(mg.Score(model).bind(x), maps, near=near)
    """

    radius: float
    """Size of the change of each entry, in `units`: its standard deviation for infidelity, half of
    the interval's width for max-sensitivity."""
    units: str = INPUT
    """Units of `radius`: "input" (what the network takes) or "pixel"."""
    draws: int = 10
    """Number of points."""
    seed: int = 0
    """Random seed of the points."""

    def __post_init__(self) -> None:
        expect(0 < self.radius < float("inf"), "radius", "a finite number > 0", self.radius)
        expect(self.draws >= 1, "draws", "at least 1", self.draws)
        choose("units", self.units, UNITS)

    def perturbations(
        self, keys: Sequence[int], draw: int, stream: Stream, space: InputSpace, layout: Layout
    ) -> Tensor:
        """Number `draw` of each of these samples: `[B, n]`, float64."""
        made, size = {}, layout.size
        for key in set(keys):
            source = generator(self.seed, key, stream, draw)
            normal = stream is Stream.NORMAL
            found = source.standard_normal(size) if normal else source.uniform(-1, 1, size)
            made[key] = torch.from_numpy(self.radius * found)
        rows = torch.stack([made[key] for key in keys])
        return rows / space.scale(layout, rows) if self.units == PIXEL else rows


NOISE = Near(radius=0.1, draws=64)
BOX = Near(radius=0.02)


def infidelity(
    bound: BoundScore,
    maps: Parts,
    space: InputSpace | None = None,
    *,
    normalize: bool = False,
    near: Near = NOISE,
) -> Tensor:
    """Mean of (<z, A> - (f(x) - f(x - z)))^2 over z ~ N(0, near.radius^2 I): `[B]`, low is good.

    >>> values = mg.metrics.infidelity(mg.Score(model).bind(x), maps)

    bound: the score f, of the kind that was explained. A is compared in the scale of the gradient;
    normalize: beta A instead, with the best beta, for methods whose maps have another scale. Needs
    2 near.draws passes for each sample.
    Source: Yeh et al. (2019), arXiv 1901.09392, by captum.metrics.infidelity.
    """
    space = space or InputSpace()
    flat = _flat(maps, bound.layout).to(bound.origin)
    known = defined(flat).nonzero()[:, 0]
    found = flat.new_full((len(flat),), torch.nan, dtype=torch.float64)
    if not len(known):
        return found
    chosen, flat = bound.select(known), flat[known]

    def work(rows: Tensor) -> Tensor:
        keys, draws = [chosen.keys[row] for row in rows.tolist()], count()

        def perturb(points: Tensor) -> tuple[Tensor, Tensor]:
            drawn = near.perturbations(keys, next(draws), Stream.NORMAL, space, bound.layout)
            z = drawn.to(points)
            return z, points - z

        missed: Tensor = metrics.infidelity(
            chosen.value,
            perturb,
            chosen.origin[rows],
            flat[rows],
            additional_forward_args=(rows,),
            n_perturb_samples=near.draws,
            max_examples_per_batch=len(rows),
            normalize=normalize,
        )
        if chosen.meter is not None:
            chosen.meter(2 * near.draws * len(rows))
        return missed.double()

    found[known] = chosen.chunks.over(torch.arange(len(chosen), device=flat.device), work)
    return found


def max_sensitivity(
    explainer: Explains,
    clean: Any,
    space: InputSpace | None = None,
    *,
    additional_forward_args: object = None,
    ids: Sequence[int] | Tensor | None = None,
    near: Near = BOX,
) -> Tensor:
    """max over x' of ||A(x') - A(x)||_2 / ||A(x)||_2, x' uniform in a box around x: `[B]`.

    >>> explainer = mg.SimpleGradient(model)
    >>> values = mg.metrics.max_sensitivity(explainer, explainer.explain(x))

    clean: `explainer.explain(x)`, with the same ids and arguments; every x' is explained for its
    target, and its padding does not change. Low is good. Needs near.draws explanations of the
    batch. NaN where a map is not finite, and where the clean map is zero everywhere.
    Source: Yeh et al. (2019), arXiv 1901.09392, by captum.metrics.sensitivity_max.
    Errors: ValueError for an explainer of a layer, because the inputs are perturbed, and where the
    model's output at an x' is not finite.
    """
    if explainer.layer is not None:
        raise ValueError(
            "max-sensitivity: expected an explainer of the inputs, which are perturbed; got one of "
            "a layer's output"
        )
    space, parts = space or InputSpace(), checks.as_parts(clean.inputs)
    layout = Layout.of(parts)
    flat = _flat(clean.maps, layout)
    keys, draws, calls = sample_keys(ids, len(flat)), count(), count()
    mask = getattr(clean, "mask", None)
    padding: dict[str, Any] = {} if mask is None else {"mask": mask}
    real, target = None if mask is None else _flat(mask, layout), target_of(clean)

    def maps(points: Tensor) -> tuple[Tensor]:
        # In double precision, because Captum squares them in their own.
        if next(calls) == 0:  # Captum asks for the clean maps first.
            return (flat.double(),)
        restored = layout.restore(points)
        inputs = restored if len(restored) > 1 else restored[0]
        found = explainer.explain(inputs, target, additional_forward_args, ids=ids, **padding)
        return (_flat(found.maps, layout).double(),)

    def perturb(points: Tensor) -> Tensor:
        drawn = near.perturbations(keys, next(draws), Stream.BOX, space, layout)
        return points + (drawn if real is None else drawn * real.to(drawn)).to(points)

    origin = layout.flatten(parts).detach()
    most: Tensor = metrics.sensitivity_max(
        maps,
        origin,
        perturb_func=perturb,
        n_perturb_samples=near.draws,
        max_examples_per_batch=len(origin),
    )
    return most.double().where(defined(flat), torch.nan)


def _flat(maps: Parts, layout: Layout) -> Tensor:
    """`[B, n]`. Errors: ValueError for maps whose shape is not that of the inputs."""
    parts = maps if isinstance(maps, tuple) else (maps,)
    shapes = tuple(tuple(part.shape[1:]) for part in parts)
    if shapes != layout.shapes:
        raise ValueError(
            f"maps: expected samples of the inputs' shape, {', '.join(map(str, layout.shapes))}; "
            f"got {', '.join(map(str, shapes))}"
        )
    return layout.flatten([part.detach() for part in parts])

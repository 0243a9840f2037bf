"""The size of automatic groups: the patches of a vision transformer, where they are recognised."""

from __future__ import annotations

from torch import nn

from moreaugrad.penalties import groups
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.inputs import Shape


def group_size(group: groups.Size, shape: Shape, bound: BoundScore) -> groups.Size:
    """The `size` of `GroupL2` for samples of that shape. Errors: as for `groups.chosen`."""
    own = patch_size(bound.model, shape) if group == groups.AUTO and bound.layer is None else None
    padded = bound.mask is not None
    return groups.chosen(group, shape, bound.layer, padded) if own is None else own


def patch_size(model: object, shape: Shape) -> list[int] | None:
    """The sides of a patch of inputs `[channels, *spatial]`; None where they are not recognised.

    They are recognised where the model's only convolution cuts the input into blocks: its kernel is
    its stride, and divides each axis.
    """
    modules = model.modules() if isinstance(model, nn.Module) else ()
    found = [part for part in modules if isinstance(part, nn.modules.conv._ConvNd)]
    if len(found) != 1 or found[0].in_channels != shape[0]:
        return None
    sides, padding, spatial = found[0].kernel_size, found[0].padding, shape[1:]
    cuts = sides == found[0].stride and padding in ("valid", (0,) * len(sides)) and max(sides) > 1
    if not cuts or len(sides) != len(spatial):
        return None
    divides = all(length % side == 0 for length, side in zip(spatial, sides, strict=True))
    return list(sides) if divides else None

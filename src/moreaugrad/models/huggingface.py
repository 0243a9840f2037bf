"""What an image processor of transformers does, as a Preprocess."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL.Image import Resampling

from moreaugrad.data.images import Size
from moreaugrad.models.preprocess import Preprocess


def as_preprocess(settings: Mapping[str, Any]) -> Preprocess:
    """From the dictionary form of an image processor.

    Its rescaling r p + o of bytes p, then (. - mean) / std, is ((p / 255) - m) / s with
    s = std / (255 r) and m = (mean - o) / (255 r). Errors: ValueError for a size it has no
    equal for.
    """
    resize = _size(settings.get("size")) if settings.get("do_resize") else None
    crop = _size(settings.get("crop_size")) if settings.get("do_center_crop") else None
    percent = settings.get("crop_pct")
    if percent and isinstance(resize, int):
        # ConvNeXt's rule: a margin is cut off small pictures, large ones are squashed.
        crop = (resize, resize)
        resize = int(resize / percent) if resize < 384 else crop
    scale = 255 * settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale") else 255.0
    offset = 1.0 if settings.get("do_rescale") and settings.get("rescale_offset") else 0.0
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if settings.get("do_normalize"):
        mean, std = tuple(settings["image_mean"]), tuple(settings["image_std"])
    if settings.get("include_top"):  # EfficientNet divides a second time
        std = tuple(a * b for a, b in zip(std, settings["image_std"], strict=True))
    return Preprocess(
        resize=resize,
        crop=crop,
        mean=tuple((value + offset) / scale for value in mean),
        std=tuple(value / scale for value in std),
        interpolation=Resampling(settings.get("resample", Resampling.BILINEAR)).name.lower(),
    )


def _size(size: object) -> Size | None:
    if size is None or isinstance(size, int):
        return size
    if isinstance(size, Mapping):
        if size.get("height") and size.get("width"):
            return (int(size["height"]), int(size["width"]))
        if size.get("shortest_edge"):
            return int(size["shortest_edge"])
    raise ValueError(
        f"expected an image processor with a height and width or a shortest edge, got {size!r}; "
        "give preprocess="
    )

"""The files of one map for people: safetensors, images, and further formats."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from safetensors.torch import save
from torch import Tensor

from moreaugrad.pictures import Picture


def map_files(
    stem: str,
    values: Tensor,
    about: Mapping[str, Any],
    views: Mapping[str, Picture],
    formats: Sequence[str],
) -> dict[str, bytes]:
    """Contents by names that begin with `stem`. about: what the map is of, and its record."""
    # One entry of metadata: the order of several is not fixed, and the bytes have to be.
    words = json.dumps(about, sort_keys=True, ensure_ascii=False)
    data = save({"map": values.contiguous()}, metadata={"moreaugrad": words})
    shown = {name: value for name, value in about.items() if name not in ("map", "metrics")}
    return {
        f"{stem}.safetensors": data,
        **{f"{stem}.{name}": EXPORTERS[name](values) for name in formats},
        **{f"{stem}.{view}.png": image.png(shown) for view, image in views.items()},
    }


def _npy(values: Tensor) -> bytes:
    file = io.BytesIO()
    np.save(file, values.numpy(), allow_pickle=False)
    return file.getvalue()


def _csv(values: Tensor) -> bytes:
    """A row for each entry: its indices (channel, row, column for an image) and its value."""
    names = {3: ("channel", "row", "column"), 2: ("row", "column"), 1: ("index",)}
    header = (*names.get(values.ndim, tuple(f"axis_{i}" for i in range(values.ndim))), "value")
    array = values.numpy()
    lines = [",".join(header)]
    lines += [f"{','.join(map(str, at))},{value}" for at, value in np.ndenumerate(array)]
    return ("\n".join(lines) + "\n").encode()


EXPORTERS = {"npy": _npy, "csv": _csv}

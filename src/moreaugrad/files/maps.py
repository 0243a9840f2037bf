"""Maps in the files of a run: exactly, as float16, or as their entries that are not zero."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor

from moreaugrad.files.foreign import parsing, regular_file

Parts = dict[str, Tensor]
"""Tensors of a map, by what they are of it."""
HALF, SPARSE, SCALE = "float16", "sparse", "scale"
POSITIONS, VALUES, SHAPE = "positions", "values", "shape"
TOP = 15
"""A map is scaled to a maximum below 2^TOP, so that float16 holds what is 2^29 times smaller."""
ROUNDING = 2.0**-11
"""The largest relative error of rounding to float16, and so of a map that is stored in it."""
INTEGERS = (torch.uint8, torch.int16, torch.int32, torch.int64)
"""Types of positions: those that every version of safetensors stores."""


def packed(name: str, values: Tensor, form: str | None) -> tuple[Parts, dict[str, Any]]:
    """A map as tensors by their names in a file, and what its record says of how it is stored.

    form: None (exactly), "float16" or "sparse". A map that would lose more than rounding in
    float16 (one that is not finite, say), or would not be smaller, is stored exactly.
    """
    values = values.detach().cpu().contiguous()
    if form is None:
        return {name: values}, {}
    parts, about = FORMS[form](values)
    if not parts or sum(part.nbytes for part in parts.values()) >= values.nbytes:
        return {name: values}, {"stored": {"as": "exact"}}
    own = {f"{name}/{part}": value for part, value in parts.items()}
    return own, {"stored": {"as": form, **about}}


def most_bytes(values: Tensor, form: str | None) -> int:
    """What a finite map of this shape and dtype takes, sparse ones at most."""
    whole = values.nbytes
    half = values.numel() * torch.half.itemsize + values.element_size()
    return min(half, whole) if form == HALF else whole


def read_maps(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file of a run by their names, maps in full in whatever form
    they are stored: `map` in the folder of an input; `17/clean/map`, `17/top-k/0.5/map` and others
    in a unit of `evaluate`.

    A map has the dtype in which it was computed. Errors: ValueError for no file, or another one.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as out:
    ...     found = mg.explain(model, x, ["simple-gradient"], maps_as="float16", out=out)
    ...     file = next(found.folder.glob("inputs/*/simple-gradient.safetensors"))
    ...     assert mg.read_maps(file)["map"].shape == x[0].shape
    """
    # Of bytes: safetensors opens no file below a folder whose name is not UTF-8.
    with parsing(str(path), "maps of a run"):
        found = load(regular_file(path, "maps of a run").read_bytes())
        for parts, whole in (
            ((HALF, SCALE), _from_float16),
            ((POSITIONS, VALUES, SHAPE), _from_sparse),
        ):
            for key in [key for key in found if key.endswith(f"/{parts[0]}")]:
                name = key.removesuffix(f"/{parts[0]}")
                found[name] = whole({part: found.pop(f"{name}/{part}") for part in parts})
    return found


def _float16(values: Tensor) -> tuple[Parts, dict[str, Any]]:
    """round(A / s), s a power of two, with the error ||stored - A|| / ||A||, 0 for zeros."""
    peak = float(values.abs().max())
    if not math.isfinite(peak):
        return {}, {}
    # At least a normal number: the map's own entries end where those of float16 then do.
    scale = max(2.0 ** (math.frexp(peak)[1] - TOP), torch.finfo(values.dtype).tiny)
    scaled = values.double() / scale
    parts = {HALF: scaled.half(), SCALE: torch.tensor(scale, dtype=values.dtype)}
    lost = _norm(_from_float16(parts).double() / scale - scaled)
    error = lost / _norm(scaled) if peak else 0.0
    return (parts, {"error": error}) if error <= ROUNDING else ({}, {})


def _from_float16(parts: Mapping[str, Tensor]) -> Tensor:
    scale = parts[SCALE]
    return (parts[HALF].double() * float(scale)).to(scale.dtype)


def _norm(values: Tensor) -> float:
    """By NumPy, whose sums do not depend on the number of threads."""
    return float(np.sqrt(np.square(values.numpy()).sum()))


def _sparse(values: Tensor) -> tuple[Parts, dict[str, Any]]:
    flat = values.flatten()
    places = flat.nonzero()[:, 0]
    fits = next(kind for kind in INTEGERS if flat.numel() <= torch.iinfo(kind).max + 1)
    shape = torch.tensor(values.shape)
    return {POSITIONS: places.to(fits), VALUES: flat[places], SHAPE: shape}, {}


def _from_sparse(parts: Mapping[str, Tensor]) -> Tensor:
    shape, values = parts[SHAPE].tolist(), parts[VALUES]
    flat = torch.zeros(math.prod(shape), dtype=values.dtype)
    flat[parts[POSITIONS].long()] = values
    return flat.reshape(shape)


FORMS: Mapping[str, Callable[[Tensor], tuple[Parts, dict[str, Any]]]] = {
    HALF: _float16,
    SPARSE: _sparse,
}

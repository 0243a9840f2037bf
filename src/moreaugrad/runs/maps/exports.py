"""Maps in the formats of other tools."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from moreaugrad.data.scans import Geometry
from moreaugrad.extras import required
from moreaugrad.runs.inputs import Inputs
from moreaugrad.runs.maps.methods import Method
from moreaugrad.runs.plans.maps import NII


def check_exports(formats: Sequence[str], inputs: Inputs, methods: Sequence[Method]) -> None:
    """Errors: ValueError for maps that a format cannot have. What a file does not say of its voxels
    is an error of that file alone."""
    if NII not in formats:
        return
    if not inputs.of_arrays:
        raise ValueError(
            f"--export {NII}: is for scans in NIfTI and folders of DICOM slices, got "
            f"{'texts' if inputs.of_texts else 'images'}"
        )
    for method in methods:
        if method.explainer.layer is not None:
            raise ValueError(
                f"--export {NII}: is for maps of the input, whose voxels have places, got "
                f"{method.label} with layer = {method.explainer.layer!r}"
            )
    _nibabel()


def _nibabel() -> Any:
    try:
        return required("nibabel", "scans", f"--export {NII}")
    except ModuleNotFoundError as error:
        raise ValueError(str(error)) from None


def _npy(values: Tensor, geometry: Geometry | None) -> bytes:
    file = io.BytesIO()
    np.save(file, values.numpy(), allow_pickle=False)
    return file.getvalue()


def _csv(values: Tensor, geometry: Geometry | None) -> bytes:
    """A row for each entry: its indices (channel, row, column for an image) and its value."""
    names = {3: ("channel", "row", "column"), 2: ("row", "column"), 1: ("index",)}
    header = (*names.get(values.ndim, tuple(f"axis_{i}" for i in range(values.ndim))), "value")
    lines = [",".join(header)]
    lines += [f"{','.join(map(str, at))},{value}" for at, value in np.ndenumerate(values.numpy())]
    return ("\n".join(lines) + "\n").encode()


def _nii(values: Tensor, geometry: Geometry | None) -> bytes:
    """The sum over the channels of a map `[C, D, H, W]`, as signed images have it, on the axes of
    NIfTI, which are W, H and D."""
    nibabel = _nibabel()
    assert geometry is not None  # `runs.arrays.Arrays` refuses other files
    image = nibabel.Nifti1Image(values.sum(0).float().permute(2, 1, 0).numpy(), geometry.affine)
    image.header.set_xyzt_units(geometry.unit)
    found: bytes = image.to_bytes()
    return found


EXPORTERS: Mapping[str, Callable[[Tensor, Geometry | None], bytes]] = {
    "npy": _npy, "csv": _csv, NII: _nii,
}  # fmt: skip

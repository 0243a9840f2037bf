"""Medical scans in files: NIfTI, and DICOM as one image or as a folder of slices.

Values have the units of the scanner, such as Hounsfield units. Axes are `[1, D, H, W]`, slices
first, in the order of the file: nothing is turned or resampled. An affine says where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from moreaugrad.extras import required
from moreaugrad.files.foreign import FILE_LIMIT, parsing, regular_file

NIFTI, DICOM = (".nii", ".nii.gz"), ".dcm"
SCAN_SUFFIXES = (*NIFTI, DICOM)
GREY, INVERTED = "MONOCHROME2", "MONOCHROME1"
ELSEWHERE = ("ModalityLUTSequence", "SharedFunctionalGroupsSequence")
"""What gives the meaning of stored values instead of the slope and intercept that are read."""
MILLIMETRES = {"meter": 1e3, "micron": 1e-3}
"""In NIfTI's units of length; all others are millimetres, or not known."""
UNEVEN = 0.01
"""Relative difference of the distances of slices from which one counts as missing."""
Values = NDArray[Any]
Voxels = tuple[float, ...]
"""Millimetres along D, H and W, or along H and W."""


class Geometry(NamedTuple):
    """Where the voxels of a volume `[C, D, H, W]` are.

    affine: `[4, 4]`, from the indices (w, h, d, 1) of a voxel's centre to its place, as in NIfTI:
    to the right, anterior and superior of an origin. unit: of the place, by NIfTI's names "mm",
    "meter", "micron" and "unknown".

    >>> import numpy as np
    >>> found = mg.data.Geometry(np.diag([0.5, 0.5, 2.0, 1.0]))
    """

    affine: Values
    unit: str = "mm"

    def moved(self, starts: Sequence[int]) -> Self:
        """Of the volume that begins at the indices (d, h, w) of this one; they are negative where
        it was padded."""
        affine = self.affine.copy()
        affine[:3, 3] = (self.affine @ [*reversed(starts), 1])[:3]
        return self._replace(affine=affine)


class Scan(NamedTuple):
    """values: `[1, D, H, W]` or `[1, H, W]`. geometry: None where the file does not say it."""

    values: Values
    spacing: Voxels
    geometry: Geometry | None = None


def slices_of(folder: Path) -> list[Path]:
    """The DICOM files in a folder, in order; [] for anything else."""
    files = folder.iterdir() if folder.is_dir() else ()
    return sorted(file for file in files if file.suffix.lower() == DICOM)


def read_scan(path: Path) -> Scan:
    """A volume `[1, D, H, W]`, or one image `[1, H, W]` of DICOM.

    Errors: ValueError for a file that is missing, damaged or of several volumes or colours, for
    slices that make no volume, and without the extra.
    """
    if path.is_dir():
        return _volume(path)
    if path.name.lower().endswith(NIFTI):
        return _nifti(path)
    image = _slice(path)
    return Scan(_values(image)[None], _spacing(image))


def _package(name: str, path: Path) -> Any:
    try:
        return required(name, "scans", f"{path}: a scan")
    except ModuleNotFoundError as error:
        raise ValueError(str(error)) from None


def _nifti(path: Path) -> Scan:
    nibabel = _package("nibabel", path)
    with parsing(str(path), "a scan in NIfTI"):
        image = nibabel.load(regular_file(path, "a scan in NIfTI"))
        if len(image.shape) != 3:
            raise ValueError(
                f"its shape is {list(image.shape)}, expected one volume: save one of them, as "
                "image.slicer[..., 0] of nibabel has it"
            )
        if image.get_data_dtype().kind not in "iuf":
            raise ValueError(f"its values are {image.get_data_dtype()}, expected real numbers")
        values: Values = image.get_fdata(dtype=np.float32).transpose(2, 1, 0)
        unit = image.header.get_xyzt_units()[0]
        size = MILLIMETRES.get(unit, 1.0)
        spacing = tuple(size * float(zoom) for zoom in image.header.get_zooms()[::-1])
        return Scan(values[None], spacing, Geometry(image.affine, unit))


def _slice(path: Path) -> Any:
    """A DICOM file of one grey image."""
    pydicom = _package("pydicom", path)
    expected = "an image in DICOM"
    with parsing(str(path), expected):
        image = pydicom.dcmread(regular_file(path, expected, limit=FILE_LIMIT))
        frames, colours = int(image.get("NumberOfFrames", 1)), int(image.SamplesPerPixel)
        if frames != 1 or colours != 1:
            what = f"{frames} images" if frames != 1 else f"{colours} colours"
            raise ValueError(f"it holds {what}, expected one grey image: save it as .npy or NIfTI")
        if image.PhotometricInterpretation == INVERTED:
            raise ValueError(
                f"its low values are bright ({INVERTED}): save what the network takes as .npy"
            )
        if image.PhotometricInterpretation != GREY:
            raise ValueError(
                f"its values are of the kind {image.PhotometricInterpretation}, expected grey "
                f"({GREY}): save what the network takes as .npy"
            )
        if found := [name for name in ELSEWHERE if name in image]:
            raise ValueError(
                f"its values are rescaled by {found[0]}, which is not read: save what the network "
                "takes as .npy or NIfTI"
            )
        return image


def _values(image: Any) -> Values:
    """`[H, W]`. Errors: ValueError."""
    with parsing(str(image.filename), "an image in DICOM"):
        slope, start = image.get("RescaleSlope", 1), image.get("RescaleIntercept", 0)
        found: Values = image.pixel_array.astype(np.float32) * float(slope) + float(start)
        return found


def _spacing(image: Any) -> Voxels:
    return tuple(map(float, image.get("PixelSpacing", ())))


def _volume(folder: Path) -> Scan:
    """The slices of a folder, ordered by their places along the line through them."""
    slices = [_slice(file) for file in slices_of(folder)]
    with parsing(str(folder), "the slices of one volume in DICOM"):
        axes = np.array([one.ImageOrientationPatient for one in slices], dtype=float)
        if not np.allclose(axes, axes[0], atol=1e-4):
            raise ValueError("they have several orientations")
        sizes = {(one.Rows, one.Columns, *_spacing(one)) for one in slices}
        if len(sizes) > 1 or len({one.get("SeriesInstanceUID") for one in slices}) > 1:
            raise ValueError("they have several sizes, or are of several series")
        normal = np.cross(axes[0, :3], axes[0, 3:])
        corners = np.array([one.ImagePositionPatient for one in slices], dtype=float)
        order = np.argsort(corners @ normal)
        corners = corners[order]
        step = _even((corners @ normal).tolist())
        values = np.stack([_values(slices[place]) for place in order])
        spacing = _spacing(slices[0])
        return Scan(values[None], (step, *spacing), _of_slices(axes[0], corners, spacing))


def _of_slices(axes: Values, corners: Values, spacing: Voxels) -> Geometry | None:
    """axes: the directions of rows and columns, `[6]`. corners: the centres of the slices' first
    pixels, in order, `[D, 3]`. None without the distances of pixels, and for slices that are not on
    one line.

    Source: DICOM PS3.3, C.7.6.2.1.1. Its axes point to the left, posterior and superior.
    """
    steps = np.diff(corners, axis=0)
    step = steps.mean(0)
    if not spacing or np.abs(steps - step).max() > UNEVEN * np.linalg.norm(step):
        return None
    affine = np.eye(4)
    affine[:3] = np.stack([axes[:3] * spacing[1], axes[3:] * spacing[0], step, corners[0]], axis=1)
    affine[:2] *= -1
    return Geometry(affine)


def _even(places: Sequence[float]) -> float:
    """The distance of slices. Errors: ValueError if they are not evenly spaced."""
    steps = np.diff(places)
    if not len(steps):
        raise ValueError("there is one slice: name the file itself")
    if steps.min() <= 0 or np.ptp(steps) > UNEVEN * steps.mean():
        least, most = steps.min(), steps.max()
        raise ValueError(f"slices are missing or twice there: {least:g} to {most:g} mm apart")
    return float(steps.mean())

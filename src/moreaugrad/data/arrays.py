"""Series, volumes and other arrays in files: sounds, NumPy's, scans and stacks."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moreaugrad.data.scans import SCAN_SUFFIXES, Geometry, read_scan, slices_of
from moreaugrad.data.stacks import STACK_SUFFIXES, names_stack, read_stack
from moreaugrad.data.texts import find_named
from moreaugrad.files.foreign import FILE_LIMIT, parsing, regular_file

SOUND = ".wav"
ALWAYS = (SOUND, ".npy", ".npz", *SCAN_SUFFIXES)
"""Suffixes of arrays whatever the network; those of stacks may be of images too."""
ARRAY_SUFFIXES = (*ALWAYS, *STACK_SUFFIXES)
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
"""Encodings of the samples of a sound; the last names its own in a field of its own."""
ENCODINGS = {
    (PCM, 8): "u1", (PCM, 16): "<i2", (PCM, 24): "24", (PCM, 32): "<i4",
    (FLOAT, 32): "<f4", (FLOAT, 64): "<f8",
}  # fmt: skip
ARCHIVE = b"PK"
"""How an .npz file begins."""
NUMBERS = "biuf"
"""Kinds of NumPy's types that are real numbers."""


class ArrayFile(NamedTuple):
    """What a file holds. values: of a sound `[C, T]`, whole numbers scaled to [-1, 1); of an array
    as they are, read from the file where they are used. rate: samples per second of a sound.
    spacing: millimetres of a scan along D, H and W, or H and W. geometry: where the voxels of a
    volume are; None where the file does not say it.

    >>> import numpy as np
    >>> found = mg.data.ArrayFile(np.zeros((1, 16000)), rate=16000)
    """

    values: NDArray[Any]
    rate: int | None = None
    spacing: tuple[float, ...] = ()
    geometry: Geometry | None = None


def names_arrays(file: str) -> bool:
    """Whether a file, or a glob of files, holds an array by its name, whatever the network, or a
    folder holds slices."""
    return file.lower().endswith(ALWAYS) or bool(slices_of(Path(file)))


def find_arrays(names: Iterable[str]) -> list[Path]:
    """The files that files and globs name, each once. Errors: ValueError for a glob without any."""
    return list(dict.fromkeys(file for name in names for file in find_named(name, "arrays")))


def read_array(path: str | Path) -> ArrayFile:
    """Read a sound (.wav), an array (.npy, or .npz with one array), a scan (.nii, .nii.gz, .dcm, or
    a folder of DICOM slices) or a stack (.tif, .tiff).

    Sounds: PCM of 8, 16, 24 and 32 bits, and floats. Arrays: real numbers. Scans: one volume
    `[1, D, H, W]` or image `[1, H, W]` in the scanner's units, slices first. Stacks: `[C, H, W]`
    or `[C, D, H, W]` by the axes that the file names, values as they are stored.
    Errors: ValueError for a file that is missing, empty, truncated or something else, for an array
    of other than real numbers or without any, for a scan without the extra `scans`, and for a
    stack of several images or moments or without the names of its axes.

    >>> import tempfile
    >>> import numpy as np
    >>> path = f"{tempfile.mkdtemp()}/signal.npy"
    >>> np.save(path, np.zeros((2, 128)))
    >>> mg.data.read_array(path).values.shape
    (2, 128)
    """
    if str(path).lower().endswith(SCAN_SUFFIXES) or slices_of(Path(path)):
        scan = read_scan(Path(path))
        return ArrayFile(scan.values, spacing=scan.spacing, geometry=scan.geometry)
    sound, stack = Path(path).suffix.lower() == SOUND, names_stack(str(path))
    expected = "a sound in WAV" if sound else "a stack in TIFF" if stack else "an array of NumPy"
    file = regular_file(path, expected, limit=FILE_LIMIT)
    with parsing(str(file), expected):
        if sound:
            with file.open("rb") as opened:
                return _sound(opened)
        values = read_stack(file) if stack else _numbers(file)
        if values.dtype.kind not in NUMBERS:
            raise ValueError(f"its type is {values.dtype}, which is not of real numbers")
        if not values.size:
            raise ValueError(f"it is empty, of the shape {list(values.shape)}")
        return ArrayFile(values)


def _numbers(file: Path) -> NDArray[Any]:
    try:
        return _array(file)
    except ValueError as error:
        if "object" not in str(error).lower():
            raise
        # NumPy's advice is to unpickle them all the same.
        raise ValueError(
            "it holds Python objects, which are never unpickled, or no array at all: save numbers, "
            "as numpy.save(path, numpy.asarray(values, dtype=float))"
        ) from None


def _array(file: Path) -> NDArray[Any]:
    with file.open("rb") as opened:
        if opened.read(len(ARCHIVE)) != ARCHIVE:
            # Mapped: of a volume that is larger than memory its shape and a part can be read.
            mapped: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
            return mapped
        opened.seek(0)
        found = np.load(opened, allow_pickle=False)
        if len(found.files) != 1:
            raise ValueError(
                f"it holds {len(found.files)} arrays: save the one to explain alone, as .npy"
            )
        values: NDArray[Any] = found[found.files[0]]
        return values


def _sound(file: IO[bytes]) -> ArrayFile:
    """Source: Multimedia Programming Interface and Data Specifications 1.0 (Microsoft, IBM)."""
    head = file.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        raise ValueError("it does not begin as a WAV file")
    form = None
    for name, size in _chunks(file):
        if name == b"data":
            if form is None:
                raise ValueError("its samples come before their format")
            samples = file.read(size)
            if len(samples) < size:
                raise ValueError(f"it is truncated: {len(samples)} of {size} bytes of samples")
            return _decoded(samples, form)
        content = file.read(size + size % 2)  # chunks begin at even places
        form = content if name == b"fmt " else form
    raise ValueError("it has no samples, or is truncated")


def _chunks(file: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    while len(head := file.read(8)) == 8:
        yield head[:4], struct.unpack("<I", head[4:])[0]


def _decoded(samples: bytes, form: bytes) -> ArrayFile:
    kind, channels, rate, _, frame, bits = struct.unpack_from("<HHIIHH", form)
    if kind == EXTENSIBLE:
        kind = struct.unpack_from("<H", form, 24)[0]
    if (kind, bits) not in ENCODINGS:
        raise ValueError(
            f"its encoding is number {kind} with {bits} bits: convert it to PCM of 16 bits"
        )
    if not channels or not rate:
        raise ValueError(f"it has {channels} channels and {rate} samples per second")
    if frame != channels * bits // 8:
        raise ValueError(
            f"{channels} samples of {bits} bits take {frame} bytes in it: convert it to PCM of 16 "
            "bits"
        )
    if not samples or len(samples) % frame:
        raise ValueError(f"it has {len(samples)} bytes of samples, {frame} for each moment")
    if kind == PCM and bits == 24:
        padded = np.zeros((len(samples) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(samples, np.uint8).reshape(-1, 3)
        whole = padded.view("<i4")[:, 0]
    else:
        whole = np.frombuffer(samples, ENCODINGS[kind, bits])
    values = whole.astype(np.float64)
    if kind == PCM:
        values = (values - 128) / 128 if bits == 8 else values / -float(np.iinfo(whole.dtype).min)
    return ArrayFile(values.reshape(-1, channels).T, rate)

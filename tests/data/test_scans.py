"""Medical scans in files: what is read is what was written, and what is no volume is refused."""

import sys
from pathlib import Path

import numpy as np
import pytest

import moreaugrad as mg
from moreaugrad.data.arrays import names_arrays, read_array
from moreaugrad.models import ArrayInput

nibabel = pytest.importorskip("nibabel")
pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, generate_uid  # noqa: E402

SERIES = generate_uid()
D, H, W = 4, 5, 6


def nifti(path, values, zooms=(1.0, 2.0, 3.0)):
    image = nibabel.Nifti1Image(values, np.diag([*zooms, 1.0]))
    nibabel.save(image, path)
    return path


def dicom(path, values, place=0.0, **others):
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    image.SOPClassUID, image.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", generate_uid()
    image.Rows, image.Columns = values.shape[-2:]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation = 15, 1
    image.RescaleSlope, image.RescaleIntercept = 2, -1000
    image.PixelSpacing, image.SeriesInstanceUID = [0.5, 0.75], SERIES
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    image.ImagePositionPatient = [0, 0, place]
    for name, value in others.items():
        setattr(image, name, value)
    image.PixelData = values.astype("<i2").tobytes()
    image.save_as(path, enforce_file_format=True)
    return path


def stack(folder, places=(3.0, 0.0, 9.0, 6.0), **others):
    """Slices whose files are not in the order of their places."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    values = draw.integers(-100, 100, (len(places), H, W))
    for number, (one, place) in enumerate(zip(values, places, strict=True)):
        own = others if number == 1 else {}
        dicom(folder / f"{number}.dcm", one, **{"place": place, **own})
    return values


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ"])
def test_nifti_has_slices_first(name, tmp_path):
    values = np.random.default_rng(0).normal(size=(W, H, D)).astype(np.float32)
    found = read_array(nifti(tmp_path / name, values))
    assert names_arrays(str(tmp_path / name))
    np.testing.assert_array_equal(found.values, values.transpose(2, 1, 0)[None])
    assert found.spacing == (3, 2, 1)


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1000), ("micron", 0.001), ("mm", 1)])
def test_voxels_are_in_millimetres(unit, factor, tmp_path):
    image = nibabel.Nifti1Image(np.zeros((W, H, D), np.float32), np.diag([1.0, 2.0, 3.0, 1.0]))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "a.nii")
    assert read_array(tmp_path / "a.nii").spacing == pytest.approx((3 * factor, 2 * factor, factor))


@pytest.mark.parametrize("dtype", [np.complex64, [(c, "u1") for c in "RGB"]])
def test_volumes_of_other_than_real_numbers_are_refused(dtype, tmp_path):
    file = nifti(tmp_path / "a.nii", np.zeros((W, H, D), dtype))
    with pytest.raises(ValueError, match="real numbers"):
        read_array(file)


def test_slices_are_ordered_by_their_places(tmp_path):
    values = stack(tmp_path / "series")
    found = read_array(tmp_path / "series")
    assert names_arrays(str(tmp_path / "series"))
    np.testing.assert_array_equal(found.values, (2 * values - 1000)[None, [1, 0, 3, 2]])
    assert found.spacing == (3, 0.5, 0.75)


def test_names_in_capitals(tmp_path):
    values = stack(tmp_path / "series")
    for file in (tmp_path / "series").iterdir():
        file.rename(file.with_suffix(".DCM"))
    assert names_arrays(str(tmp_path / "series"))
    assert read_array(tmp_path / "series").values.shape == (1, *values.shape)


def test_an_oblique_line_of_slices(tmp_path):
    turned = [0, 1, 0, 0, 0, 1]  # their normal is the first axis
    (tmp_path / "series").mkdir()
    for number in range(3):
        dicom(
            tmp_path / "series" / f"{number}.dcm", np.full((H, W), number),
            ImageOrientationPatient=turned, ImagePositionPatient=[-2.5 * number, 7, 7],
        )  # fmt: skip
    found = read_array(tmp_path / "series")
    assert found.values[0, :, 0, 0].tolist() == [-996, -998, -1000]
    assert found.spacing[0] == 2.5


def test_one_image(tmp_path):
    values = np.arange(H * W).reshape(H, W)
    found = read_array(dicom(tmp_path / "a.dcm", values))
    np.testing.assert_array_equal(found.values, (2 * values - 1000)[None])
    assert found.spacing == (0.5, 0.75)


OBLIQUE = np.array([[0.9, 0.1, 0.3, -40], [-0.2, 1.9, 0.4, 7], [0.1, -0.3, 2.8, 12], [0, 0, 0, 1]])


@pytest.mark.parametrize("unit", ["mm", "micron", "unknown"])
def test_the_affine_of_nifti_is_kept(unit, tmp_path):
    image = nibabel.Nifti1Image(np.zeros((W, H, D), np.float32), OBLIQUE)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "a.nii")
    found = read_array(tmp_path / "a.nii").geometry
    np.testing.assert_array_equal(found.affine, nibabel.load(tmp_path / "a.nii").affine)
    np.testing.assert_allclose(found.affine, OBLIQUE, atol=1e-5)
    assert found.unit == unit


SLANTED = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0]
"""Directions that lie along no axis."""


@pytest.mark.parametrize("tilt", [0, 0.7])
def test_voxels_of_slices_are_where_their_files_say(tilt, tmp_path):
    rows, columns = SLANTED[:2]
    line = 3 * np.cross(rows, columns) + tilt * columns  # of a tilted gantry it is no normal
    (tmp_path / "series").mkdir()
    for name, place in enumerate([2, 0, 3, 1]):
        dicom(
            tmp_path / "series" / f"{name}.dcm", np.full((H, W), place),
            ImageOrientationPatient=[*rows.round(10), *columns.round(10)],
            ImagePositionPatient=(np.array([30, -5, 80]) + place * line).round(6).tolist(),
        )  # fmt: skip
    found = read_array(tmp_path / "series")
    for file in (tmp_path / "series").iterdir():
        image = pydicom.dcmread(file)
        (d,) = np.flatnonzero(found.values[0, :, 0, 0] == 2 * image.pixel_array[0, 0] - 1000)
        for h, w in ((0, 0), (H - 1, 0), (0, W - 1), (2, 4)):
            down, right = image.PixelSpacing
            left, posterior, superior = (
                np.array(image.ImagePositionPatient, float)
                + np.array(image.ImageOrientationPatient[:3], float) * right * w
                + np.array(image.ImageOrientationPatient[3:], float) * down * h
            )
            place = found.geometry.affine @ [w, h, d, 1]
            np.testing.assert_allclose(place, [-left, -posterior, superior, 1], atol=1e-4)


def test_slices_that_do_not_say_where_their_voxels_are(tmp_path):
    stack(tmp_path / "bent", ImagePositionPatient=[5, 0, 0])
    found = read_array(tmp_path / "bent")
    assert found.geometry is None
    assert found.spacing == (3, 0.5, 0.75)
    (tmp_path / "bare").mkdir()
    for place in (0.0, 3.0):
        file = dicom(tmp_path / "bare" / f"{place:g}.dcm", np.zeros((H, W)), place)
        image = pydicom.dcmread(file)
        del image.PixelSpacing
        image.save_as(file)
    assert read_array(tmp_path / "bare").geometry is None
    assert read_array(dicom(tmp_path / "a.dcm", np.zeros((H, W)))).geometry is None


def test_a_window(tmp_path):
    values = np.array([[-1000.0, -160, 40, 140, 240, 3000]], dtype=np.float32)
    takes = ArrayInput(window=(40, 400))
    x, notes = takes.prepared(mg.data.ArrayFile(values, spacing=(3, 0.5, 0.5)))
    assert x.tolist() == [[0, 0, 0.5, 0.75, 1, 1]]
    assert "3 x 0.5 x 0.5 mm" in notes
    assert any("level 40" in note for note in notes)


@pytest.mark.parametrize("window", [(1,), (1, 0), (1, -1), (1, 2, 3), (0, float("nan"))])
def test_no_window(window):
    with pytest.raises(ValueError, match="window: expected level and width"):
        ArrayInput(window=window)


@pytest.mark.parametrize(
    ("places", "others", "words"),
    [
        ((0, 3, 9), {}, "missing or twice"),
        ((0, 3, 3), {}, "missing or twice"),
        ((0,), {}, "one slice"),
        ((0, 3, 6), {"ImageOrientationPatient": [0, 1, 0, 1, 0, 0]}, "orientations"),
        ((0, 3, 6), {"SeriesInstanceUID": generate_uid()}, "several series"),
        ((0, 3, 6), {"PixelSpacing": [1, 1]}, "several sizes"),
        ((0, 3, 6), {"NumberOfFrames": 2}, "2 images"),
        ((0, 3, 6), {"SamplesPerPixel": 3}, "3 colours"),
        ((0, 3, 6), {"PhotometricInterpretation": "MONOCHROME1"}, "low values are bright"),
        ((0, 3, 6), {"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
        ((0, 3, 6), {"ModalityLUTSequence": [Dataset()]}, "ModalityLUTSequence"),
        ((0, 3, 6), {"SharedFunctionalGroupsSequence": [Dataset()]}, "FunctionalGroups"),
    ],
)
def test_slices_that_make_no_volume(places, others, words, tmp_path):
    stack(tmp_path / "series", places, **others)
    with pytest.raises(ValueError, match=words):
        read_array(tmp_path / "series")


def test_files_that_hold_no_scan(tmp_path):
    for name in ("a.nii", "a.nii.gz", "a.dcm"):
        (tmp_path / name).write_bytes(b"no scan " * 100)
        with pytest.raises(ValueError, match=f"{name}: expected"):
            read_array(tmp_path / name)
    with pytest.raises(ValueError, match="no such file"):
        read_array(tmp_path / "b.nii")
    several = nifti(tmp_path / "c.nii", np.zeros((W, H, D, 2), np.float32), (1, 1, 1))
    with pytest.raises(ValueError, match=r"one volume.*slicer"):
        read_array(several)
    whole = nifti(tmp_path / "d.nii", np.zeros((W, H, D), np.float32)).read_bytes()
    (tmp_path / "d.nii").write_bytes(whole[:-10])
    with pytest.raises(ValueError, match=r"d.nii: expected a scan"):
        read_array(tmp_path / "d.nii")


def test_the_extra_is_named(tmp_path, monkeypatch):
    file = nifti(tmp_path / "a.nii", np.zeros((W, H, D), np.float32))
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(ValueError, match=r"moreaugrad\[scans\]"):
        read_array(file)


def test_folders_of_other_files_are_no_scan(tmp_path):
    (tmp_path / "photo.png").touch()
    assert not names_arrays(str(tmp_path))
    assert not names_arrays(str(Path("nowhere")))

"""Preprocessing: sizes, normalisation and the way back; equal to the sources' own pipelines."""

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image

from moreaugrad.models import Preprocess
from moreaugrad.models.huggingface import as_preprocess

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def needs(*packages):
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@pytest.fixture(params=[(60, 40), (40, 60), (41, 41)], ids=["wide", "tall", "square"])
def photo(request):
    width, height = request.param
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_without_settings_pixels_go_in_as_they_are(photo):
    x = Preprocess()(photo)
    np.testing.assert_allclose(x.permute(1, 2, 0).numpy(), np.asarray(photo) / 255, atol=1e-7)
    assert x.dtype == torch.float32


@pytest.mark.parametrize(
    ("resize", "crop", "shape"),
    [(32, 24, (24, 24)), ((20, 30), None, (20, 30)), (32, (16, 28), (16, 28)), (20, 64, (64, 64))],
)
def test_sizes(photo, resize, crop, shape):
    preprocess = Preprocess(resize=resize, crop=crop, **IMAGENET)
    x = preprocess(photo)
    assert x.shape == (3, *shape) == preprocess.input_shape


def test_the_size_of_the_image_decides_where_none_is_given(photo):
    assert Preprocess().input_shape is None
    assert Preprocess(resize=20).input_shape is None
    short = min(Preprocess(resize=20)(photo).shape[1:])
    assert short == 20


def test_pixels_undo_the_normalisation(photo):
    preprocess = Preprocess(resize=32, crop=24, **IMAGENET)
    plain = Preprocess(resize=32, crop=24)(photo).permute(1, 2, 0)
    torch.testing.assert_close(preprocess.pixels(preprocess(photo)), plain, atol=1e-6, rtol=0)
    x = preprocess(photo).double()
    assert preprocess.pixels(x + 100).max() == 1


def test_grey_models_get_one_channel_and_are_shown_in_three(photo):
    grey = Preprocess(mean=(0.5,), std=(0.25,))
    x = grey(photo)
    assert x.shape == (1, photo.height, photo.width)
    pixels = grey.pixels(x)
    assert pixels.shape == (photo.height, photo.width, 3)
    expected = torch.from_numpy(np.asarray(photo.convert("L")) / 255).float()
    torch.testing.assert_close(pixels[..., 1], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"mean": (0.5,)}, "mean and std: expected three numbers"),
        ({"mean": (0.5, 0.5), "std": (1.0, 1.0)}, "mean and std"),
        ({"std": (1.0, 0.0, 1.0)}, "std: expected numbers > 0"),
        ({"resize": 0}, "resize: expected at least one pixel, got 0"),
        ({"crop": (3, -1)}, "crop: expected at least one pixel"),
        ({"interpolation": "bilinar"}, "did you mean 'bilinear'"),
    ],
)
def test_bad_settings_are_refused(settings, reason):
    with pytest.raises(ValueError, match=reason):
        Preprocess(**settings)


def test_pixels_of_another_shape_are_refused():
    with pytest.raises(
        ValueError, match=r"expected an input \[3, H, W\], got shape \(1, 3, 4, 4\)"
    ):
        Preprocess().pixels(torch.zeros(1, 3, 4, 4))


@needs("torchvision")
@pytest.mark.parametrize(("resize", "crop"), [(32, 24), (37, 32), (20, 24)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_equal_to_the_transforms_of_torchvision(photo, resize, crop, interpolation):
    from moreaugrad.models.packages import import_torchvision

    import_torchvision()
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms._presets import ImageClassification

    theirs = ImageClassification(
        crop_size=crop, resize_size=resize, interpolation=InterpolationMode(interpolation)
    )
    ours = Preprocess(resize=resize, crop=crop, interpolation=interpolation, **IMAGENET)
    torch.testing.assert_close(ours(photo), theirs(photo), atol=1e-6, rtol=0)


PROCESSORS = {
    "ViTImageProcessor": {},
    "DeiTImageProcessor": {},
    "ConvNextImageProcessor": {"size": {"shortest_edge": 224}},
    "EfficientNetImageProcessor": {"rescale_offset": True, "rescale_factor": 1 / 127.5},
    "BitImageProcessor": {"do_normalize": False},
}


@needs("torchvision", "transformers")
@pytest.mark.parametrize("kind", PROCESSORS)
def test_equal_to_the_image_processors_of_transformers(kind):
    from moreaugrad.models.packages import import_torchvision

    import_torchvision()
    import transformers

    y, x = np.mgrid[:300, :400]
    smooth = np.stack([x * 255 / 400, y * 255 / 300, (x + y) * 255 / 700], -1).astype(np.uint8)
    processor = getattr(transformers, kind)(**PROCESSORS[kind])
    theirs = processor(Image.fromarray(smooth), return_tensors="pt")["pixel_values"][0]
    ours = as_preprocess(processor.to_dict())(Image.fromarray(smooth))
    # They resize tensors and we resize pictures, which differ by the rounding of a byte.
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < 0.05


def test_an_image_processor_without_a_size_of_ours_is_refused():
    with pytest.raises(ValueError, match="give preprocess="):
        as_preprocess({"do_resize": True, "size": {"longest_edge": 300}})

"""SSIM against scikit-image, in all of its own settings, and written out literally."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from moreaugrad.metrics import Window, ssim
from moreaugrad.pictures import normalise, reduce
from toys import normal

A, B = normal(2, 3, 20, 24, seed=0), normal(2, 3, 20, 24, seed=1)
GAUSSIAN = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


def displayed(maps: torch.Tensor) -> np.ndarray:
    return normalise(reduce(maps))


def test_the_default_is_scikit_images_map_with_its_border() -> None:
    expected = [
        structural_similarity(a, b, data_range=1.0, full=True, **GAUSSIAN)[1].mean()
        for a, b in zip(displayed(A), displayed(B), strict=True)
    ]
    assert ssim(A, B).tolist() == pytest.approx(expected, rel=1e-9)


def test_cropped_it_is_scikit_images_mean() -> None:
    expected = [
        structural_similarity(a, b, data_range=1.0, **GAUSSIAN)
        for a, b in zip(displayed(A), displayed(B), strict=True)
    ]
    found = ssim(A, B, window=Window(cropped=True))
    assert found.tolist() == pytest.approx(expected, rel=1e-9)
    assert found[0] != ssim(A, B)[0]


def test_uniform_windows_are_scikit_images_own_default() -> None:
    window = Window(size=7, sigma=None, cropped=True, unbiased=True)
    expected = [
        structural_similarity(
            a, b, channel_axis=0, data_range=max(a.max(), b.max()) - min(a.min(), b.min())
        )
        for a, b in zip(A.numpy(), B.numpy(), strict=True)
    ]
    found = ssim(A, B, displayed=False, reduction="none", data_range=None, window=window)
    assert found.tolist() == pytest.approx(expected, rel=1e-9)


def test_raw_maps_meet_zeros_at_the_border() -> None:
    """Literally: every window as a weighted sum, with five rows of zeros around the map."""
    offset = np.arange(-5, 6)
    kernel = np.exp(-(offset**2) / (2 * 1.5**2))
    weights = np.outer(kernel, kernel) / kernel.sum() ** 2
    values = []
    for a, b in zip(A[0].numpy(), B[0].numpy(), strict=True):
        a, b = np.pad(a, 5), np.pad(b, 5)
        for row in range(20):
            for column in range(24):
                x, y = (each[row : row + 11, column : column + 11] for each in (a, b))
                mx, my = (weights * x).sum(), (weights * y).sum()
                vx, vy = (weights * x * x).sum() - mx**2, (weights * y * y).sum() - my**2
                cov = (weights * x * y).sum() - mx * my
                values.append(
                    (2 * mx * my + 1e-4) * (2 * cov + 9e-4)
                    / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
                )  # fmt: skip
    found = ssim(A[:1], B[:1], displayed=False, reduction="none", window=Window(border="zero"))
    assert found.item() == pytest.approx(float(np.mean(values)), rel=1e-9)


def test_the_masked_mean_leaves_out_what_is_empty_in_both() -> None:
    a, b = torch.zeros(1, 40, 40), torch.zeros(1, 40, 40)
    a[0, 20, 10], b[0, 20, 30] = 1.0, 1.0
    whole, masked = ssim(a, b), ssim(a, b, masked=True)
    # Two windows of 11 x 11 pixels hold all that differs; the rest counts 1 each.
    touched = 2 * 11 * 11
    expected = (whole.item() * 1600 - (1600 - touched)) / touched
    assert masked.item() == pytest.approx(expected, rel=1e-9)
    assert whole.item() > 0.8 > masked.item()


def test_a_constant_map_is_a_blank_image() -> None:
    constant = torch.full((1, 20, 24), 3.0)
    assert ssim(constant, A[:1, 0].float()).isnan().all()
    assert ssim(constant, constant, displayed=False).item() == pytest.approx(1)


def test_it_needs_images() -> None:
    with pytest.raises(ValueError, match=r"expected maps \[B, C, H, W\] or \[B, H, W\]"):
        ssim(A.flatten(1), B.flatten(1))
    with pytest.raises(ValueError, match="with a reduction where they are displayed"):
        ssim(A, B, reduction="none")
    with pytest.raises(ValueError, match="maps of 11 pixels a side"):
        ssim(A[..., :8], B[..., :8], window=Window(cropped=True))
    with pytest.raises(ValueError, match="data_range"):
        ssim(A, B, data_range=0.0)

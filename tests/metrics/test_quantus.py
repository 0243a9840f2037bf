"""Agreement with Quantus where it defines the same; docs/metrics.md tells where it does not."""

import warnings
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from moreaugrad import SimpleGradient, build
from moreaugrad.metrics import (
    Replacement,
    Window,
    auroc,
    cosine,
    drop_curve,
    entropy,
    gini,
    normalised_distance,
    pearson,
    pointing_game,
    spearman,
    ssim,
)
from tiny_models import smooth
from toys import normal

A, B = normal(3, 3, 16, 16, seed=0), normal(3, 3, 16, 16, seed=1)
QUIET = {"disable_warnings": True, "display_progressbar": False, "normalise": False}


@pytest.fixture(scope="module")
def quantus() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("quantus", reason="Quantus is not installed")


def flat(maps: Tensor) -> np.ndarray:
    return maps.flatten(1).numpy()


def of_maps(quantus: ModuleType, name: str, maps: Tensor, **options: object) -> list[float]:
    """A metric of Quantus that asks neither the model nor the inputs."""
    masks = options.pop("s_batch", None)
    metric = getattr(quantus, name)(abs=True, **QUIET, **options)
    found = metric(
        model=smooth().module, x_batch=A.float().numpy(), y_batch=np.zeros(3, dtype=int),
        a_batch=maps.numpy().copy(), s_batch=masks, device="cpu",
    )  # fmt: skip
    return np.asarray(found).tolist()


def test_gini_is_its_sparseness(quantus: ModuleType) -> None:
    # It adds 1e-7 to every entry, which these maps are far above.
    assert gini(A).tolist() == pytest.approx(of_maps(quantus, "Sparseness", A), rel=1e-5)


def test_entropy_is_its_complexity(quantus: ModuleType) -> None:
    assert entropy(A).tolist() == pytest.approx(of_maps(quantus, "Complexity", A), rel=1e-6)


def test_correlations_are_the_same(quantus: ModuleType) -> None:
    functions = quantus.similarity_func
    expected = functions.correlation_spearman(flat(A), flat(B), batched=True)
    assert spearman(A, B, signed=True).numpy() == pytest.approx(expected)
    expected = functions.correlation_pearson(flat(A), flat(B), batched=True)
    assert pearson(A, B, signed=True).numpy() == pytest.approx(expected)
    expected = [1 - functions.cosine(a, b) for a, b in zip(flat(A), flat(B), strict=True)]
    assert cosine(A, B, signed=True).tolist() == pytest.approx(expected)


def test_the_distance_is_its_euclidean_one_at_unit_length(quantus: ModuleType) -> None:
    a, b = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (flat(A), flat(B)))
    expected = quantus.similarity_func.distance_euclidean(a, b)
    assert normalised_distance(A, B, signed=True).numpy() == pytest.approx(expected)


def test_ssim_is_the_same_with_its_window_and_range(quantus: ModuleType) -> None:
    expected = quantus.similarity_func.ssim(A[:, 0].numpy(), B[:, 0].numpy(), batched=True)
    window = Window(size=7, sigma=None, cropped=True, unbiased=True)
    found = ssim(
        A[:, 0], B[:, 0], displayed=False, reduction="none", data_range=None, window=window
    )
    assert found.tolist() == pytest.approx(expected)


def test_localisation_is_the_same(quantus: ModuleType) -> None:
    maps = A.abs().sum(1, keepdim=True)
    masks = torch.rand(maps.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    values, truth = maps[:, 0], masks[:, 0]
    expected = of_maps(quantus, "AUC", maps, s_batch=masks.numpy())
    assert auroc(values, truth).tolist() == pytest.approx(expected)
    # Each has one largest value, of which it counts all and we the share within the mask.
    expected = of_maps(quantus, "PointingGame", maps, s_batch=masks.numpy())
    assert pointing_game(values, truth).tolist() == expected


def test_replaced_regions_lower_the_score_alike(quantus: ModuleType) -> None:
    explainer = SimpleGradient(smooth().module)
    x = A.float()
    maps, target = explainer.attribute(x), explainer.forward_func(x).argmax(1)
    metric = quantus.RegionPerturbation(
        patch_size=4, regions_evaluation=16, perturb_baseline=0.0, abs=True, **QUIET
    )
    expected = metric(
        model=explainer.forward_func, x_batch=x.numpy(), y_batch=target.numpy(),
        a_batch=maps.numpy(), softmax=True, device="cpu",
    )  # fmt: skip
    how = Replacement(size=4, replacement="mean", draws=1)
    found = drop_curve(explainer.bind(x), maps, steps=16, how=how)
    assert found[:, 1:].numpy() == pytest.approx(np.asarray(expected), abs=1e-5)


# What its suite of tests finds of maps with zeros; docs/captum-quantus.md says what to do.


def linear() -> tuple[nn.Module, Tensor, Tensor]:
    """Black above, so that attributions with a baseline of zero are exactly zero there."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    x = normal(6, 1, 8, 8, seed=3).float().abs()
    x[:, :, :2] = 0
    return model, x, model(x).argmax(1)


def scored(quantus: ModuleType, name: str, method: str, x: Tensor, **options: object) -> np.ndarray:
    model, _, target = linear()
    masks = options.pop("s_batch", None)
    maps = build(method, model).attribute(x, target=target)
    assert isinstance(maps, Tensor)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy's, of a constant input
        found = getattr(quantus, name)(**QUIET, **options)(
            model=model, x_batch=x.numpy(), y_batch=target.numpy(), a_batch=maps.numpy(),
            s_batch=masks, softmax=False, device="cpu",
        )  # fmt: skip
    return np.asarray(found, dtype=float)


FALLS = {"features_in_step": 4, "perturb_baseline": "black", "abs": False}


@pytest.mark.parametrize("method", ["integrated-gradients", "gradient-x-input", "deeplift"])
def test_exact_attributions_of_a_linear_model_are_wholly_faithful(
    quantus: ModuleType, method: str
) -> None:
    x = linear()[1]
    assert scored(quantus, "FaithfulnessEstimate", method, x, **FALLS) == pytest.approx(1)
    # The gradient alone is not what a pixel that turns black takes away.
    assert scored(quantus, "FaithfulnessEstimate", "simple-gradient", x, **FALLS).max() < 0.999


def test_its_sensitivity_n_is_none_where_maps_have_zeros(quantus: ModuleType) -> None:
    """Sums of attributions are equal in all samples, and have no correlation with anything. It
    compares one step's sum with the fall of all steps so far: exact attributions do not reach 1."""
    x = linear()[1]
    assert np.isnan(scored(quantus, "SensitivityN", "integrated-gradients", x, **FALLS)).any()
    dense = normal(6, 1, 8, 8, seed=4).float().abs() + 0.1
    assert scored(quantus, "SensitivityN", "integrated-gradients", dense, **FALLS).mean() < 0.9


def test_its_top_k_counts_zeros_in_their_order(quantus: ModuleType) -> None:
    """6 of 64 entries are not zero, so 14 of the 20 largest are the first zeros of the image: map
    and mask turned upside down together have another score."""
    model, x, target = linear()
    maps = build("sparse-moreaugrad-plain", model).attribute(x, target=target)
    assert isinstance(maps, Tensor)
    masks = torch.zeros(x.shape)
    masks[:, :, :2] = 1
    upright, turned = (
        np.asarray(
            quantus.TopKIntersection(k=20, abs=True, **QUIET)(
                model=model, x_batch=x.numpy(), y_batch=target.numpy(), device="cpu",
                a_batch=a.numpy(), s_batch=s.numpy(),
            )
        )
        for a, s in ((maps, masks), (maps.flip(2), masks.flip(2)))
    )  # fmt: skip
    assert (upright > turned + 0.3).all()

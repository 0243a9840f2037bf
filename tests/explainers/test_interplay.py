"""Every method inside the tools that people already use: Captum's wrappers and metrics, Quantus."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import NoiseTunnel
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor, nn

from contracts.networks import Joint, Picture, cheap, columns, pictures
from moreaugrad import METHODS
from moreaugrad.explainers.path import FromBaseline

pytestmark = pytest.mark.filterwarnings("ignore::moreaugrad.ConvergenceWarning")
TARGET = torch.tensor([0, 2, 1])


def lower(x: Tensor) -> tuple[Tensor, Tensor]:
    """A perturbation, and the inputs that it leaves."""
    drawn = 0.1 * torch.rand(x.shape, dtype=x.dtype)
    return drawn, x - drawn


@pytest.mark.parametrize("method", METHODS)
def test_noise_tunnel_averages_maps_of_noisy_copies(method: str) -> None:
    explainer, x = cheap(method, Picture()), pictures(3)
    tunnel = NoiseTunnel(explainer)
    torch.manual_seed(5)
    found = tunnel.attribute(x, nt_samples=4, stdevs=0.2, target=TARGET)
    torch.manual_seed(5)
    noisy = x.repeat_interleave(4, dim=0) + torch.normal(0, torch.full((12, 2, 6, 6), 0.2))
    maps = explainer.attribute(noisy, target=TARGET.repeat_interleave(4))
    torch.testing.assert_close(found, maps.unflatten(0, (3, 4)).mean(1))
    in_parts = tunnel.attribute(
        x, nt_samples=4, nt_samples_batch_size=1, nt_type="vargrad", target=TARGET
    )
    assert in_parts.shape == x.shape


@pytest.mark.parametrize("method", ["integrated-gradients", "deeplift", "sparse-moreaugrad"])
def test_noise_tunnel_passes_arguments_on(method: str) -> None:
    tunnel = NoiseTunnel(cheap(method, Joint()))
    inputs = pictures(3), columns(3)
    given: dict[str, Any] = {"target": 1}
    if isinstance(tunnel.attribution_method, FromBaseline):
        given["baselines"] = pictures(1), columns(1)
    maps = tunnel.attribute(inputs, nt_samples=2, stdevs=(0.1, 0.2), **given)
    assert isinstance(maps, tuple)
    assert [part.shape for part in maps] == [x.shape for x in inputs]
    gain = torch.tensor([0.5, 1.0, 2.0]).double()
    tunnel = NoiseTunnel(cheap(method, Picture()))
    alone = tunnel.attribute(
        inputs[0], nt_samples=2, stdevs=1e-9, target=1, additional_forward_args=(gain, 2.0)
    )
    exact = tunnel.attribution_method.attribute(
        inputs[0], target=1, additional_forward_args=(gain, 2.0)
    )
    torch.testing.assert_close(alone, exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_captums_metrics_take_the_maps(method: str) -> None:
    model, x = Picture(), pictures(3)
    explainer = cheap(method, model)
    maps = explainer.attribute(x, target=TARGET)
    found = infidelity(model, lower, x, maps, target=TARGET, n_perturb_samples=4)
    assert found.shape == (3,)
    assert torch.isfinite(found).all()
    still = sensitivity_max(
        explainer.attribute, x, perturb_radius=0.0, target=TARGET, n_perturb_samples=2
    )
    assert still.tolist() == pytest.approx([0, 0, 0], abs=1e-8)
    moved = sensitivity_max(
        explainer.attribute, x, perturb_radius=0.1, target=TARGET, n_perturb_samples=2
    )
    assert moved.shape == (3,)
    assert (moved > 0).all()


def explain_func(
    model: nn.Module, inputs: np.ndarray, targets: np.ndarray, *, method: str, **_: Any
) -> np.ndarray:
    """What Quantus calls: arrays in, an array out."""
    x = torch.as_tensor(inputs, dtype=torch.float32)
    return cheap(method, model).attribute(x, target=torch.as_tensor(targets)).numpy()


def test_quantus_takes_the_maps() -> None:
    # One test, so that one worker pays for the import.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantus = pytest.importorskip("quantus", reason="Quantus is not installed")
    model = Picture(dtype=torch.float32)
    given = {
        "model": model,
        "x_batch": pictures(3, torch.float32).numpy(),
        "y_batch": TARGET.numpy(),
        "a_batch": None,
        "device": "cpu",
        "explain_func": explain_func,
    }
    quiet = {"disable_warnings": True, "display_progressbar": False}
    sensitivity = quantus.MaxSensitivity(nr_samples=2, **quiet)
    faithfulness = quantus.FaithfulnessCorrelation(
        nr_runs=10, subset_size=8, return_aggregate=False, **quiet
    )
    for method in METHODS:
        chosen = given | {"explain_func_kwargs": {"method": method}}
        found = np.asarray(sensitivity(**chosen))
        assert found.shape == (3,), method
        assert (found > 0).all(), method
        with warnings.catch_warnings():
            # A subset without an entry of a sparse map has no correlation: NaN, and a warning.
            warnings.filterwarnings("ignore", message=".*array is constant")
            correlation = np.asarray(faithfulness(**chosen))
        assert correlation.shape == (3,), method
        assert (np.isnan(correlation) | (np.abs(correlation) <= 1 + 1e-6)).all(), method

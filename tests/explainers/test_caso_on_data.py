"""CASO and the closed-form Hessian on real networks and pictures, beside the published routes."""

import zipfile
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import pytest
import torch
from benchmarks.caso import FromPixels
from benchmarks.published_caso import dense_route, ten_steps
from PIL import Image
from torch import Tensor, nn

from moreaugrad import CAFO, CASO, SmoothCASO, relu_hessian
from moreaugrad.data.images import load_image
from moreaugrad.models import LoadedModel, load_model

pytestmark = pytest.mark.data


def pictures(folder: Path, loaded: LoadedModel, count: int = 6) -> Tensor:
    with zipfile.ZipFile(folder / "cifar10-jpeg.zip") as archive:
        names = sorted(n for n in archive.namelist() if n.startswith("test/") and n[-4:] == ".jpg")
        step = len(names) // count
        images = [Image.open(BytesIO(archive.read(name))) for name in names[::step][:count]]
        return torch.stack([loaded.preprocess(image) for image in images])


@pytest.fixture(scope="module")
def relu(data_folder: Path) -> LoadedModel:
    weights = data_folder / "models" / "resnet20-cifar10.safetensors"
    return load_model("benchmarks.cifar_resnet:resnet20", weights=weights)


@pytest.fixture(scope="module")
def softplus() -> LoadedModel:
    return load_model("benchmarks.cifar_resnet:resnet20_softplus")


def as_published(loaded: LoadedModel) -> nn.Module:
    return FromPixels(loaded.module, loaded.preprocess.mean, loaded.preprocess.std).eval()


def in_pixels(loaded: LoadedModel, x: Tensor) -> Tensor:
    std, mean = (
        torch.tensor(v).view(3, 1, 1) for v in (loaded.preprocess.std, loaded.preprocess.mean)
    )
    return x * std + mean


def off(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("hessian", ["exact", "gauss-newton"])
def test_all_routes_agree_on_a_relu_network(
    data_folder: Path, relu: LoadedModel, hessian: str
) -> None:
    x, std = pictures(data_folder, relu), relu.preprocess.std
    result = CASO(relu.module, std=std, lambda1=0.0, hessian=hessian).explain(x)
    closed = relu_hessian(relu.module, x, std=std)
    (maps,), lambda2 = closed.displacement(c1=10.0)
    model, pixels = as_published(relu), in_pixels(relu, x)
    for i in range(len(x)):
        dense = dense_route(model, pixels[i : i + 1], int(result.prediction[i]))
        for delta in (-result.maps[i], maps[i]):
            assert off(delta, dense.delta[0]) < 1e-2  # the order of sums flips kinks
        for top in (float(result.details["top_eigenvalue"][i]), float(closed.eigenvalues[i, 0])):
            assert top == pytest.approx(dense.top, rel=1e-2)
        assert float(lambda2[i]) == pytest.approx(dense.top / 2 + 10, rel=1e-2)


def test_the_published_ten_steps_are_near_and_not_exact(
    data_folder: Path, relu: LoadedModel
) -> None:
    x, std = pictures(data_folder, relu, 3), relu.preprocess.std
    result = CASO(relu.module, std=std, sparsity=0.75).explain(x)
    assert result.ok
    start = torch.rand(x[:1].shape, generator=torch.Generator().manual_seed(0)) - 0.5
    model, pixels = as_published(relu), in_pixels(relu, x)
    for i in range(len(x)):
        target, weight = int(result.prediction[i]), float(result.eta[i])
        theirs = ten_steps(model, pixels[i : i + 1], target, weight, start)
        assert off(theirs.delta[0], -result.maps[i]) < 0.7
        assert theirs.products > 2 * int(result.steps[i])


def test_the_smooth_network_has_curvature_that_gauss_newton_lacks(
    data_folder: Path, softplus: LoadedModel
) -> None:
    x, std = pictures(data_folder, softplus), softplus.preprocess.std
    exact = CASO(softplus.module, std=std, lambda1=0.0).explain(x)
    assert exact.ok
    with pytest.warns(UserWarning, match="not the Hessian"):
        other = CASO(softplus.module, std=std, lambda1=0.0, hessian="gauss-newton").explain(x)
    assert (other.details["hessian_gap"] > 2e-3).any()
    first = CAFO(softplus.module, std=std, lambda1=0.0).explain(x)
    apart = (_unit(first.maps) - _unit(exact.maps)).flatten(1).norm(dim=1)
    assert (apart > 1e-3).any()


def _unit(maps: Tensor) -> Tensor:
    return maps / maps.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


@pytest.mark.parametrize("method", [CASO, partial(SmoothCASO, samples=2)], ids=["CASO", "smooth"])
def test_a_batch_gives_what_its_images_give_alone(
    data_folder: Path, softplus: LoadedModel, method: Callable[..., CASO]
) -> None:
    x = pictures(data_folder, softplus, 2)
    explainer = method(softplus.module, std=softplus.preprocess.std, tolerance=1e-3)
    together = explainer.explain(x)
    for i in range(len(x)):
        alone = explainer.explain(x[i : i + 1])
        assert off(alone.maps[0], together.maps[i]) < 5e-3
        assert float(alone.eta[0]) == pytest.approx(float(together.eta[i]), rel=5e-3)


@pytest.mark.skipif(find_spec("torchvision") is None, reason="needs torchvision")
def test_photos_of_a_thousand_classes(data_folder: Path) -> None:
    loaded = load_model(
        "torchvision:squeezenet1_0",
        weights=data_folder / "models" / "squeezenet1_0-imagenet.safetensors",
    )
    files = sorted((data_folder / "imagenet-sample").glob("*.JPEG"))[:3]
    x = torch.stack([loaded.preprocess(load_image(file)) for file in files])
    result = CASO(loaded.module, std=loaded.preprocess.std, hessian="gauss-newton").explain(x)
    assert result.ok
    assert (result.details["hessian_gap"] < 1e-3).all()
    assert ((result.zeros - 0.9).abs() < 0.005).all()
    few = relu_hessian(loaded.module, x[:1], leading=2, std=loaded.preprocess.std)
    assert float(few.eigenvalues[0, 0]) == pytest.approx(
        float(result.details["top_eigenvalue"][0]), rel=1e-3
    )

"""Sources of models, each a function from a name to a LoadedModel; the built-in classifiers."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from moreaugrad.data.cells import CLASS_NAMES
from moreaugrad.models.huggingface import from_huggingface
from moreaugrad.models.loaded import LoadedModel, Preprocess
from moreaugrad.models.packages import fetching, import_extra, import_torchvision
from moreaugrad.models.weights import load_weights
from moreaugrad.registry import first_line, import_code, working_folder
from moreaugrad.settings import nearest

WEIGHTS = {
    name: Path(__file__).parents[1] / "weights" / f"{name}.safetensors"
    for name in ("builtin", "builtin-elastic-net")
}
"""Files of the built-in models. The second is the first, fine-tuned with the elastic net."""

SIZE = 64
MEAN, STD = (0.3, 0.3, 0.3), (0.25, 0.25, 0.25)
"""Preprocessing of the built-in models: RGB images of 64 x 64 pixels, with this mean and std."""

Source = Callable[[str, bool, int | None], LoadedModel]
"""(name, whether to fetch weights, number of classes or None for the default) -> LoadedModel."""


class _Residual(nn.Module):
    """x + conv(silu(conv(silu(x)))), both 3 x 3."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


class CellClassifier(nn.Module):
    """A classifier from inputs `[B, 3, 64, 64]` to ten logits `[B, 10]`.

    It is smooth: with SiLU instead of ReLU, strided convolutions and average pooling its curvature
    is finite and its maps are continuous. No layer mixes the samples of a batch.
    """

    def __init__(self) -> None:
        super().__init__()
        first, second, third = 24, 48, 80  # channels of the three stages
        self.features = nn.Sequential(
            nn.Conv2d(3, first, 5, stride=2, padding=2),
            _Residual(first),
            nn.SiLU(), nn.Conv2d(first, second, 3, stride=2, padding=1),
            _Residual(second),
            nn.SiLU(), nn.Conv2d(second, third, 3, stride=2, padding=1),
            _Residual(third),
            nn.SiLU(),
        )  # fmt: skip
        self.head = nn.Linear(third, len(CLASS_NAMES))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x).mean((2, 3)))
        return logits


def from_package(name: str, pretrained: bool, classes: int | None) -> LoadedModel:
    module = CellClassifier()
    if pretrained:
        load_weights(module, WEIGHTS[name], name)
    preprocess = Preprocess(resize=SIZE, crop=SIZE, mean=MEAN, std=STD)
    return LoadedModel(module=module, preprocess=preprocess, labels=CLASS_NAMES)


def from_torchvision(name: str, pretrained: bool, classes: int | None) -> LoadedModel:
    models = import_torchvision().models
    known = models.list_models(module=models)
    if name not in known:
        raise ValueError(
            f"torchvision:{name}: torchvision has no such classifier{nearest(name, known)}"
        )
    weights = models.get_model_weights(name).DEFAULT
    if pretrained:
        with fetching(f"torchvision:{name}"):
            # Read without running code; the model below is then built from the cached file.
            weights.get_state_dict(check_hash=True, weights_only=True, map_location="cpu")
            module = models.get_model(name, weights=weights)
    else:
        settings: dict[str, object] = {} if classes is None else {"num_classes": classes}
        if name in ("googlenet", "inception_v3"):
            # Their published weights expect inputs that are rescaled in this way.
            settings |= {"transform_input": True, "init_weights": False}
        module = models.get_model(name, weights=None, **settings)
    transform = weights.transforms()
    preprocess = Preprocess(
        resize=transform.resize_size[0],
        crop=transform.crop_size[0],
        mean=tuple(transform.mean),
        std=tuple(transform.std),
        interpolation=transform.interpolation.value,
    )
    labels = tuple(weights.meta["categories"]) if classes is None else None
    return LoadedModel(module=module, preprocess=preprocess, labels=labels)


def from_timm(name: str, pretrained: bool, classes: int | None) -> LoadedModel:
    timm = import_extra("timm", "timm")
    if ":" not in name and not timm.is_model(name):
        known = [*timm.list_models(), *timm.list_pretrained()]
        raise ValueError(f"timm:{name}: timm has no such model{nearest(name, known)}")
    settings = {} if classes is None else {"num_classes": classes}
    with fetching(f"timm:{name}"):
        module = timm.create_model(name, pretrained=pretrained, **settings)
    config = timm.data.resolve_model_data_config(module)
    if config["crop_mode"] not in ("center", "squash"):
        raise ValueError(
            f"timm:{name}: its preprocessing ({config['crop_mode']!r} crop) is not supported; "
            "give preprocess="
        )
    _, height, width = config["input_size"]
    scaled = (math.floor(height / config["crop_pct"]), math.floor(width / config["crop_pct"]))
    keeps_aspect = config["crop_mode"] == "center" and height == width
    preprocess = Preprocess(
        resize=scaled[0] if keeps_aspect else scaled,
        crop=(height, width),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
    )
    subset = timm.data.infer_imagenet_subset(module) if classes is None else None
    labels = None
    if subset is not None:
        info = timm.data.ImageNetInfo(subset)
        labels = tuple(map(info.index_to_description, range(info.num_classes())))
    return LoadedModel(module=module, preprocess=preprocess, labels=labels)


def from_factory(name: str, pretrained: bool, classes: int | None) -> LoadedModel:
    """Call `package.module:function`, also of the working folder, without arguments."""
    factory = import_code(name, "a function that returns a model", SOURCES)
    with working_folder():
        try:
            made = factory()
        except (Exception, SystemExit) as error:
            raise ValueError(f"{name}: calling it failed ({first_line(error)})") from error
    if isinstance(made, nn.Module):
        return LoadedModel(module=made, preprocess=RAW)
    if not isinstance(made, LoadedModel):
        raise TypeError(
            f"{name}: expected it to return a torch.nn.Module or a LoadedModel, got "
            f"{type(made).__name__}"
        )
    return made


RAW = Preprocess()
"""The preprocessing of a module that comes without one: images as RGB in [0, 1]."""

SOURCES: dict[str, Source] = {
    "torchvision": from_torchvision,
    "timm": from_timm,
    "hf": from_huggingface,
}

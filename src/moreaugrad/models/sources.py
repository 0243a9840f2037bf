"""Sources of models, each a function from a name to a LoadedModel; the built-in classifiers."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from PIL.Image import Resampling
from torch import Tensor, nn

from moreaugrad.data.cells import CLASS_NAMES
from moreaugrad.data.images import Size
from moreaugrad.extras import required
from moreaugrad.models.loaded import LoadedModel, Preprocess
from moreaugrad.models.weights import load_weights
from moreaugrad.registry import first_line, import_code, working_folder
from moreaugrad.settings import nearest

NO_CODE = {"trust_remote_code": False}
"""Otherwise transformers asks on the terminal whether to run code that it finds next to weights."""

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
        with _fetching(f"torchvision:{name}"):
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
    timm = _import_extra("timm", "timm")
    if ":" not in name and not timm.is_model(name):
        known = [*timm.list_models(), *timm.list_pretrained()]
        raise ValueError(f"timm:{name}: timm has no such model{nearest(name, known)}")
    settings = {} if classes is None else {"num_classes": classes}
    with _fetching(f"timm:{name}"):
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


def from_huggingface(name: str, pretrained: bool, classes: int | None) -> LoadedModel:
    transformers = _import_extra("transformers", "hf")
    automatic = transformers.AutoModelForImageClassification
    for file in Path(name).glob("*"):
        if not (file.is_file() or file.is_dir()):
            raise ValueError(f"hf:{name}: expected a folder of files, but {file.name} is none")
    with _fetching(f"hf:{name}"):
        config = transformers.AutoConfig.from_pretrained(name, **NO_CODE)
    if type(config) not in automatic._model_mapping:
        architecture = ", ".join(getattr(config, "architectures", None) or [type(config).__name__])
        raise ValueError(
            f"hf:{name}: expected an image classifier, got {architecture}. In Python any module "
            "can be explained, one for text at its embedding (layer=)"
        )
    with _fetching(f"hf:{name}"):
        settings = transformers.AutoImageProcessor.from_pretrained(name, **NO_CODE).to_dict()
        if pretrained:
            module, found = automatic.from_pretrained(name, output_loading_info=True, **NO_CODE)
        else:
            changed = {} if classes is None else {"num_labels": classes}
            config = transformers.AutoConfig.from_pretrained(name, **changed, **NO_CODE)
            module, found = automatic.from_config(config, **NO_CODE), {}
    if found.get("missing_keys"):
        raise ValueError(
            f"hf:{name}: its weights are not those of a finished classifier; without "
            f"{', '.join(sorted(found['missing_keys'])[:4])} its outputs would be random"
        )
    labels = None
    if classes is None:
        labels = tuple(module.config.id2label[index] for index in range(module.config.num_labels))
    return LoadedModel(module=module, preprocess=as_preprocess(settings), labels=labels)


def as_preprocess(settings: Mapping[str, Any]) -> Preprocess:
    """An image processor of transformers, in its dictionary form, as a Preprocess.

    The processor rescales bytes p to r p + o, then normalises with its mean and std. This equals
    (p / 255 - m) / s with s = std / (255 r) and m = (mean - o) / (255 r).
    Errors: ValueError for a size that Preprocess cannot express.
    """
    resize = _processor_size(settings.get("size")) if settings.get("do_resize") else None
    crop = _processor_size(settings.get("crop_size")) if settings.get("do_center_crop") else None
    percent = settings.get("crop_pct")
    if percent and isinstance(resize, int):
        # ConvNeXt's rule: small images are cropped, large ones are resized to a square.
        crop = (resize, resize)
        resize = int(resize / percent) if resize < 384 else crop
    scale = 255 * settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale") else 255.0
    offset = 1.0 if settings.get("do_rescale") and settings.get("rescale_offset") else 0.0
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if settings.get("do_normalize"):
        mean, std = tuple(settings["image_mean"]), tuple(settings["image_std"])
    if settings.get("include_top"):  # EfficientNet divides a second time
        std = tuple(a * b for a, b in zip(std, settings["image_std"], strict=True))
    return Preprocess(
        resize=resize,
        crop=crop,
        mean=tuple((value + offset) / scale for value in mean),
        std=tuple(value / scale for value in std),
        interpolation=Resampling(settings.get("resample", Resampling.BILINEAR)).name.lower(),
    )


def _processor_size(size: object) -> Size | None:
    if size is None or isinstance(size, int):
        return size
    if isinstance(size, Mapping):
        if size.get("height") and size.get("width"):
            return (int(size["height"]), int(size["width"]))
        if size.get("shortest_edge"):
            return int(size["shortest_edge"])
    raise ValueError(
        f"expected an image processor with a height and width or a shortest edge, got {size!r}; "
        "give preprocess="
    )


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


@cache
def import_torchvision() -> ModuleType:
    """Import torchvision, even if its compiled operators are missing.

    The import then fails on the schemas of two operators. They are defined here, in a library that
    is kept alive; classifiers do not need them, only detection does.
    """
    try:
        return _import("torchvision", "torchvision")
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        schema = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(schema)  # type: ignore[no-untyped-call]
    _KEPT_ALIVE.append(library)
    return _import("torchvision", "torchvision")


_KEPT_ALIVE: list[torch.library.Library] = []


def _import_extra(package: str, extra: str) -> ModuleType:
    """Import a package that itself imports torchvision if it is installed."""
    if importlib.util.find_spec("torchvision") is not None:
        import_torchvision()
    return _import(package, extra)


def _import(package: str, extra: str) -> ModuleType:
    try:
        return required(package, extra, f"a model named {extra}:NAME")
    except ModuleNotFoundError as error:
        raise ValueError(str(error)) from error


@contextmanager
def _fetching(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # damaged files raise errors of many libraries
        if Path(name.partition(":")[2]).is_dir():
            raise ValueError(
                f"{name}: the folder holds no whole model with its preprocessing, as "
                f"save_pretrained writes them ({first_line(error)})"
            ) from error
        if name.partition(":")[2].startswith(("/", ".", "~")):
            raise ValueError(f"{name}: expected a folder, but it does not exist") from error
        raise ValueError(
            f"{name}: could not be fetched ({first_line(error)}); connect to the network once, "
            "or give its weights with --weights FILE (weights=)"
        ) from error

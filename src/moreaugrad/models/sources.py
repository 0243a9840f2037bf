"""Where models come from. Each source is one function from a name to a LoadedModel."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from moreaugrad.data.cells import CLASS_NAMES
from moreaugrad.models import builtin
from moreaugrad.models.huggingface import as_preprocess
from moreaugrad.models.loaded import LoadedModel
from moreaugrad.models.preprocess import Preprocess
from moreaugrad.models.trained import TRAINED
from moreaugrad.models.weights import load_weights
from moreaugrad.registry import (
    first_line,
    import_code,
    nearest,
    untrusted,
    working_folder,
)

NO_CODE = {"trust_remote_code": False}
"""For transformers, which otherwise asks on the terminal whether to run code that lies beside
weights."""

Source = Callable[[str, bool, int | None], LoadedModel]
"""(name, whether to fetch weights, number of classes or None for the usual) -> LoadedModel."""


def from_package(name: str, pretrained: bool, classes: int | None) -> LoadedModel:
    module = builtin.CellClassifier()
    if pretrained:
        load_weights(module, builtin.WEIGHTS[name], name)
    preprocess = Preprocess(
        resize=builtin.SIZE, crop=builtin.SIZE, mean=builtin.MEAN, std=builtin.STD
    )
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
            # Read once without running code; what is built next then comes from the cache.
            weights.get_state_dict(check_hash=True, weights_only=True, map_location="cpu")
            module = models.get_model(name, weights=weights)
    else:
        settings: dict[str, object] = {} if classes is None else {"num_classes": classes}
        if name in ("googlenet", "inception_v3"):
            # Their published weights expect the other scale that this gives the input.
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
        raise ValueError(
            f"hf:{name}: expected an image classifier, got {_described(config)}. In Python any "
            "module is explained, one of text at its embedding (layer=)"
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
            f"{', '.join(sorted(found['missing_keys'])[:4])} its answers would be random"
        )
    labels = None
    if classes is None:
        labels = tuple(module.config.id2label[index] for index in range(module.config.num_labels))
    return LoadedModel(module=module, preprocess=as_preprocess(settings), labels=labels)


def _described(config: Any) -> str:
    """The architecture that a configuration of transformers is of."""
    return ", ".join(getattr(config, "architectures", None) or [type(config).__name__])


def own_code(name: str) -> bool:
    """Whether a network of this name is made by code of one's own, `module:factory`."""
    scheme, separator, rest = name.partition(":")
    return bool(separator and scheme and rest) and scheme not in (*SOURCES, TRAINED)


def refuse_code(name: str, file: str | Path, *, trust: bool) -> None:
    """Errors: ValueError for a name out of a file whose code nobody has consented to run."""
    if own_code(name) and not trust:
        raise untrusted(name, file, "its network")


def from_factory(name: str, pretrained: bool, classes: int | None) -> LoadedModel:
    """`package.module:function`, found from the working folder too, called without arguments."""
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
"""Stands for "not known": pictures go in as they are, as RGB in [0, 1]."""

SOURCES: dict[str, Source] = {
    "torchvision": from_torchvision,
    "timm": from_timm,
    "hf": from_huggingface,
}


@cache
def import_torchvision() -> ModuleType:
    """torchvision, also where its compiled operators are missing.

    Its import then fails on the schemas of two operators, which no classifier needs. They are
    defined here, in a library that stays alive, and detection alone is unavailable.
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
    """A package that imports torchvision where it is there."""
    if importlib.util.find_spec("torchvision") is not None:
        import_torchvision()
    return _import(package, extra)


def _import(package: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"models named {extra}:NAME need {error.name}, which is not installed: "
            f"pip install 'moreaugrad[{extra}]'"
        ) from error


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
            raise ValueError(f"{name}: expected a folder, but there is no such one") from error
        raise ValueError(
            f"{name}: could not be fetched ({first_line(error)}); connect to the network once, "
            "or give its weights with --weights FILE (weights=)"
        ) from error

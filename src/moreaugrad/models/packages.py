"""Packages that networks come from, imported when they are used."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType

import torch

from moreaugrad.extras import required
from moreaugrad.registry import first_line


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


def import_extra(package: str, extra: str) -> ModuleType:
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
def fetching(name: str) -> Iterator[None]:
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

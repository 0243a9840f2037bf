"""Models by name."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.random import fork_rng

from moreaugrad.models import builtin, sources
from moreaugrad.models.heads import fit_head_to
from moreaugrad.models.labels import check_labels, read_labels
from moreaugrad.models.loaded import LoadedModel
from moreaugrad.models.preprocess import Preprocess
from moreaugrad.models.trained import FILE, TRAINED, Trained, trained_folder
from moreaugrad.models.weights import fill_weights, read_weights
from moreaugrad.registry import first_line, nearest


def load_model(
    name: str,
    weights: str | Path | None = None,
    labels: str | Path | None = None,
    preprocess: Preprocess | Mapping[str, Any] | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    pretrained: bool = True,
    seed: int = 0,
    trust: bool = False,
) -> LoadedModel:
    """A classifier in evaluation mode, its parameters without gradients.

    name: `builtin`, `builtin-elastic-net`, `torchvision:NAME`, `timm:NAME`, `hf:NAME` (or
    `hf:FOLDER`), `trained:FOLDER`, where `train` has written to, or `python.module:factory`, a
    function without arguments that returns a module, or a LoadedModel that brings preprocessing
    and labels of its own.
    weights: a safetensors file, or a checkpoint of torch.save without code in it; without it the
    source's own weights are taken, and fetched where needed.
    labels: one name a line, or JSON. With weights of their own they set the number of outputs,
    also of a network that is built for others (its last layer is then another).
    preprocess: instead of the source's own; a mapping has some of its fields.
    pretrained: else without the source's weights: fresh ones, by `seed`. A factory decides itself.
    trust: whether a factory that the folder of `trained:FOLDER` names may be run. One that is
    given here, as `name`, needs no further consent.

    Errors: ValueError for an unknown name (the nearest is suggested), a missing extra, weights
    that cannot be fetched or do not fit, labels of another number, and a folder that names code
    without `trust`.
    """
    folder = trained_folder(name)
    if folder is not None:
        told = Trained.read(Path(folder))
        sources.refuse_code(told.model, Path(folder) / FILE, trust=trust)
        fresh = weights is None and not pretrained
        found = load_model(
            told.model,
            weights or (None if fresh else told.weights),
            labels or (None if fresh else told.labels),
            _prepared(preprocess, told.preprocess),
            device=device, dtype=dtype, pretrained=pretrained, seed=seed,
        )  # fmt: skip
        return dataclasses.replace(found, name=name)
    source, rest = _source(name)
    names = None if labels is None else read_labels(Path(labels))
    classes = len(names) if names is not None and weights is not None else None
    with fork_rng(devices=[]):  # building a network draws its first weights
        torch.default_generator.manual_seed(seed)
        model = source(rest, weights is None and pretrained, classes)
    if weights is not None:
        state = read_weights(Path(weights))
        fit_head_to(model.module, state, classes)
        fill_weights(model.module, state, Path(weights), name)
    if not preprocess and model.preprocess is sources.RAW:
        warnings.warn(
            f"{name} does not say how pictures are prepared: they go in as they are, as RGB in "
            "[0, 1]. Give preprocess=, or let the factory return a LoadedModel",
            stacklevel=2,
        )
    model = dataclasses.replace(
        model,
        name=name,
        module=_placed(model.module, device, dtype),
        preprocess=_prepared(preprocess, model.preprocess),
        source_preprocess=model.preprocess,
        labels=names or model.labels,
    )
    check_labels(model, "labels" if labels is None else str(labels))
    return model


def _prepared(asked: Preprocess | Mapping[str, Any] | None, own: Preprocess) -> Preprocess:
    return asked if isinstance(asked, Preprocess) else dataclasses.replace(own, **(asked or {}))


def _source(name: str) -> tuple[sources.Source, str]:
    if name in builtin.WEIGHTS:
        return sources.from_package, name
    scheme, separator, rest = name.partition(":")
    if not separator or not scheme or not rest:
        schemes = [f"{scheme}:NAME" for scheme in (*sources.SOURCES, TRAINED)]
        raise ValueError(
            f"model: expected {', '.join([*builtin.WEIGHTS, *schemes])} or python.module:factory, "
            f"got {name!r}{nearest(name, [*builtin.WEIGHTS, f'torchvision:{name}'])}"
        )
    if scheme in sources.SOURCES:
        return sources.SOURCES[scheme], rest
    return sources.from_factory, name


def _placed(
    module: torch.nn.Module, device: str | torch.device, dtype: torch.dtype
) -> torch.nn.Module:
    if not dtype.is_floating_point:
        raise ValueError(f"dtype: expected a floating-point type, got {dtype}")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device: {str(device)!r} cannot be used ({str(error).splitlines()[0]})"
        ) from error
    try:
        placed = module.to(device=device, dtype=dtype).eval()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a module that does not want to be moved raises
        raise ValueError(
            f"model: a {type(module).__name__} cannot be moved to {str(device)!r} as {dtype} in "
            f"evaluation mode ({first_line(error)}); scripted, exported and quantised "
            "modules may be fixed in these: give the module that they were made from"
        ) from error
    for parameter in placed.parameters():  # a scripted module has no requires_grad_ of its own
        parameter.requires_grad_(False)
    return placed

"""Models by name, also those in the folders of trainings."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.random import fork_rng

from moreaugrad.files.foreign import check_named, lies_within, parsing, read_json
from moreaugrad.files.units import SUFFIX, damaged, listed
from moreaugrad.models import sources
from moreaugrad.models.arrays import ArrayInput
from moreaugrad.models.huggingface import from_huggingface, load_tokenizer, reads_ids
from moreaugrad.models.loaded import LoadedModel, Preprocess, check_labels, read_labels
from moreaugrad.models.weights import fill_weights, fit_head_to, read_weights
from moreaugrad.registry import first_line, untrusted
from moreaugrad.settings import expect, nearest

TRAINED, FILE, LABELS = "trained", "model.json", "labels.json"
FINISHED = "results"
"""The unit of a training's folder that is written last."""


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
    tokenizer: str | None = None,
    array: ArrayInput | Mapping[str, Any] | None = None,
) -> LoadedModel:
    """Load a classifier by name, in evaluation mode, its parameters without gradients.

    name: `builtin`, `builtin-elastic-net`, `torchvision:NAME`, `timm:NAME`, `hf:NAME` (or
    `hf:FOLDER`), `trained:FOLDER` for a folder that `train` wrote, or `python.module:factory`, a
    function without arguments that returns a module, or a LoadedModel with its own preprocessing
    and labels.
    weights: a safetensors file, or a checkpoint of torch.save without code in it; by default the
    weights of the source, which are downloaded if needed.
    labels: a file with one name a line, or JSON. Together with `weights`, their number decides the
    number of outputs; the last layer is replaced if the network has another.
    preprocess: instead of the source's own; a mapping replaces some of its fields.
    device, dtype: of the parameters.
    pretrained: False for fresh weights, a function of `seed`. It has no effect on a factory.
    trust: whether a factory that the folder of `trained:FOLDER` names may be run. A factory given
    as `name` needs no consent.
    tokenizer: of a language model, a folder or name of transformers, or `python.module:function`,
    from a text to its token ids; by default that of the folder `hf:FOLDER`.
    array: what a network of series or volumes takes in, instead of images; a mapping replaces some
    fields of the source's own.

    Errors: ValueError for an unknown name (the nearest is suggested), a missing extra, weights
    that cannot be downloaded or do not fit, another number of labels than outputs, and a folder
    that names code without `trust`.

    >>> model = mg.load_model("builtin")
    >>> model.labels[0]
    'plain cell'
    """
    folder = trained_folder(name)
    if folder is not None:
        trained = Trained.read(Path(folder))
        check_trust(trained.model, Path(folder) / FILE, trust=trust)
        fresh = weights is None and not pretrained
        found = load_model(
            trained.model,
            weights or (None if fresh else trained.weights),
            labels or (None if fresh else trained.labels),
            _prepared(preprocess, trained.preprocess),
            device=device, dtype=dtype, pretrained=pretrained, seed=seed, array=array,
        )  # fmt: skip
        return replace(found, name=name)
    source, rest = _source(name)
    names = None if labels is None else read_labels(Path(labels))
    classes = len(names) if names is not None and weights is not None else None
    with fork_rng(devices=[]):  # fresh weights are random
        torch.default_generator.manual_seed(seed)
        model = source(rest, weights is None and pretrained, classes)
    if weights is not None:
        state = read_weights(Path(weights))
        fit_head_to(model.module, state, classes)
        fill_weights(model.module, state, Path(weights), name)
    if tokenizer is None and source is from_huggingface and reads_ids(model.module):
        tokenizer = name
    if tokenizer is not None:
        model = replace(model, tokenizer=load_tokenizer(tokenizer))
    if array is not None:
        model = replace(model, array=_array(array, model.array))
    of_images = model.tokenizer is None and model.array is None
    if not preprocess and model.preprocess is sources.RAW and of_images:
        warnings.warn(
            f"{name} does not say how images are preprocessed: they are used as RGB in [0, 1]. "
            "Give preprocess=, or let the factory return a LoadedModel",
            stacklevel=2,
        )
    model = replace(
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
    return asked if isinstance(asked, Preprocess) else replace(own, **(asked or {}))


def _array(asked: ArrayInput | Mapping[str, Any], own: ArrayInput | None) -> ArrayInput:
    return asked if isinstance(asked, ArrayInput) else replace(own or ArrayInput(), **asked)


def _source(name: str) -> tuple[sources.Source, str]:
    if name in sources.WEIGHTS:
        return sources.from_package, name
    scheme, separator, rest = name.partition(":")
    if not separator or not scheme or not rest:
        schemes = [f"{scheme}:NAME" for scheme in (*sources.SOURCES, TRAINED)]
        raise ValueError(
            f"model: expected {', '.join([*sources.WEIGHTS, *schemes])} or python.module:factory, "
            f"got {name!r}{nearest(name, [*sources.WEIGHTS, f'torchvision:{name}'])}"
        )
    if scheme in sources.SOURCES:
        return sources.SOURCES[scheme], rest
    return sources.from_factory, name


def _placed(
    module: torch.nn.Module, device: str | torch.device, dtype: torch.dtype
) -> torch.nn.Module:
    expect(dtype.is_floating_point, "dtype", "a floating-point type", dtype)
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
    except Exception as error:  # a module may refuse with any error
        raise ValueError(
            f"model: a {type(module).__name__} cannot be moved to {str(device)!r} as {dtype} in "
            f"evaluation mode ({first_line(error)}); scripted, exported and quantised "
            "modules may be fixed in these: give the module that they were made from"
        ) from error
    for parameter in placed.parameters():  # a scripted module has no requires_grad_ of its own
        parameter.requires_grad_(False)
    return placed


def own_code(name: str) -> bool:
    """Whether a name is that of user code, `module:factory`."""
    scheme, separator, rest = name.partition(":")
    return bool(separator and scheme and rest) and scheme not in (*sources.SOURCES, TRAINED)


def check_trust(name: str, file: str | Path, *, trust: bool) -> None:
    """Errors: ValueError for user code that a file names, unless the caller trusts it."""
    if own_code(name) and not trust:
        raise untrusted(name, file, "its network")


def trained_folder(name: str) -> str | None:
    """FOLDER of a name `trained:FOLDER`, otherwise None. Errors: ValueError for an empty FOLDER."""
    scheme, _, folder = name.partition(":")
    if scheme != TRAINED:
        return None
    check_named(f"model, {TRAINED}:FOLDER", folder)
    return folder


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The `model.json` of a training.

    model: the name that builds the network. weights, labels: paths of files in the same folder.
    """

    model: str
    weights: str
    labels: str
    preprocess: Preprocess

    def text(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def builder(cls, name: str) -> str:
        """The name that builds this network: the name itself, unless it is `trained:FOLDER`."""
        folder = trained_folder(name)
        return name if folder is None else cls.read(Path(folder)).model

    @classmethod
    def read(cls, folder: Path) -> Trained:
        """Read it from a folder. Errors: ValueError if it is missing or has other content, and if a
        file that the network needs is not as the training wrote it."""
        _check_whole(folder)
        file = folder / FILE
        expected = f"the {FILE} of a finished training"
        found = read_json(file, expected)
        with parsing(str(file), expected):
            given: dict[str, Any] = found["preprocess"]
            settings: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in given.items()
            }
            trained = cls(
                model=str(found["model"]),
                weights=_inside(folder, found["weights"]),
                labels=_inside(folder, found["labels"]),
                preprocess=Preprocess(**settings),
            )
            if trained_folder(trained.model) is not None:
                raise ValueError(
                    f"a training builds its network by another name, not {trained.model}"
                )
        return trained


def _check_whole(folder: Path) -> None:
    names = listed(folder / f"{FINISHED}{SUFFIX}")
    # Other files are for people, who may edit them.
    used = {n: names[n] for n in names if n in (FILE, LABELS) or n.endswith(".safetensors")}
    for name in damaged(folder, used):
        raise ValueError(
            f"{folder / name}: is damaged (its content is not what the training wrote); the same "
            "train command makes it again. Options --labels and --weights give others"
        )


def _inside(folder: Path, name: str) -> str:
    """The path of a file in the folder. Errors: ValueError for one that leads out of it."""
    path = folder / name
    if ".." in Path(name).parts or not lies_within(path, folder):
        raise ValueError(f"expected a file of its own folder, got {name!r}, which leads out of it")
    return str(path)

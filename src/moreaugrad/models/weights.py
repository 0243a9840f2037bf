"""Weights: read from files without running code, of last layers for other classes, and folded."""

from __future__ import annotations

import copy
import pickle
import re
import warnings
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.random import fork_rng

from moreaugrad.files.foreign import parsing, regular_file, some
from moreaugrad.settings import expect

NESTED = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
"""Keys under which training scripts put the weights in their checkpoints."""

PREFIXES = ("module.", "_orig_mod.")
"""Prefixes that DataParallel and torch.compile add to every name."""

FOLDED = ((nn.Conv1d, nn.BatchNorm1d), (nn.Conv2d, nn.BatchNorm2d), (nn.Conv3d, nn.BatchNorm3d))
"""Layers and the normalisations that are folded into them."""
OF_TIMM = {"Conv2dSame": nn.Conv2d, "BatchNormAct2d": nn.BatchNorm2d}
"""Names of timm's classes that compute what torch's do, after a padding or before `FOLLOWING`."""
FOLLOWING = ["drop", "act"]
"""Modules inside of a normalisation, in the order in which they follow it."""

EXPECTED = "expected weights as safetensors or as saved by torch.save(model.state_dict())"


def load_weights(module: nn.Module, path: Path, name: str) -> None:
    """Load a file of weights into a module. Errors: ValueError as in `fill_weights`."""
    fill_weights(module, read_weights(path), path, name)


def fill_weights(module: nn.Module, state: Mapping[str, Tensor], path: Path, name: str) -> None:
    """Load weights into a module; every name, shape and type has to match.

    Real numbers of any precision match each other; integers and real numbers do not.
    state: the weights, read from `path`. name: of the model, for messages.
    Errors: ValueError that lists weights that are missing, unexpected, or of another shape or type.
    """
    own = module.state_dict()
    # Old checkpoints lack this counter, and inference does not use it.
    needed = {key for key in own if not key.endswith("num_batches_tracked")}
    # Copying would truncate real numbers to integers.
    types = [
        f"{key} (expected {own[key].dtype}, got {state[key].dtype})"
        for key in own
        if key in needed and key in state and _kind(own[key]) != _kind(state[key])
    ]
    shapes = [
        f"{key} (expected {tuple(own[key].shape)}, got {tuple(state[key].shape)})"
        for key in own
        if key in state and own[key].shape != state[key].shape
    ]
    problems = [
        f"{len(found)} {what}: {some(found, most=4)}"
        for what, found in (
            ("missing", [key for key in own if key in needed and key not in state]),
            ("unexpected", [key for key in state if key not in own]),
            ("of another shape", shapes),
            ("of another type", types),
        )
        if found
    ]
    if problems:
        raise ValueError(
            f"{path}: the weights do not fit {name}, they may be those of another architecture; "
            + "; ".join(problems)
        )
    module.load_state_dict(state)


def _kind(value: Tensor) -> str:
    return "real" if value.is_floating_point() else "complex" if value.is_complex() else "integer"


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors by name of a safetensors file or a checkpoint of torch.save.

    A checkpoint is read with `weights_only=True`. A nested `state_dict` is found, and prefixes of
    wrappers are removed. Errors: ValueError, also for a file that contains code.
    """
    path = regular_file(path, "a file of weights")
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{":  # eight bytes of length, then a JSON header
        with parsing(str(path), "a whole safetensors file"):
            return _without_prefixes(load_file(path))
    with parsing(str(path), EXPECTED.removeprefix("expected ")):
        return _without_prefixes(_state_dict(_load_checkpoint(path), path))


def _load_checkpoint(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            # A plain pickle is refused below, with a reason.
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL:? ([\w.]+)", str(error))
        if wanted is None:
            raise ValueError(
                f"{path}: {EXPECTED}, got a file of another kind; a plain pickle is refused, "
                "because it may hold code"
            ) from None
        raise ValueError(
            f"{path}: refused, because the file asks for code to be run ({wanted[1]}). Expected "
            "tensors alone: save model.state_dict() with torch.save, or better as safetensors"
        ) from None
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        first = str(error).strip().splitlines()
        raise ValueError(
            f"{path}: {EXPECTED}, got a file that is damaged or of another kind "
            f"({first[0] if first else type(error).__name__})"
        ) from error


def _state_dict(loaded: object, path: Path) -> dict[str, Tensor]:
    if isinstance(loaded, Mapping):
        if loaded and all(isinstance(value, Tensor) for value in loaded.values()):
            return {str(key): value for key, value in loaded.items()}
        for key in NESTED:
            if isinstance(loaded.get(key), Mapping):
                return _state_dict(loaded[key], path)
        held = f"a dictionary with {some(map(str, loaded))}"
    else:
        held = f"a {type(loaded).__name__}"
    raise ValueError(f"{path}: {EXPECTED}, possibly under {' or '.join(NESTED[:3])}; got {held}")


def _without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            return _without_prefixes({key[len(prefix) :]: state[key] for key in state})
    return state


def fit_head(
    module: nn.Module,
    classes: int,
    *,
    rows: Sequence[int] | None = None,
    seed: int = 0,
    name: str = "the model",
) -> str:
    """Give a classifier `classes` outputs, in place; returns the path of the layer in the module.

    The layer is the last linear layer or 1 x 1 convolution.
    rows: its present outputs for these classes, in order, whose weights are kept; by default the
    layer is initialised anew, as a function of the seed.
    Errors: ValueError if there is no such layer, and for rows that it does not have.
    """
    where = last_layer(module)
    if where is None:
        raise ValueError(
            f"{name}: expected a linear layer or a 1 x 1 convolution at its end, to be replaced by "
            "one for the classes of the data, but there is none"
        )
    old = module.get_submodule(where)
    assert isinstance(old, (nn.Linear, nn.Conv2d))
    outputs = len(old.weight)
    known = rows is None or (len(rows) == classes and all(0 <= row < outputs for row in rows))
    expect(known, name, f"{classes} rows of the {outputs} of its last layer", rows)
    made = _fresh(old, classes, seed)
    if rows is not None:
        made.load_state_dict(
            {key: value[list(rows)].clone() for key, value in old.state_dict().items()}
        )
    parent, _, attribute = where.rpartition(".")
    setattr(module.get_submodule(parent), attribute, made)
    return where


def fit_head_to(module: nn.Module, state: Mapping[str, Tensor], classes: int | None) -> None:
    """Give a module a last layer for this many classes, if the weights have one and it does not."""
    where = last_layer(module)
    rows = state.get(f"{where}.weight")
    if where is None or classes is None or rows is None or len(rows) != classes:
        return
    if len(module.get_parameter(f"{where}.weight")) != classes:
        fit_head(module, classes)


def last_layer(module: nn.Module) -> str | None:
    """The path of the last linear layer or 1 x 1 convolution in the module, or None."""
    found: list[str] = [
        path
        for path, part in module.named_modules()
        if isinstance(part, nn.Linear)
        or (isinstance(part, nn.Conv2d) and part.weight[0, 0].numel() == part.stride[0] == 1)
    ]
    return found[-1] if found and found[-1] else None


def _fresh(old: nn.Linear | nn.Conv2d, classes: int, seed: int) -> nn.Module:
    with fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        made: nn.Module
        if isinstance(old, nn.Linear):
            made = nn.Linear(old.in_features, classes, bias=old.bias is not None)
        else:
            made = nn.Conv2d(old.in_channels, classes, 1, bias=old.bias is not None)
    return made.to(device=old.weight.device, dtype=old.weight.dtype)


def fold_batchnorm(module: nn.Module) -> nn.Module:
    """A copy of a model in evaluation mode that computes the same function with fewer layers.

    Each convolution whose output only one batch normalisation uses takes over its scale and shift;
    the normalisation becomes an identity, so the names of layers and their hooks stay.

    `optimise` also measures what it changes. Returns the given module itself if nothing can be
    folded, or if it cannot be traced or copied.

    >>> module = mg.models.fold_batchnorm(torch.nn.Conv2d(3, 8, 3).eval())
    """
    pairs = list(_pairs(module))
    if not pairs:
        return module
    try:
        folded = copy.deepcopy(module)
    except Exception:  # any error that a part of the module raises when it is copied
        return module
    for conv, norm in pairs:
        layers = folded.get_submodule(conv), folded.get_submodule(norm)
        folded.set_submodule(conv, fuse_conv_bn_eval(*layers))  # type: ignore[type-var, arg-type]
        # Its parts, if it has any, follow it, and keep their names.
        rest = dict(layers[1].named_children())
        folded.set_submodule(norm, nn.Sequential(OrderedDict(rest)) if rest else nn.Identity())
    return folded


class _Tracer(fx.Tracer):
    """Does not look into convolutions and normalisations of other libraries."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        kinds = nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm
        return isinstance(m, kinds) or super().is_leaf_module(m, module_qualified_name)


def _pairs(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of convolutions and normalisations that nothing else in the graph uses."""
    try:
        graph = _Tracer().trace(module)
    except Exception:  # any error that a model's code raises when it is traced
        return
    named = dict(module.named_modules())
    calls = Counter(id(named[str(n.target)]) for n in graph.nodes if n.op == "call_module")
    read = {str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"}
    for node in graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module":
            continue
        conv, norm = named[str(before.target)], named[str(node.target)]
        alone = len(before.users) == 1 and calls[id(conv)] == calls[id(norm)] == 1
        direct = not read & {str(before.target), str(node.target)}
        if alone and direct and _fits(conv, norm) and not _hooked(conv, norm):
            yield str(before.target), str(node.target)


def _fits(conv: nn.Module, norm: nn.Module) -> bool:
    return (
        (_torch_class(conv), _torch_class(norm)) in FOLDED
        and [name for name, _ in norm.named_children()] in ([], FOLLOWING)
        and not (conv.training or norm.training)
        and norm.running_mean is not None
    )


def _torch_class(module: nn.Module) -> type[nn.Module]:
    kind = type(module)
    return OF_TIMM.get(kind.__name__, kind) if kind.__module__.startswith("timm.") else kind


def _hooked(*modules: nn.Module) -> bool:
    return any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in modules)

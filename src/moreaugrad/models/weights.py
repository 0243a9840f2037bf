"""Weights from files that may come from anywhere: no code in them is ever run."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from moreaugrad.files.foreign import parsing, regular_file

NESTED = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
"""Where training scripts put the weights inside their checkpoints."""

PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""

SHOWN = 4


def load_weights(module: nn.Module, path: Path, name: str) -> None:
    """Fills a module with the weights of a file. Errors: ValueError as of `fill_weights`."""
    fill_weights(module, read_weights(path), path, name)


def fill_weights(module: nn.Module, state: Mapping[str, Tensor], path: Path, name: str) -> None:
    """Fills a module with the weights that `path` held; every name, shape and type has to fit.

    Real numbers of any precision fit each other; integers and real numbers do not.
    Errors: ValueError that lists what is missing, unexpected, of another shape or of another type.
    """
    own = module.state_dict()
    # Checkpoints older than this counter lack it, and inference does not use it.
    needed = {key for key in own if not key.endswith("num_batches_tracked")}
    # Copying would cut fractions to integers; integers saved for weights were cut before.
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
        f"{len(found)} {what}: {_shortened(found)}"
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
    """Names and tensors of a safetensors file, or of a checkpoint of torch.save.

    A checkpoint is read with `weights_only=True`; a `state_dict` nested in it is found, and
    the prefixes of wrappers are dropped. Errors: ValueError, also for a file with code in it.
    """
    path = regular_file(path, "a file of weights")
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{":  # eight bytes of length, then a JSON header
        with parsing(str(path), "a whole safetensors file"):
            return _without_prefixes(load_file(path))
    with parsing(str(path), EXPECTED.removeprefix("expected ")):
        return _without_prefixes(_state_dict(_load_checkpoint(path), path))


EXPECTED = "expected weights as safetensors or as saved by torch.save(model.state_dict())"


def _load_checkpoint(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            # Told of files that pickle wrote, which are refused below with a reason.
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
        held = f"a dictionary with {_shortened(map(str, loaded))}"
    else:
        held = f"a {type(loaded).__name__}"
    raise ValueError(f"{path}: {EXPECTED}, possibly under {' or '.join(NESTED[:3])}; got {held}")


def _without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            return _without_prefixes({key[len(prefix) :]: state[key] for key in state})
    return state


def _shortened(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more

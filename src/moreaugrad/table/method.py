"""A method on a model of standardised columns, with what it compares a row with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from moreaugrad.explainers import METHODS, Explainer, build
from moreaugrad.penalties import GroupL2
from moreaugrad.penalties import catalogue as penalties
from moreaugrad.registry import choose
from moreaugrad.table.grouping import Grouping
from moreaugrad.table.rows import Numbers, by_name
from moreaugrad.table.units import ColumnScales

SIGMA = 0.3
"""Noise level of methods with noise, in standard deviations of each column."""
BASELINES: Mapping[str, Callable[[Numbers], Any]] = {
    "mean": lambda rows: rows.mean(0),
    "median": lambda rows: np.median(rows, 0),
}
"""Rows that a baseline may be, of the background."""


class Standardised(nn.Module):
    """A model as a function of z = (x - mean) / scale; it computes in its own precision."""

    mean: Tensor
    scale: Tensor

    def __init__(self, model: Callable[..., Any], units: ColumnScales, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype
        self.training = bool(getattr(model, "training", False))
        working = torch.promote_types(dtype, torch.float32)
        for name, values in (("mean", units.mean), ("scale", units.scale)):
            self.register_buffer(name, torch.from_numpy(values).to(working), persistent=False)

    @classmethod
    def of(cls, model: object, units: ColumnScales) -> Self:
        """On the model's device; a function has that of the CPU, and single precision.

        Errors: TypeError for what cannot be called.
        """
        if not callable(model):
            raise TypeError(
                "model: expected a torch module, or a function of rows [B, D], got "
                f"{type(model).__name__}"
            )
        weights = list(model.parameters()) if isinstance(model, nn.Module) else []
        like = next((one for one in weights if one.is_floating_point()), torch.empty(0))
        found = cls(model, units, like.dtype)
        for name in ("mean", "scale"):  # not .to(), which would move the user's model
            setattr(found, name, getattr(found, name).to(like.device))
        return found

    def forward(self, z: Tensor) -> Any:
        return self.model(torch.addcmul(self.mean, z, self.scale).to(self.dtype))


def made(
    method: str, network: Standardised, settings: Mapping[str, Any], grouping: Grouping,
    background: Numbers | None, baseline: Any, units: ColumnScales,
) -> tuple[Explainer, Tensor | None]:  # fmt: skip
    """The method, and the baseline `[1, D]` of one that is given it with the call.

    Errors: ValueError or TypeError for a method that does not explain columns or needs a
    background, and for a baseline of a method without.
    """
    row = METHODS[method]
    known = row.defaults()
    for name in ("layer", "cam_layer"):
        if name in settings or (name == "cam_layer" and name in known):
            raise ValueError(
                f"{name}: expected a method of the columns themselves, got one of a layer's "
                f"output ({method}); use the explainer itself, mg.build({method!r}, model)"
            )
    if "baselines" in settings:
        raise ValueError(
            "baselines: expected background= or baseline=, in the units of the model's columns"
        )
    own = dict(settings)
    if "sigma_mode" in known and own.get("sigma") != "auto":
        own = {"sigma_mode": "absolute", **own}
        if "sigma" not in row.settings:
            own = {"sigma": SIGMA, **own}
    if "index" in known:
        own = {"index": grouping.label, **own}
    penalty = own.get("penalty")
    if isinstance(penalty, (str, Mapping)):
        penalty = penalties.read(penalty)
    if isinstance(penalty, GroupL2) and penalty.index is None:
        own["penalty"] = replace(penalty, index=grouping.label)
    given = _reference(method, known, grouping, background, baseline)
    reference = None
    if given is not None:
        reference = torch.from_numpy(units.standardised(given)).to(network.mean)
    if "baselines" in known:
        own["baselines"], reference = reference, None
    explainer = build(method, network, **own)
    units.check(method, explainer)
    return explainer, reference


def _reference(
    method: str, known: Mapping[str, Any], grouping: Grouping, background: Numbers | None,
    baseline: Any,
) -> Numbers | None:  # fmt: skip
    """What rows are compared with, in the model's units, `[M, D]`; None for a method without."""
    names = [name for name in ("baseline", "baselines") if name in known]
    if not names:
        if baseline is not None:
            raise ValueError(f"baseline: expected none, because {method} compares with none")
        return None
    draws = known.get("baselines") is not None
    if baseline is not None and not isinstance(baseline, str):
        return by_name("baseline", baseline, grouping.columns)[None]
    if background is None:
        raise ValueError(
            f"background: expected rows of the training data, which {method} compares a row with; "
            "or give one row as baseline= (baseline=0 for columns whose mean is 0). A slope needs "
            "neither: method='simple-gradient'"
        )
    if baseline is None and draws:
        return background
    word = choose("baseline", baseline or "mean", BASELINES)
    return np.asarray(BASELINES[word](background))[None]

"""An explanation as tables: a record for each sample, and its entries."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moreaugrad.explainers.batch import ExplainedBatch, as_tuple
from moreaugrad.files.units import Record, flat


def map_record(batch: ExplainedBatch, row: int) -> Record:
    """How a map came about; what has no meaning for its method is left out."""
    status = batch.status[row]
    error = float(batch.error[row])
    names = ("score", "error", "residual", "eta", "zeros")
    figures = _finite({name: getattr(batch, name) for name in names}, row)
    details = _finite(batch.details, row)
    why = {"message": status.described(error), "remedy": batch.remedy(row)}
    return {
        "status": status.value,
        "ok": status.ok,
        "failed": status.failed,
        **({} if status.ok else why),
        "steps": int(batch.steps[row]),
        "evaluations": int(batch.evaluations[row]),
        **figures,
        **_certain(batch.select(torch.tensor([row], device="cpu"))),
        **({"details": details} if details else {}),
    }


def _certain(batch: ExplainedBatch) -> dict[str, float]:
    """Of one map, the fraction of its non-zero entries whose sign is certain at the level 0.95, and
    the fraction of its zeros that are."""
    if batch.z_scores is None:
        return {}
    found = torch.cat([part.flatten() for part in as_tuple(batch.certain())])
    zero = torch.cat([part.flatten() == 0 for part in batch.parts])
    kinds = {"certain_signs": ~zero, "certain_zeros": zero}
    return {name: float(found[kind].double().mean()) for name, kind in kinds.items() if kind.any()}


def _finite(columns: Mapping[str, Tensor], row: int) -> dict[str, float]:
    values = {name: float(column[row]) for name, column in columns.items()}
    return {name: value for name, value in values.items() if math.isfinite(value)}


def sample_rows(batch: ExplainedBatch) -> Iterator[Record]:
    """A flat row for each sample: its target, its prediction, and its record."""
    for row, (target, found) in enumerate(zip(batch.target, batch.prediction, strict=True)):
        own: Record = {"target": int(target), "label": batch.label(int(target))}
        if batch.probabilities is not None:  # a regression and a function predict no class
            own |= {"prediction": int(found), "predicted_label": batch.label(int(found))}
        if batch.position is not None:
            own["position"] = tuple(batch.position[row].tolist())
        if batch.probabilities is not None:
            own["probability"] = float(batch.probabilities[row, target])
        if batch.seconds is not None:
            own["seconds"] = float(batch.seconds[row])
        yield {"sample": row, "method": batch.method, **own, **flat(map_record(batch, row))}


@dataclass(frozen=True, kw_only=True, eq=False)
class Entries:
    """Entries of one sample's map of one of several inputs, without padding.

    places: `[n, d]`, where they are in the input. inputs, maps, z_scores: `[n]` in float64.
    """

    part: int
    places: np.ndarray[Any, Any]
    inputs: np.ndarray[Any, Any]
    maps: np.ndarray[Any, Any]
    z_scores: np.ndarray[Any, Any] | None

    @classmethod
    def of(cls, batch: ExplainedBatch, row: int, part: int) -> Entries:
        def values(given: Tensor | tuple[Tensor, ...]) -> np.ndarray[Any, Any]:
            return as_tuple(given)[part][row].detach().flatten().cpu().double().numpy()

        shape = tuple(batch.parts[part].shape[1:])
        kept: Any = slice(None)
        if batch.mask is not None:
            kept = as_tuple(batch.mask)[part][row].flatten().cpu().numpy()
        return cls(
            part=part,
            places=np.stack(np.unravel_index(np.arange(math.prod(shape)), shape), axis=1)[kept],
            inputs=values(batch.inputs)[kept],
            maps=values(batch.maps)[kept],
            z_scores=None if batch.z_scores is None else values(batch.z_scores)[kept],
        )

    def largest(self, count: int) -> Entries:
        """Those of the largest magnitude, the largest first; of equal ones the earlier."""
        order = np.argsort(-np.abs(self.maps), kind="stable")[:count]
        scores = None if self.z_scores is None else self.z_scores[order]
        return Entries(
            part=self.part, places=self.places[order], inputs=self.inputs[order],
            maps=self.maps[order], z_scores=scores,
        )  # fmt: skip

    def columns(self) -> dict[str, np.ndarray[Any, Any]]:
        """By the names that a data frame has; an axis is numbered as in a sample's own shape."""
        found = {f"axis_{axis}": places for axis, places in enumerate(self.places.T)}
        found |= {"input": self.inputs, "map": self.maps}
        return found if self.z_scores is None else {**found, "z_score": self.z_scores}

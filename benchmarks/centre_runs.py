"""Maps with and without a centre, and the long runs without one that they are measured against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.cache import Cache, Piece, digest_of
from benchmarks.measures import roots, squared_error, within_factor
from benchmarks.references import PASSES, SEED_A, SEED_B, SOLVER, apart, at_once
from benchmarks.subjects import Subject
from moreaugrad import Noise, Score, SmoothGrad, SparseMoreauGrad, Status
from moreaugrad.explainers.base import Explainer

MEAN, MAP = "SmoothGrad", "SparseMoreauGrad"
BLOCK = 256
"""Noise samples that a reference adds up in the working precision."""
REFERENCE_DRAWS = 16
"""Noise samples of each step of a reference of Sparse MoreauGrad."""
SEEDS = (0, 1)
"""Other seeds than those of the references."""
UNREACHED = 1e-9
"""A tolerance that is not met, so that the evaluations are used up."""
SEVERAL = 0.2
"""Relative distance of two references from which a sample counts as one with several solutions."""


@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """Settings of both methods; sigma is a fraction of each input's range."""

    sigma: float = 0.1
    rho: float = 1.0
    sparsity: float = 0.9

    def explainer(self, method: str, subject: Subject, size: int, **options: Any) -> Explainer:
        """The method with `size` noise samples (SmoothGrad) or evaluations, at most."""
        common = {"sigma": self.sigma, "batch_size": subject.chunk, "layer": subject.layer}
        if method == MEAN:
            return SmoothGrad(subject.fast, samples=size, **(common | options))
        own = {"rho": self.rho, "sparsity": self.sparsity, "max_evaluations": size}
        return SparseMoreauGrad(subject.fast, **(common | own | options))


@dataclass(frozen=True, kw_only=True, eq=False)
class References:
    """Maps of two independent long runs, `[B, n]`, and the relative distance between them."""

    a: Tensor
    b: Tensor
    distance: Tensor
    """`[B]`"""

    @classmethod
    def of(cls, a: Tensor, b: Tensor) -> References:
        return cls(a=a, b=b, distance=(a - b).norm(dim=1) / ((a + b) / 2).norm(dim=1))


@dataclass(frozen=True, kw_only=True, eq=False)
class Runs:
    """What one method gives at one size, `[seeds, B]` each."""

    squares: Tensor
    """Squared relative errors, free of the references' noise."""
    stated: Tensor
    evaluations: Tensor

    def rms(self, rows: Tensor) -> float:
        return float(self.squares[:, rows].mean().clamp_min(0).sqrt())

    def cost(self, rows: Tensor) -> float:
        return float(self.evaluations[:, rows].mean())

    def calibration(self, rows: Tensor) -> list[float]:
        """Stated over true error: its median, the fractions within a factor 2 and below a half."""
        stated, true = self.stated[:, rows].flatten(), roots(self.squares[:, rows]).flatten()
        below = (stated < true / 2).double().mean().item()
        return [(stated / true).median().item(), within_factor(stated, true), below]


Curve = dict[int, Runs]
"""By size."""


def mean_references(
    subject: Subject, setting: Smoothing, cache: Cache, names: Sequence[str], samples: int
) -> References:
    """Mean gradients over `samples` noise samples, written apart from the library's means."""

    def run(seed: int) -> Tensor:
        def compute(some: Sequence[str]) -> list[Piece]:
            inputs = subject.inputs(some)
            score = Score(
                subject.fast, batch_size=subject.chunk, sigma=setting.sigma, noise=Noise(seed)
            )
            bound = score.bind(inputs, subject.predictions(inputs), ids=_ids(subject, some))
            total = torch.zeros_like(bound.origin, dtype=torch.float64)
            for start in range(0, samples, BLOCK):
                draws = range(start, min(start + BLOCK, samples))
                total += len(draws) * bound.value_and_grad(draws=draws)[1].double()
            return apart({"map": (total / samples).float()})

        key = _key(subject, PASSES, {"sigma": setting.sigma, "samples": samples, "seed": seed})
        kind = f"{subject.name}-mean-reference"
        return cache.fetch(kind, key, names, compute, at_once=at_once(subject, BLOCK))["map"]

    return References.of(run(SEED_A), run(SEED_B))


def map_references(
    subject: Subject, setting: Smoothing, cache: Cache, names: Sequence[str], evaluations: int
) -> References:
    """Sparse MoreauGrad's maps without a centre, with a long budget."""

    def run(seed: int) -> Tensor:
        long = {"draws": REFERENCE_DRAWS, "centre": False, "tolerance": UNREACHED, "seed": seed}
        return explained(subject, setting, cache, names, MAP, evaluations, **long)["map"]

    return References.of(run(SEED_A), run(SEED_B))


def explained(
    subject: Subject,
    setting: Smoothing,
    cache: Cache,
    names: Sequence[str],
    method: str,
    size: int,
    **options: Any,
) -> Piece:
    """The library's `map` `[B, n]`, stated `error`, `evaluations` and `converged` of each image."""

    def compute(some: Sequence[str]) -> list[Piece]:
        inputs = subject.inputs(some)
        found = setting.explainer(method, subject, size, **options).explain(
            inputs, target=subject.predictions(inputs), ids=_ids(subject, some)
        )
        return apart(
            {
                "map": found.parts[0].flatten(1).float(),
                "error": found.error.float(),
                "evaluations": found.evaluations.float(),
                "converged": torch.tensor([status is Status.CONVERGED for status in found.status]),
            }
        )

    key = _key(subject, SOLVER, asdict(setting) | {"method": method, "size": size} | options)
    kind = f"{subject.name}-centre"
    return cache.fetch(kind, key, names, compute, at_once=at_once(subject, REFERENCE_DRAWS))


def measured(
    subject: Subject,
    setting: Smoothing,
    cache: Cache,
    names: Sequence[str],
    method: str,
    size: int,
    centre: bool,
    reference: References,
) -> Runs:
    """The runs of all seeds, whose evaluations are used up."""
    options = {"tolerance": UNREACHED} if method == MAP else {}
    found = [
        explained(
            subject, setting, cache, names, method, size,
            centre=centre, seed=seed, **options,
        )
        for seed in SEEDS
    ]  # fmt: skip
    return Runs(
        squares=torch.stack([squared_error(f["map"], reference.a, reference.b) for f in found]),
        stated=torch.stack([f["error"].double() for f in found]),
        evaluations=torch.stack([f["evaluations"].double() for f in found]),
    )


def _ids(subject: Subject, names: Sequence[str]) -> list[int]:
    """Noise of its own for each image, whatever it is computed with."""
    return [subject.names.index(name) for name in names]


def _key(subject: Subject, sources: list[Path], settings: dict[str, Any]) -> dict[str, Any]:
    code = digest_of(*sources, Path(__file__))
    return settings | {"network": subject.name, "weights": subject.weights, "code": code}

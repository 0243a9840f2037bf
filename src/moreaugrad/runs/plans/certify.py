"""What `certify` is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from moreaugrad.runs.plans.common import ComputePlan, DataPlan, ModelPlan
from moreaugrad.runs.plans.maps import read_batch_size
from moreaugrad.runs.plans.option import Plan, option, part

STEPS = (0, 0.001, 0.002, 0.005, 0.01, 0.02, *(step / 20 for step in range(1, 41)))
"""Radii when none are given, in units of sigma; beyond 2 sigma nothing can be certified."""
DRAWS = 8
LEAST = 16 * DRAWS
"""MoreauGrad needs 16 steps of its draws."""


@dataclass(frozen=True, kw_only=True)
class CertifyPlan(Plan):
    """How much of a map's top stays under any perturbation, for each image.

    sigma, radii: fractions of the range of inputs that images can have; with sigma_mode "absolute"
    in the network's input units, after the preprocessing, as which a run keeps them. radii: ()
    chooses them by sigma. rho: of MoreauGrad; None is half of the largest that has a bound,
    1 / (2 lambda) with lambda = 0.484 / sigma^2.
    Clopper-Pearson bounds are for the sparsified variant; the relaxed one then has the automatic
    bound.
    """

    GROUP: ClassVar[str] = "Certificate"

    data: DataPlan = part(DataPlan)
    target: int | str | None = option(
        None, "Class to explain, by index or label.", "--target", "-t",
        shown="the predicted class",
    )  # fmt: skip
    seed: int = option(0, "Random seed of the noise and of the choice of images.")
    sigma: float | None = option(
        None, "Standard deviation of the noise, as a fraction of the range of inputs; with "
        "--sigma-mode absolute: in the network's input units.", shown="required",
    )  # fmt: skip
    sigma_mode: str = option("relative", "Units of --sigma and --radii: relative or absolute.")
    radii: tuple[float, ...] = option(
        (), "L2 lengths of perturbations in the units of --sigma, separated by commas.",
        shown="by sigma",
    )  # fmt: skip
    top: float = option(0.1, "Fraction of a map's entries whose overlap is certified.")
    samples: int = option(1024, "Noise samples of each map.", "--noise-samples")
    statement: str = option(
        "population", "The map at the perturbed input: population (its exact mean) or two-sample "
        "(as many fresh noise samples).",
    )  # fmt: skip
    confidence: float = option(0.95, "Confidence of each image's certificates.")
    bound: str = option("auto", "Bound: auto, hoeffding, clopper-pearson or bernstein.")
    rho: float | None = option(None, "rho of MoreauGrad, below 2.07 sigma^2.", shown="half of that")
    sparsity: float = option(0.9, "Fraction of zeros of Sparse MoreauGrad.")
    tau: float = option(0.1, "Fraction of a gradient's entries that Sparsified SmoothGrad counts.")
    gamma: float = option(0.01, "Fraction of them that the relaxed variant counts fully.")
    batch_size: int | None = option(
        None, "Network passes done at once, or auto; halved when memory runs out.", shown="auto",
        group="Computation", read=lambda _, text: read_batch_size(text),
    )  # fmt: skip
    model: ModelPlan = part(ModelPlan)
    compute: ComputePlan = part(ComputePlan)

    def __post_init__(self) -> None:
        if self.samples < LEAST:
            raise ValueError(f"samples: expected at least {LEAST}, got {self.samples}")
        if not 0 < self.top <= 1:
            raise ValueError(f"top: expected a fraction in (0, 1], got {self.top!r}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence: expected between 0 and 1, got {self.confidence!r}")
        if self.sigma is not None and not 0 < self.sigma < math.inf:
            raise ValueError(f"sigma: expected a finite number > 0, got {self.sigma!r}")
        if not all(0 <= radius < math.inf for radius in self.radii):
            raise ValueError(f"radii: expected finite numbers >= 0, got {list(self.radii)}")

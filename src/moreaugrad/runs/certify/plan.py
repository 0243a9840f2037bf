"""What to certify, and the curves that are made of each picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from moreaugrad.certificates import check, probability_curvature
from moreaugrad.certificates.bounds import AUTO, BOUNDS, CLOPPER_PEARSON
from moreaugrad.certificates.certify import POPULATION, STATEMENTS
from moreaugrad.explainers.moreau import Moreau, MoreauGrad, SparseMoreauGrad
from moreaugrad.explainers.sparsified import RELAXED, SPARSIFIED, SparsifiedSmoothGrad
from moreaugrad.registry import choose
from moreaugrad.runs.cases import Case, cases_digest, picture_cases, picture_files, writable
from moreaugrad.runs.job import ComputePlan, ModelPlan
from moreaugrad.runs.network import Network, fixed_threads, weights_digest
from moreaugrad.runs.prepare import first_input
from moreaugrad.score.noise import ABSOLUTE

AUTOMATIC = (0, 0.001, 0.002, 0.005, 0.01, 0.02, *(step / 20 for step in range(1, 41)))
"""Radii when none are given, in units of sigma; beyond 2 sigma nothing can be certified."""
DRAWS = 8
LEAST = 16 * DRAWS
"""MoreauGrad needs 16 steps of its draws."""
TOLERANCE = 0.01
"""Of MoreauGrad's maps: so small that they use the draws that the others have."""


@dataclass(frozen=True, kw_only=True)
class CertifyPlan:
    """sigma and radii are in the network's input units, after the preprocessing.

    radii: () chooses them by sigma. top: the share of entries whose overlap is certified. samples:
    draws for each map. statement, confidence, bound: see `certificates`; Clopper-Pearson is for the
    sparsified variant, the relaxed one then has the automatic bound.
    files, network, outputs: digests, see `Job`; filled in.
    rho: of MoreauGrad; None is half of the largest that has a bound, 1 / (2 lambda) with
    lambda = 0.484 / sigma^2. sparsity: of Sparse MoreauGrad. tau, gamma: of Sparsified SmoothGrad.
    """

    images: tuple[str, ...]
    sigma: float
    radii: tuple[float, ...] = ()
    top: float = 0.1
    samples: int = 1024
    statement: str = POPULATION
    confidence: float = 0.95
    bound: str = AUTO
    rho: float | None = None
    sparsity: float = 0.9
    tau: float = 0.1
    gamma: float = 0.01
    seed: int = 0
    batch_size: int | None = None
    target: int | str | None = None
    files: str = ""
    network: str = ""
    outputs: str = ""
    model: ModelPlan = field(default_factory=ModelPlan)
    compute: ComputePlan = field(default_factory=ComputePlan)

    def __post_init__(self) -> None:
        if self.samples < LEAST:
            raise ValueError(f"samples: expected at least {LEAST}, got {self.samples}")
        if not 0 < self.top <= 1:
            raise ValueError(f"top: expected a share in (0, 1], got {self.top!r}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence: expected between 0 and 1, got {self.confidence!r}")
        choose("statement", self.statement, STATEMENTS)
        choose("bound", self.bound, (AUTO, *BOUNDS))
        curvature = probability_curvature(self.sigma)
        if self.rho is not None and not 0 < self.rho * curvature < 1:
            raise ValueError(
                f"rho: expected more than 0 and less than 2.07 sigma^2 = {1 / curvature:.4g}, got "
                f"{self.rho:.4g}: beyond it nothing bounds how a map changes"
            )
        if not all(0 <= radius < float("inf") for radius in self.radii):
            raise ValueError(f"radii: expected finite numbers >= 0, got {list(self.radii)}")
        wanted = sorted(set(self.radii)) or [share * self.sigma for share in AUTOMATIC]
        object.__setattr__(self, "radii", tuple(wanted))

    @property
    def resolved_rho(self) -> float:
        return 0.5 / probability_curvature(self.sigma) if self.rho is None else self.rho

    def bound_for(self, explainer: SparsifiedSmoothGrad) -> str:
        exact_only = self.bound == CLOPPER_PEARSON and explainer.variant != SPARSIFIED
        return AUTO if exact_only else self.bound


Certified = SparsifiedSmoothGrad | Moreau


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedCertify:
    """`plan` has every choice made. curves: the explainers, by the curves' names."""

    plan: CertifyPlan
    network: Network
    cases: Sequence[Case]
    curves: Mapping[str, Certified]
    first: Tensor

    @property
    def target(self) -> int | None:
        return self.network.target(self.plan.target)

    def pixels(self, length: float) -> tuple[float, float]:
        """A length in input units as one of pictures in [0, 1], at least and at most: it depends
        on the channels, where they are divided by different numbers."""
        std = self.network.model.preprocess.std
        return length * min(std), length * max(std)


def prepare_certify(plan: CertifyPlan) -> PreparedCertify:
    """Errors: ValueError for what cannot work; nothing is written."""
    files = picture_files(plan.images)
    network = Network.load(plan.model, plan.compute)
    cases = picture_cases(files)
    with fixed_threads(network.compute.threads):
        first = first_input(cases, network)
        curves = _curves(plan, network.model.module)
        for explainer in curves.values():
            check(explainer)
            with network.model.sized():
                explainer.bind(first, network.target(plan.target))
    resolved = replace(
        plan,
        images=tuple(str(file) for file in files if writable(file)),
        files=cases_digest(cases),
        network=weights_digest(network.model.module),
        outputs=network.outputs_digest(),
        rho=plan.resolved_rho,
        model=plan.model.resolved(network.model.preprocess),
        compute=network.compute,
    )
    return PreparedCertify(plan=resolved, network=network, cases=cases, curves=curves, first=first)


def _curves(plan: CertifyPlan, module: nn.Module) -> dict[str, Certified]:
    noise: dict[str, Any] = {
        "sigma": plan.sigma, "sigma_mode": ABSOLUTE, "seed": plan.seed,
        "batch_size": plan.batch_size,
    }  # fmt: skip
    counted: dict[str, Any] = {"tau": plan.tau, "gamma": plan.gamma, "samples": plan.samples}
    envelope: dict[str, Any] = {
        "score": "probability", "rho": plan.resolved_rho, "draws": DRAWS,
        "max_evaluations": plan.samples, "tolerance": TOLERANCE,
    }  # fmt: skip
    return {
        SPARSIFIED: SparsifiedSmoothGrad(module, variant=SPARSIFIED, **counted, **noise),
        RELAXED: SparsifiedSmoothGrad(module, variant=RELAXED, **counted, **noise),
        SparseMoreauGrad.method: SparseMoreauGrad(
            module, sparsity=plan.sparsity, **envelope, **noise
        ),
        MoreauGrad.method: MoreauGrad(module, **envelope, **noise),
    }

"""A job made ready: files found, networks loaded, settings spelt out, the first input tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from moreaugrad.runs.cases import (
    Case,
    cases_digest,
    cell_cases,
    picture_cases,
    picture_files,
    writable,
)
from moreaugrad.runs.job import Job, ModelPlan, SweepPlan
from moreaugrad.runs.network import Network, fixed_threads, weights_digest
from moreaugrad.runs.variants import Variant, swept, variants, with_values

BESIDE = "beside."
"""Before the keys of the second network's maps."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A network, the class that it is asked about (None: its prediction), and the maps to make."""

    name: str
    network: Network
    target: int | None
    variants: Sequence[Variant]
    first: Tensor
    """The first readable input as a batch of one."""

    @property
    def task(self) -> str:
        return self.variants[0].explainer.task

    @property
    def settings(self) -> dict[str, Mapping[str, Any]]:
        """Of its methods, spelt out."""
        return {
            v.method: ({} if v.name in ("", v.method) else {"method": v.name})
            | v.explainer.settings()
            for v in self.variants
            if v.value is None
        }

    def resolved(self, plan: ModelPlan) -> ModelPlan:
        return plan.resolved(self.network.model.preprocess)


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """`job` is resolved: run again, it gives the same result whatever the defaults have become.

    subjects: the job's network, and perhaps the one beside it.
    """

    job: Job
    cases: Sequence[Case]
    subjects: Sequence[Subject]

    @property
    def network(self) -> Network:
        return self.subjects[0].network

    @property
    def variants(self) -> list[Variant]:
        return [variant for subject in self.subjects for variant in subject.variants]

    def wanted(self, case: Case) -> list[Variant]:
        """The maps to make of this input."""
        limit = None if self.job.sweep is None else self.job.sweep.images
        taken = limit is None or case in self.cases[:limit]
        return [variant for variant in self.variants if taken or variant.value is None]


def prepare(job: Job) -> Prepared:
    """Errors: ValueError or TypeError for whatever in the job cannot work; nothing is written."""
    files = picture_files(job.images) if job.cells is None else []
    network = Network.load(job.model, job.compute)
    target = network.target(job.target)
    if job.cells is None:
        cases = picture_cases(files)
    else:
        cases = cell_cases(job.cells, network.model.preprocess)
    with fixed_threads(network.compute.threads):
        first = first_input(cases, network)
        made = variants(job.methods, network.model)
        sweep = job.sweep and with_values(job.sweep, network.model, first, target)
        if sweep is not None:
            made += swept(sweep, network.model.module)
        with network.model.sized():
            made[0].explainer.bind(first, target)
        own = Subject(
            name=_name(job.model), network=network, target=target, variants=made, first=first
        )
        second = None if job.beside is None else _beside(job, own, cases)
    resolved = replace(
        job,
        images=tuple(str(file) for file in files if writable(file)),
        files=cases_digest(cases),
        network=weights_digest(network.model.module),
        outputs=network.outputs_digest(),
        target=target,
        model=own.resolved(job.model),
        compute=network.compute,
        methods=own.settings,
        sweep=_resolved_sweep(sweep, made),
    )
    if second is None or job.beside is None:
        return Prepared(job=resolved, cases=cases, subjects=(own,))
    beside = replace(
        job.beside,
        target=second.target,
        model=second.resolved(job.beside.model),
        methods=second.settings,
        network=weights_digest(second.network.model.module),
        outputs=second.network.outputs_digest(),
    )
    return Prepared(job=replace(resolved, beside=beside), cases=cases, subjects=(own, second))


def first_input(cases: Sequence[Case], network: Network) -> Tensor:
    """The first usable input as a batch of one. Errors: ValueError where there is none."""
    problems = []
    for case in cases:
        try:
            return network.tried(case.load(network.model.preprocess).x)
        except (ValueError, OSError, MemoryError) as error:
            problems.append(str(error))
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    raise ValueError(f"{problems[0]}{more}")


def _beside(job: Job, own: Subject, cases: Sequence[Case]) -> Subject:
    """The second network, on the same device. Errors: ValueError, which tells whose it is."""
    plan = job.beside
    assert plan is not None
    try:
        second = Network.load(plan.model, own.network.compute)
        target = second.target(job.target if plan.target is None else plan.target)
        shapes = [one.model.preprocess.input_shape for one in (own.network, second)]
        if job.cells is not None and shapes[0] != shapes[1]:
            raise ValueError(
                "expected a network of pictures of the same size, because the true maps have it; "
                f"got {shapes[0]} and {shapes[1]}"
            )
        first = first_input(cases, second)
        made = variants(plan.methods, second.model, BESIDE)
        with second.model.sized():
            made[0].explainer.bind(first, target)
    except (ValueError, TypeError) as error:
        raise ValueError(f"beside, {plan.model.name}: {error}") from error
    name = _name(plan.model)
    return Subject(
        name=f"{name}, beside" if name == own.name else name,
        network=second, target=target, variants=made, first=first,
    )  # fmt: skip


def _name(plan: ModelPlan) -> str:
    return plan.name + (f" ({plan.weights})" if plan.weights else "")


def _resolved_sweep(sweep: SweepPlan | None, made: Sequence[Variant]) -> SweepPlan | None:
    if sweep is None:
        return None
    settings = made[-1].explainer.settings()
    del settings[sweep.over]
    return replace(sweep, settings=settings)

"""A job made ready: files found, network loaded, every setting spelt out, the first input tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from moreaugrad.outputs import TargetLike
from moreaugrad.runs.cases import Case, cell_cases, picture_cases, picture_files
from moreaugrad.runs.job import Job, SweepPlan
from moreaugrad.runs.network import Network, fixed_threads
from moreaugrad.runs.variants import Variant, in_pixel_units, variants, with_values


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """`job` is resolved: run again, it gives the same result whatever the defaults have become."""

    job: Job
    network: Network
    cases: Sequence[Case]
    variants: Sequence[Variant]
    first: Tensor
    """The first readable input as a batch of one."""

    @property
    def target(self) -> TargetLike:
        return self.network.target(self.job.target)

    @property
    def task(self) -> str:
        return self.variants[0].explainer.task

    def wanted(self, case: Case) -> list[Variant]:
        """The maps to make of this input."""
        limit = None if self.job.sweep is None else self.job.sweep.images
        swept = limit is None or case in self.cases[:limit]
        return [variant for variant in self.variants if swept or variant.value is None]


def prepare(job: Job) -> Prepared:
    """Errors: ValueError or TypeError for whatever in the job cannot work; nothing is written."""
    files = picture_files(job.images) if job.cells is None else []
    network = Network.load(job.model, job.compute)
    job = in_pixel_units(job, network.model.preprocess)
    target = network.target(job.target)
    if job.cells is None:
        cases = picture_cases(files)
    else:
        cases = cell_cases(job.cells, network.model.preprocess)
    with fixed_threads(network.compute.threads):
        first = first_input(cases, network)
        if job.sweep is not None:
            sweep = with_values(job.sweep, network.model.module, first, target)
            job = replace(job, sweep=sweep)
        made = variants(job, network.model.module)
        made[0].explainer.bind(first, target)
    resolved = replace(
        job,
        images=tuple(map(str, files)),
        target=target,
        model=replace(job.model, preprocess=network.model.preprocess),
        compute=network.compute,
        methods={v.method: v.explainer.settings() for v in made if v.value is None},
        sweep=_resolved_sweep(job, made),
    )
    return Prepared(job=resolved, network=network, cases=cases, variants=made, first=first)


def first_input(cases: Sequence[Case], network: Network) -> Tensor:
    """The first readable input as a batch of one. Errors: ValueError where there is none."""
    problems = []
    for case in cases:
        try:
            return network.batch([case.load(network.model.preprocess).x])
        except ValueError as error:
            problems.append(str(error))
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    raise ValueError(f"{problems[0]}{more}")


def _resolved_sweep(job: Job, made: Sequence[Variant]) -> SweepPlan | None:
    if job.sweep is None:
        return None
    settings = made[-1].explainer.settings()
    del settings[job.sweep.over]
    return replace(job.sweep, settings=settings)

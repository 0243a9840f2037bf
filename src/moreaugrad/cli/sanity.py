"""Options to a run of weight randomisation, and the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from moreaugrad.cli.options import Data, Evaluate, MethodOptions


@dataclass(frozen=True, kw_only=True)
class SanityOptions(MethodOptions):
    """Of `sanity`."""

    data: Annotated[
        Path | None, Data(help="Folder of pictures, or a zip of one, as `evaluate` reads them.")
    ] = None
    layout: Annotated[str, Data(help="Of the folder \\[default: auto].")] = "auto"
    split: Annotated[
        str | None,
        Data(help="val, test or train \\[default: the first of these that there is]."),
    ] = None
    samples: Annotated[int, Data(help="How many pictures, chosen by --seed \\[default: 16].")] = 16
    methods: Annotated[
        str, Evaluate(help="a,b; or all; or all,-a for all but a \\[default: simple-gradient].")
    ] = "simple-gradient"
    metrics: Annotated[
        str, Evaluate(help="Of pairs of maps \\[default: ssim,spearman,spearman-signed].")
    ] = "ssim,spearman,spearman-signed"
    modes: Annotated[str, Evaluate(help="cascading, independent \\[default: both].")] = (
        "cascading,independent"
    )
    seeds: Annotated[str, Evaluate(help="Of the redrawn weights \\[default: 0,1,2].")] = "0,1,2"
    blocks: Annotated[
        str | None,
        Evaluate(help="Modules, the nearest to the output first \\[default: all with weights]."),
    ] = None
    calibrate: Annotated[
        bool,
        Evaluate("--calibrate", help="Batch normalisation takes the pictures' statistics after "
                 "redrawing."),
    ] = False  # fmt: skip


def perform_sanity(options: SanityOptions) -> int:
    """Runs it; the exit code."""
    from moreaugrad.cli.codes import DONE
    from moreaugrad.cli.commands import tell_estimate
    from moreaugrad.cli.jobs import apply, compute_plan, method_names, method_part, model_plan
    from moreaugrad.cli.retrain import perform_study, words
    from moreaugrad.cli.screen import watching
    from moreaugrad.cli.values import target_of, whole_numbers
    from moreaugrad.runs.job import ComputePlan, ModelPlan
    from moreaugrad.runs.sanity import SanityPlan, SanityStudy

    if options.data is None or (options.out is None and not options.dry_run):
        raise ValueError("--data and --out: expected a folder of pictures and one for the results")
    methods: dict[str, dict[str, object]] = {name: {} for name in method_names(options.methods)}
    apply(options, [method_part(name, name, settings) for name, settings in methods.items()])
    plan = SanityPlan(
        data=str(options.data), layout=options.layout, split=options.split,
        samples=options.samples, seed=options.seed or 0, target=target_of(options),
        methods=methods, modes=words(options.modes),
        seeds=tuple(whole_numbers("seeds", options.seeds)),
        blocks=words(options.blocks or ""), metrics=words(options.metrics),
        calibrate=options.calibrate,
        model=model_plan(options, ModelPlan()), compute=compute_plan(options, ComputePlan()),
    )  # fmt: skip
    if options.dry_run:
        with watching(quiet=options.quiet) as watch:
            found = SanityStudy(plan, watch).estimate()
        tell_estimate(found, as_json=options.json)
        return DONE
    assert options.out is not None
    return perform_study(
        lambda watch, team: SanityStudy(plan, watch, team), options.out,
        overwrite=options.overwrite, json=options.json, quiet=options.quiet,
    )  # fmt: skip

"""Options to activation maximisation, and its run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from moreaugrad.cli.options import Common, Method


@dataclass(frozen=True, kw_only=True)
class VisualiseOptions(Common):
    """Of `visualise`."""

    classes: Annotated[
        str | None, Method(help="Indices or labels, separated by commas \\[default: all].")
    ] = None
    count: Annotated[int, Method(help="Pictures of each class \\[default: 1].")] = 1
    score: Annotated[
        str, Method(help="What is raised: logit, probability, margin, ... \\[default: logit].")
    ] = "logit"
    set: Annotated[
        list[str] | None,
        Method("--set", metavar="NAME=VALUE",
               help="steps, step, normalise, decay, tv, jitter, blur, every, clip, sigma; can be "
               "repeated."),
    ] = None  # fmt: skip


def perform_visualise(options: VisualiseOptions) -> int:
    """Runs it; the exit code."""
    from moreaugrad.cli.codes import DONE
    from moreaugrad.cli.commands import tell_estimate
    from moreaugrad.cli.jobs import compute_plan, model_plan
    from moreaugrad.cli.retrain import perform_study, words
    from moreaugrad.cli.values import batch_size, typed
    from moreaugrad.explainers.feature_visualisation import Ascent
    from moreaugrad.runs.config import from_table
    from moreaugrad.runs.job import ComputePlan, ModelPlan
    from moreaugrad.runs.visualise import VisualisePlan, VisualiseStudy

    if options.target is not None:
        raise ValueError("--target: visualise has none, name --classes")
    if batch_size(options) is not None:
        raise ValueError("--batch-size: visualise has none, it works on --count images at once")
    if options.out is None and not options.dry_run:
        raise ValueError("--out: expected a folder for the results, got none")
    given = {} if options.seed is None else {"seed": options.seed}
    for text in options.set or ():
        name, separator, value = text.partition("=")
        if not separator:
            raise ValueError(f"--set: expected NAME=VALUE, got {text!r}")
        given[name.strip()] = typed(value.strip())
    plan = VisualisePlan(
        classes=words(options.classes or ""), count=options.count, score=options.score,
        ascent=from_table(Ascent, given, "set."),
        model=model_plan(options, ModelPlan()), compute=compute_plan(options, ComputePlan()),
    )  # fmt: skip
    if options.dry_run:
        tell_estimate(VisualiseStudy(plan).estimate(), as_json=options.json)
        return DONE
    assert options.out is not None
    return perform_study(
        lambda _, team: VisualiseStudy(plan, team), options.out,
        overwrite=options.overwrite, json=options.json, quiet=options.quiet,
    )  # fmt: skip

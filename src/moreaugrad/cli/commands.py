"""What the commands do with a job."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from moreaugrad.cli import screen
from moreaugrad.cli.codes import DONE, INTERRUPTED, PARTLY
from moreaugrad.cli.interruption import interruptible
from moreaugrad.files.names import readable

if TYPE_CHECKING:
    from pathlib import Path

    from moreaugrad.cli.options import CertifyOptions, EvaluateOptions, Options
    from moreaugrad.cli.train_options import TrainOptions
    from moreaugrad.runs import Job
    from moreaugrad.runs.certify import CertifyPlan
    from moreaugrad.runs.evaluate import EvaluatePlan
    from moreaugrad.runs.train import TrainPlan


def perform(job: Job, options: Options) -> int:
    """Runs or estimates a job; the exit code."""
    from moreaugrad.runs import estimate, prepare, run

    if options.out is None and not options.dry_run:
        raise ValueError("--out: expected a folder for the results, got none")
    prepared = prepare(job)
    if options.dry_run:
        tell_estimate(estimate(prepared), as_json=options.json)
        return DONE
    assert options.out is not None
    with screen.watching(quiet=options.quiet) as watch:
        outcome = run(
            prepared,
            options.out,
            overwrite=options.overwrite,
            watch=watch,
            command=readable(shlex.join(["moreaugrad", *sys.argv[1:]])),
        )
    if options.json:
        screen.summary_json(outcome)
    elif not options.quiet and outcome.records:
        screen.summary(outcome)
    if outcome.interrupted:
        count = len(outcome.records)
        screen.note(f"interrupted: {count} of {len(prepared.cases)} inputs are finished")
        return INTERRUPTED
    return PARTLY if outcome.failures else DONE


def perform_certify(plan: CertifyPlan, options: CertifyOptions) -> int:
    """Runs or estimates certificates; the exit code."""
    from moreaugrad.cli import certified
    from moreaugrad.runs.certify import estimate_certify, prepare_certify, run_certify

    if options.out is None and not options.dry_run:
        raise ValueError("--out: expected a folder for the results, got none")
    prepared = prepare_certify(plan)
    if options.dry_run:
        tell_estimate(estimate_certify(prepared), as_json=options.json)
        return DONE
    assert options.out is not None
    with screen.watching(quiet=options.quiet) as watch:
        outcome = run_certify(prepared, options.out, overwrite=options.overwrite, watch=watch)
    if options.json:
        certified.summary_json(outcome)
    elif not options.quiet:
        certified.summary(outcome)
    if outcome.interrupted:
        count = len(outcome.records)
        screen.note(f"interrupted: {count} of {len(prepared.cases)} inputs are finished")
        return INTERRUPTED
    return PARTLY if outcome.failures else DONE


def perform_evaluate(plan: EvaluatePlan, options: EvaluateOptions) -> int:
    """Runs or estimates an evaluation; the exit code."""
    from moreaugrad.cli import evaluated
    from moreaugrad.runs.evaluate import estimate_evaluate, prepare_evaluate, run_evaluate, team

    if options.out is None and not options.dry_run:
        raise ValueError("--out: expected a folder for the results, got none")
    with team() as members:
        prepared = prepare_evaluate(plan, members)
        leads = members.rank == 0
        if options.dry_run:
            if leads:
                tell_estimate(estimate_evaluate(prepared), as_json=options.json)
            return DONE
        assert options.out is not None
        with screen.watching(quiet=options.quiet or not leads) as watch:
            outcome = run_evaluate(prepared, options.out, overwrite=options.overwrite, watch=watch)
    if leads and options.json:
        evaluated.summary_json(outcome)
    elif leads and not options.quiet:
        evaluated.summary(outcome)
    if outcome.interrupted:
        screen.note("interrupted: the same command goes on from here")
        return INTERRUPTED
    # torchrun would take any other code for a process that has failed.
    return PARTLY if outcome.failures and members.size == 1 else DONE


def perform_train(plan: TrainPlan, options: TrainOptions) -> int:
    """Trains, or estimates a training; the exit code."""
    from moreaugrad.cli import training
    from moreaugrad.runs.team import team
    from moreaugrad.runs.train import estimate_train, prepare_train, run_train

    if options.out is None and not options.dry_run:
        raise ValueError("--out: expected a folder for the results, got none")
    with team() as members:
        leads = members.rank == 0
        with screen.watching(quiet=options.quiet or not leads) as watch:
            prepared = prepare_train(plan, members, training.means(options), watch)
            if options.dry_run:
                found = estimate_train(prepared)
            else:
                assert options.out is not None
                outcome = run_train(prepared, options.out, overwrite=options.overwrite, watch=watch)
    if options.dry_run:
        if leads:
            training.tell_estimate(found, prepared.notes, as_json=options.json)
        return DONE
    if leads and options.json:
        training.summary_json(outcome)
    elif leads and not options.quiet:
        training.summary(outcome)
    if outcome.interrupted:
        screen.note("interrupted: the same command goes on from the last checkpoint")
        return INTERRUPTED
    return DONE


def perform_report(runs: Sequence[Path], out: Path, **settings: Any) -> int:
    """Draws runs; the exit code, 1 where one is not complete."""
    from moreaugrad.runs.evaluate.report import report

    with interruptible():
        made = report(runs, out, **settings)
    for note in made.notes:
        screen.note(note)
    screen.results().print(f"Page: {escape(str(made.page))}", soft_wrap=True)
    return DONE if made.complete else PARTLY


def tell_estimate(found: Any, *, as_json: bool) -> None:
    """What an `Estimate` says, in a table or as JSON."""
    if as_json:
        totals = {"evaluations": found.evaluations, "seconds": found.seconds}
        screen.print_json({**asdict(found), **totals})
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("map")
    for name in ("maps", "evaluations each, at most", "time, at most"):
        table.add_column(name, justify="right")
    for cost in found.costs:
        seconds = screen.duration(cost.seconds)
        table.add_row(cost.key, str(cost.maps), str(cost.evaluations), seconds)
    console = screen.results()
    console.print(table)
    console.print(
        f"{found.inputs} inputs, {found.evaluations} gradient evaluations at most, "
        f"{1000 * found.seconds_per_evaluation:.2g} ms each: "
        f"{screen.duration(found.seconds)} at most"
    )

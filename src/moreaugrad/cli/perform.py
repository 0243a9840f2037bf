"""What every command does: assemble the plan, run or estimate it, and report."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from moreaugrad.cli import screen, summary
from moreaugrad.cli.commands import COMMANDS, Command, CommonOptions, loaded
from moreaugrad.cli.interruption import DONE, INTERRUPTED, PARTLY
from moreaugrad.files.foreign import readable
from moreaugrad.reports.folder import PAGE
from moreaugrad.runs.plans.bench import BenchPlan
from moreaugrad.runs.plans.common import ModelPlan
from moreaugrad.runs.plans.option import Plan, option, options, with_options


def assemble(command: Command, given: dict[str, Any], output: CommonOptions) -> Plan:
    """What was given goes before the configuration, and that before defaults."""
    plan_class = command.plan_class()
    plan = plan_class()
    if output.config is not None:
        from moreaugrad.runs.plans.toml import read_plan

        plan = read_plan(plan_class, output.config, trust=output.trust)
    named = given.get("--methods") or getattr(plan, "methods", True) or getattr(plan, "sweep", None)
    if not named:
        inputs: dict[str, Any] = {
            name: given[name] for name in ("IMAGE", "--text") if name in given
        }
        kind = getattr(with_options(plan, inputs, command.hidden), "kind", "")
        plan = with_options(plan, command.usual_of.get(kind, command.usual), command.hidden)
        for setting, value in getattr(plan, "settings", {}).items():  # those of the configuration
            plan = plan.with_common(setting, value)  # type: ignore[attr-defined]
    plan = with_options(plan, given, command.hidden)
    if output.trust:
        plan = plan.each(_trusted)
    return loaded(command.adapt)(plan) if command.adapt else plan


def _trusted(part: Any) -> Any:
    return replace(part, trust=True) if isinstance(part, ModelPlan) else part


def perform(name: str, command: Command, values: dict[str, Any]) -> int:
    """Runs or estimates a command; the exit code. values: its options by their names."""
    common = {o.name for _, o in options(CommonOptions, command.lacking)}
    output = with_options(CommonOptions(), {k: v for k, v in values.items() if k in common})
    asked = {k: v for k, v in values.items() if k not in common}
    if output.out is None and command.previews:
        output = replace(output, out=_folder(name, {**asked, "--config": output.config}))
    if "out" not in command.without and not output.dry_run:
        output.folder  # noqa: B018  refused before anything is loaded
    plan = assemble(command, asked, output)
    if command.call:
        code: int = loaded(command.call)(plan, output)
        return code
    return run_plan(name, command, plan, output)


def _folder(name: str, asked: Mapping[str, Any]) -> str:
    """The folder of a command line that names none: the same one for the same options."""
    text = json.dumps(asked, sort_keys=True)
    return f"moreaugrad-{name}-{hashlib.sha256(text.encode()).hexdigest()[:4]}"


def run_plan(name: str, command: Command, plan: Plan, output: CommonOptions) -> int:
    """The exit code."""
    from moreaugrad.runs.engine import execute
    from moreaugrad.runs.processes import processes

    with (
        processes(output.shard) as team,
        screen.watching(
            quiet=output.quiet or not team.leads, opens=output.open and team.leads,
            yes=output.yes,
        ) as watch,
    ):  # fmt: skip
        more = {"command": name, "words": _words()} if command.named else {}
        run = loaded(command.run)(plan, team, watch, **more)
        if output.dry_run:
            found = run.estimate()
        else:
            outcome = execute(run, output.folder, overwrite=output.overwrite)
            if (page := output.folder / PAGE).is_file():
                watch.page(page)
    leads = team.leads
    if output.dry_run:
        if leads:
            summary.print_estimate(found, run.notes, as_json=output.json)
        return DONE
    if leads and output.json:
        summary.print_json(outcome)
    elif leads and not output.quiet:
        summary.print_summary(outcome)
    if outcome.interrupted:
        words = "the same command resumes from the last checkpoint"
        if outcome.units:
            done = f"{outcome.finished} of {outcome.units} units are finished"
            words = f"{done}; the same command resumes from here"
        if leads:
            screen.note(f"interrupted: {words}")
        return INTERRUPTED
    if team.shard is not None and outcome.finished < outcome.units and leads:
        screen.note(
            f"{outcome.finished} of {outcome.units} units are finished; the other shards make the "
            "rest, or the same command without --shard does"
        )
    # torchrun would take any other code for a process that has failed.
    return PARTLY if outcome.failures and team.size == 1 else DONE


def _words() -> str:
    return readable(shlex.join(["moreaugrad", *sys.argv[1:]]))


@dataclass(frozen=True, kw_only=True)
class _Demo(Plan):
    """What `demo` has of its own."""

    out: str = option(
        "moreaugrad-demo", "Folder for the results.", "--out", "-o", group="Output",
        metavar="FOLDER",
    )  # fmt: skip


def demo(plan: _Demo, output: CommonOptions) -> int:
    """The example that needs nothing from outside."""
    output = replace(output, out=plan.out, overwrite=True)
    return run_plan("demo", COMMANDS["compare"], demo_plan(), output)


def demo_plan() -> Plan:
    """Synthetic cells through the built-in networks."""
    from importlib.resources import as_file, files

    from moreaugrad.runs.plans.toml import read_plan

    with as_file(files("moreaugrad.cli").joinpath("demo.toml")) as path:
        return read_plan(COMMANDS["compare"].plan_class(), path)


@dataclass(frozen=True, kw_only=True)
class _Cells(Plan):
    """What `data cells` has of its own."""

    GROUP: ClassVar[str] = "Data"

    images: int = option(4096, "Images to train on.", within="[0, inf)")
    validation_images: int = option(0, "Images of a part `val`.", within="[0, inf)")
    test_images: int = option(0, "Images of a part `test`.", within="[0, inf)")
    size: int = option(64, "Side of the images, in pixels.")
    seed: int = option(0, "Random seed of the cells.", within="[0, inf)")
    workers: int = option(0, "Processes that draw; 0 is this one.", group="Computation")


def write_cells(plan: _Cells, output: CommonOptions) -> int:
    """Writes cells as images. Errors: ValueError where there would be none."""
    from moreaugrad.data.writing import write_cells as write

    counts = {"train": plan.images, "val": plan.validation_images, "test": plan.test_images}
    if not any(counts.values()):
        raise ValueError("images: expected at least one image")
    with screen.watching(quiet=output.quiet) as watch:
        written = write(
            output.folder, counts=counts, size=plan.size, seed=plan.seed, workers=plan.workers,
            progress=lambda done, total: watch.pace(done, total, "drawing cells"),
        )  # fmt: skip
    if output.json:
        screen.print_json({"out": output.out, "counts": counts, "written": written})
    elif not output.quiet:
        text = f"{written} images written to {output.out}"
        screen.results().print(text, markup=False, soft_wrap=True)
    return DONE


def bench(plan: BenchPlan, output: CommonOptions) -> int:
    """Times the methods. Errors: ValueError for no folder, or one that has a benchmark already."""
    from moreaugrad.files.atomic import write_atomically
    from moreaugrad.runs.bench import Bench
    from moreaugrad.runs.directory import json_text

    if output.folder.exists() and not output.folder.is_dir():
        raise ValueError(f"{output.folder}: expected a folder to write to, but it is a file")
    files = {end: output.folder / f"bench.{end}" for end in ("json", "md")}
    if not output.overwrite and any(file.exists() for file in files.values()):
        raise ValueError(
            f"{output.folder}: holds a benchmark: name another folder, or give --overwrite"
        )
    with screen.watching(quiet=output.quiet) as watch:
        run = Bench(plan)
        output.folder.mkdir(parents=True, exist_ok=True)
        found = run.run(watch.pace)
    record, text = run.record(found), run.findings(found).markdown()
    write_atomically(files["json"], json_text(record).encode())
    write_atomically(files["md"], text.encode())
    if output.json:
        screen.print_json(record)
    elif not output.quiet:
        screen.results().print(text, markup=False, soft_wrap=True)
    return DONE

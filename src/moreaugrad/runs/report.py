"""A report of runs: the page of any command's folders, with their tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from moreaugrad.reports import page_files
from moreaugrad.reports.folder import PAGE, read_config
from moreaugrad.reports.maps import evaluated_page, explained_page
from moreaugrad.reports.reading import MapsFolder
from moreaugrad.reports.recommended import recommended_files
from moreaugrad.reports.statistics import Intervals
from moreaugrad.reports.studies import study_page
from moreaugrad.runs.directory import RunDirectory
from moreaugrad.runs.engine import Failure, Files, Run
from moreaugrad.runs.names import unique_names
from moreaugrad.runs.plans.common import ComputePlan
from moreaugrad.runs.plans.explain import ReportPlan

UNIT = "report"
MAPS = ("explain", "compare", "sweep", "demo", "evaluate")
"""Commands whose runs go together on a page."""
RECOMMEND = "recommend"


class ReportRun(Run[ReportPlan]):
    """One unit of all that is written."""

    command = "report"
    shares = False
    patterns = (UNIT,)

    compute = ComputePlan(device="cpu")

    def settled(self, plan: ReportPlan) -> ReportPlan:
        """Errors: ValueError for what is not the folder of a run."""
        if not plan.runs:
            raise ValueError("runs: expected folders of runs, got none")
        self.units = {UNIT: plan.runs}
        self.commands = {Path(name): read_config(Path(name))[0] for name in plan.runs}
        self.unfinished: list[Failure] = []
        return plan

    def work(self, directory: RunDirectory) -> None:
        """Made again each time: the runs may have progressed."""
        directory.write(UNIT, self.do(UNIT, directory))

    def do(self, unit: str, directory: RunDirectory) -> Files:
        others = [path for path, command in self.commands.items() if command not in MAPS]
        if others:
            if len(self.plan.runs) > 1:
                raise ValueError(
                    f"{others[0]}: expected it alone; only runs of explain, compare, sweep and "
                    "evaluate go together on a page"
                )
            if self.commands[others[0]] == RECOMMEND:
                return recommended_files(others[0])[0]
            return page_files(study_page(others[0]), PAGE)
        paths = [Path(name) for name in self.plan.runs]
        names = unique_names([path.resolve().name for path in paths])
        runs = [MapsFolder.read(path, name) for path, name in zip(paths, names, strict=True)]
        for run in runs:
            if not run.records:
                raise ValueError(f"{run.path}: expected finished maps, but there are none yet")
            if not run.complete:
                done = f"{run.finished} of {run.total} units are finished"
                message = f"{run.label} is not complete: {done}"
                self.unfinished.append(Failure(title=run.label, kind="note", message=message))
                self.watch.failed(self.unfinished[-1])
        if len(runs) == 1 and runs[0].explains:
            shown = replace(runs[0], label="")
            return page_files(explained_page(shown, images=max(1, self.plan.gallery)), PAGE)
        page, texts = evaluated_page(
            runs, Intervals(confidence=self.plan.confidence), gallery=self.plan.gallery,
            base=self.plan.base,
        )  # fmt: skip
        files = {name: text.encode() for name, text in texts.items()}
        return {**files, **page_files(page, PAGE)}

    def failures(self, directory: RunDirectory) -> Iterable[Failure]:
        """The runs that are not complete."""
        return self.unfinished

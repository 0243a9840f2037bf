"""Runs a job: each input's files whole when written, and a page of them all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from moreaugrad.report import Section
from moreaugrad.runs.config import job_toml
from moreaugrad.runs.explaining import Answer, Explaining
from moreaugrad.runs.folder import PAGE, RECORD, OutputFolder
from moreaugrad.runs.gallery import page, section
from moreaugrad.runs.network import fixed_threads
from moreaugrad.runs.pace import Pace, Unwatched, Watch
from moreaugrad.runs.prepare import Prepared
from moreaugrad.runs.records import Record, json_text, versions
from moreaugrad.runs.results import Failure, map_files

NAMED = {
    "images": "files", "model.weights": "network", "model.labels": "outputs",
    "beside.model.weights": "beside.network", "beside.model.labels": "beside.outputs",
}  # fmt: skip
"""See `RunDirectory.named`."""


@dataclass(kw_only=True, eq=False)
class Outcome:
    """What a job made: a record of each finished input, and what went wrong."""

    folder: Path
    records: list[Record] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    interrupted: bool = False
    seconds: float = 0.0

    @property
    def page(self) -> Path:
        return self.folder / PAGE

    def short(self, *, failed: bool) -> list[str]:
        """A line for each map that did not reach its method's accuracy: failed, or usable."""
        return [
            f"{record['input']}, {key}: {found['message']}"
            + (f"; {found['remedy']}" if "remedy" in found else "")
            for record in self.records
            for key, found in record["maps"].items()
            if not found["ok"] and found["failed"] == failed
        ]


def run(
    prepared: Prepared,
    out: Path,
    *,
    overwrite: bool = False,
    watch: Watch | None = None,
    command: str = "",
) -> Outcome:
    """Writes `config.toml`, `inputs/` with a folder for each input, and `index.html` into `out`.

    An input that cannot be read or explained is told and left out, and so is a method that does
    not suit the network. An interruption (Ctrl-C) keeps what is finished, with its page.
    Errors: ValueError for an unsuitable folder, and where nothing at all could be done.
    """
    with fixed_threads(prepared.network.compute.threads):
        return _Run(prepared, out, watch or Unwatched(), command).run(overwrite)


class _Run:
    def __init__(self, prepared: Prepared, out: Path, watch: Watch, command: str) -> None:
        self.prepared, self.watch, self.command = prepared, watch, command
        self.folder = OutputFolder(
            out, command="explain", named=NAMED, inputs=[case.folder for case in prepared.cases]
        )
        self.outcome = Outcome(folder=out)
        self.sections: list[Section] = []
        self.config = job_toml(prepared.job, out)

    def run(self, overwrite: bool) -> Outcome:
        with self.folder.opened(self.config, overwrite=overwrite):
            return self._explain()

    def _explain(self) -> Outcome:
        began = time.perf_counter()
        try:
            pace = Pace(self.prepared, self.watch)
            for group in Explaining(self.prepared, pace, self._fail).answers():
                for answers in group:
                    if any(answer.results for answer in answers):
                        self._finish(answers)
        except KeyboardInterrupt:
            self.outcome.interrupted = True
        except BaseException:
            if not self.outcome.records:
                self.folder.discard()
            raise
        self.outcome.seconds = time.perf_counter() - began
        if not self.outcome.records:
            self.folder.discard()
            if not self.outcome.interrupted:
                raise ValueError(self._nothing())
            return self.outcome
        made = page(
            self.prepared, self.sections, self.outcome.failures, self.command, self.config,
            total=len(self.outcome.records), seconds=self.outcome.seconds,
        )  # fmt: skip
        self.folder.write_page(made)
        return self.outcome

    def _nothing(self) -> str:
        failures = self.outcome.failures
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        return f"{failures[0]}{more}"

    def _fail(self, failure: Failure) -> None:
        self.outcome.failures.append(failure)
        self.watch.failed(failure)

    def _finish(self, answers: Sequence[Answer]) -> None:
        sample = answers[0].sample
        record = _record(answers)
        made = section(self.prepared, answers)
        about = {"input": sample.case.title, "versions": record["versions"]}
        pictures = {"input.png": made.photo, "truth.png": made.truth}
        files = {name: shown.png(about) for name, shown in pictures.items() if shown is not None}
        for answer in answers:
            of_network = {"model": answer.told["model"], "target": answer.told.get("target")}
            for one in answer.results:
                told = {**about, **of_network, "method": one.variant.method}
                files |= map_files(one, told, self.prepared.job.export)
        self.folder.finish(sample.case.folder, files | {RECORD: json_text(record).encode()})
        self.outcome.records.append(record)
        if len(self.sections) < self.prepared.job.page_images:
            self.sections.append(made)


def _record(answers: Sequence[Answer]) -> Record:
    """Of one input. What a second network says stands under `beside`, its maps with the others."""
    own, sample = answers[0], answers[0].sample
    told: Record = {
        "input": sample.case.title,
        "folder": sample.case.folder,
        "shape": list(sample.x.shape),
        **own.told,
    }
    if sample.label:
        told["truth"] = {"label": sample.label}
    for other in answers[1:]:
        told["beside"] = other.told
    told["maps"] = {one.variant.key: dict(one.record) for a in answers for one in a.results}
    told["versions"] = versions()
    return told

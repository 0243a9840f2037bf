"""Runs a job: inputs in small groups through all methods, each input's files whole when written."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from moreaugrad.batching import Chunks
from moreaugrad.explanation import Explanation
from moreaugrad.report import Section, write_page
from moreaugrad.runs.cases import Sample
from moreaugrad.runs.config import job_toml
from moreaugrad.runs.folder import PAGE, RECORD, OutputFolder
from moreaugrad.runs.gallery import page, section
from moreaugrad.runs.network import fixed_threads
from moreaugrad.runs.pace import Pace, Unwatched, Watch
from moreaugrad.runs.prepare import Prepared
from moreaugrad.runs.records import Record, json_text, versions
from moreaugrad.runs.results import Failure, Result, result, write_map
from moreaugrad.runs.variants import Variant

TROUBLE = (ValueError, TypeError, FloatingPointError, MemoryError, RuntimeError, AssertionError)
"""What a method or a network raises for an input that does not suit it."""

DRAWS = 16
"""Passes that one sample of a smoothed method fills: so few samples make up a whole chunk."""
FULL_CHUNKS = 4


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

    def short(self) -> list[str]:
        """A line for each map that is not what its method states."""
        return [
            f"{record['input']}, {key}: {found['message']}"
            + (f"; {found['remedy']}" if "remedy" in found else "")
            for record in self.records
            for key, found in record["maps"].items()
            if not found["ok"]
        ]


def run(
    prepared: Prepared,
    out: Path,
    *,
    overwrite: bool = False,
    watch: Watch | None = None,
    command: str = "",
) -> Outcome:
    """Writes `config.toml`, a folder for each input and `index.html` into `out`.

    An input that cannot be read or explained is told and left out, and so is a method that does
    not suit the network. An interruption (Ctrl-C) keeps what is finished, with its page.
    Errors: ValueError for an unsuitable folder, and where nothing at all could be done.
    """
    with fixed_threads(prepared.network.compute.threads):
        return _Run(prepared, out, watch or Unwatched(), command).run(overwrite)


class _Run:
    def __init__(self, prepared: Prepared, out: Path, watch: Watch, command: str) -> None:
        self.prepared, self.watch, self.command = prepared, watch, command
        self.folder = OutputFolder(out)
        self.outcome = Outcome(folder=out)
        self.sections: list[Section] = []
        self.pace = Pace(prepared, self.watch)
        self.config = job_toml(prepared.job, out)

    def run(self, overwrite: bool) -> Outcome:
        began = time.perf_counter()
        self.folder.check(
            self.config, [case.folder for case in self.prepared.cases], overwrite=overwrite
        )
        self.folder.open(self.config)
        try:
            for samples in self._groups():
                self._explain(samples)
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
        if not self.outcome.interrupted:
            self.folder.remove_others({record["folder"]: None for record in self.outcome.records})
        made = page(
            self.prepared, self.sections, self.outcome.failures, self.command, self.config,
            total=len(self.outcome.records), seconds=self.outcome.seconds,
        )  # fmt: skip
        write_page(self.outcome.page, made)
        return self.outcome

    def _nothing(self) -> str:
        failures = self.outcome.failures
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        return f"{failures[0]}{more}"

    def _fail(self, failure: Failure) -> None:
        self.outcome.failures.append(failure)
        self.watch.failed(failure)

    def _groups(self) -> Iterator[list[Sample]]:
        """Readable samples of one shape, few enough that some are finished soon.

        A photo fills a chunk of passes with the draws of its noise alone; small pictures share it.
        """
        group: list[Sample] = []
        for case in self.prepared.cases:
            try:
                sample = case.load(self.prepared.network.model.preprocess)
            except (ValueError, OSError, MemoryError) as error:
                self._fail(Failure(title=case.title, message=line(error)))
                self.pace.skipped(case, self.prepared.wanted(case))
                continue
            if group and (
                group[0].x.shape != sample.x.shape or len(group) >= _group_size(sample.x)
            ):
                yield group
                group = []
            group.append(sample)
        if group:
            yield group

    def _explain(self, samples: Sequence[Sample]) -> None:
        batch = self.prepared.network.batch([sample.x for sample in samples])
        found: list[list[Result]] = [[] for _ in samples]
        for variant in self.prepared.variants:
            rows = [
                row for row, sample in enumerate(samples)
                if variant in self.prepared.wanted(sample.case)
            ]  # fmt: skip
            if not rows:
                continue
            made = list(self._explained(variant, samples, batch, rows))
            for row, one in made:
                found[row].append(one)
            taken = [one.record["evaluations"] for _, one in made]
            self.pace.after(variant, taken, len(rows))
        for row, (sample, results) in enumerate(zip(samples, found, strict=True)):
            if results:
                self._finish(sample, batch[row : row + 1], results)

    def _explained(
        self, variant: Variant, samples: Sequence[Sample], batch: Tensor, rows: list[int]
    ) -> Iterator[tuple[int, Result]]:
        """The maps of a group; where that fails, of each sample by itself, to find the culprit."""
        began = time.perf_counter()

        def progress(done: float, total: int) -> None:
            self.pace.during(variant, done)

        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                explanation = variant.explainer.explain(
                    batch[rows], self.prepared.target, progress=progress
                )
        except TROUBLE as error:
            if len(rows) == 1:
                title = samples[rows[0]].case.title
                self._fail(Failure(title=title, method=variant.key, message=line(error)))
                return
            for row in rows:
                yield from self._explained(variant, samples, batch, [row])
            return
        notes = list(dict.fromkeys(str(item.message) for item in caught))
        elapsed = time.perf_counter() - began
        spent = explanation.evaluations.sum().clamp(min=1)
        for place, row in enumerate(rows):
            one = explanation[place]
            share = float(one.evaluations[0] / spent)
            yield row, self._result(variant, samples[row], one, elapsed * share, notes)

    def _result(
        self, variant: Variant, sample: Sample, one: Explanation, seconds: float, notes: list[str]
    ) -> Result:
        return result(
            variant, sample, one, seconds, notes,
            photo=self.prepared.network.model.preprocess.pixels(sample.x),
            style=self.prepared.job.pictures,
        )  # fmt: skip

    def _finish(self, sample: Sample, x: Tensor, results: list[Result]) -> None:
        record = self._record(sample, x, results)
        about = {
            "input": record["input"], "target": record["target"], "versions": record["versions"],
        }  # fmt: skip
        made = section(self.prepared, sample, record, results)
        with self.folder.replacing(sample.case.folder) as scratch:
            if made.photo is not None:
                made.photo.save(scratch / "input.png", about)
            if made.truth is not None:
                made.truth.save(scratch / "truth.png", about)
            for one in results:
                method = {"method": one.variant.method}
                write_map(scratch, one, {**about, **method}, self.prepared.job.export)
            (scratch / RECORD).write_text(json_text(record), encoding="utf-8")
        self.outcome.records.append(record)
        if len(self.sections) < self.prepared.job.page_images:
            self.sections.append(made)

    def _record(self, sample: Sample, x: Tensor, results: list[Result]) -> Record:
        network = self.prepared.network
        predicted = network.predict(x, self.prepared.task)[0]
        target = results[0].target
        told: dict[str, Any] = {
            "input": sample.case.title,
            "folder": sample.case.folder,
            "shape": list(sample.x.shape),
            "model": network.model.name,
            "prediction": [
                {"class": index, "label": network.label(index), "probability": probability}
                for index, probability in predicted
            ],
            "target": {"class": target, "label": network.label(target)},
        }
        if sample.label:
            told["truth"] = {"label": sample.label}
        told["maps"] = {one.variant.key: dict(one.record) for one in results}
        told["versions"] = versions()
        return told


def _group_size(x: Tensor) -> int:
    passes = Chunks.of(None, x.reshape(1, -1)).size
    return 1 if passes <= DRAWS else FULL_CHUNKS * passes // DRAWS


def line(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return text or type(error).__name__
